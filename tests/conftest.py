"""What several rooms' tests share: MLflow's tables, and the folder of inputs to be compatible with."""

from __future__ import annotations

import contextlib
import gc
import importlib.metadata
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
import threading
import time
from collections import Counter
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

from tests.marks import none_of, of_file

if TYPE_CHECKING:
    from tests.two_layers import TwoLayers

ROOT = Path(__file__).resolve().parent.parent
COMPAT = ROOT.parent / "shared" / "compat"

settings.register_profile("raydistill", deadline=None)  # how long an example takes says nothing of the code
settings.load_profile("raydistill")

# One thread here and in what tests start: small tensors gain nothing from a second, which waits by spinning. On two
# busy cores that is half of all the time. Torch reads it where it is imported, which is not here: of several processes
# the one that hands out the tests needs none of it.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# Bytecode is kept, whatever the environment says: to compile a thousand modules anew is a third of what collecting the
# tests takes, in each of two processes, and most of what each of the many that they start does.
sys.dont_write_bytecode = False
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)


# What a shell starts in the background, or nohup does, ignores these, and so would the processes that tests interrupt.
for _ignored, _usual in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
    if signal.getsignal(_ignored) is signal.SIG_IGN:
        signal.signal(_ignored, _usual)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--fuzz", type=int, default=1_000, metavar="N", help="wrong files that tests/fuzz tries in all")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Two processes for the whole suite; none where files or tests are named, which are quicker than two imports."""
    named = config.args_source is pytest.Config.ArgsSource.ARGS or config.option.keyword
    return 0 if named else min(2, len(os.sched_getaffinity(0)))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """In several processes, which take whole files: those with the most tests that start Ray come first, so that no
    long one is left over at the end.
    """
    if hasattr(config, "workerinput"):
        long = Counter(item.path for item in items if item.get_closest_marker("ray") and not _left_out(item))
        items.sort(key=lambda item: -long[item.path])


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """A file that is left out as a whole is not imported: Lightning alone takes longer than all of the package."""
    expression = config.option.markexpr
    if not expression or not collection_path.name.startswith("test_"):
        return None
    return none_of(of_file(collection_path.read_text()), expression) or None


def _left_out(item: pytest.Item) -> bool:
    """Whether it is for a run of its own (pyproject.toml)."""
    return any(item.get_closest_marker(name) is not None for name in ("long", "cluster"))


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """What collecting the tests imports stays; looking through it again and again for garbage is a tenth of the quick
    tests. What they make themselves is looked through less often than Python would.
    """
    gc.disable()
    try:
        return (yield)
    finally:
        gc.collect()
        gc.freeze()
        gc.set_threshold(100_000, 50, 50)
        gc.enable()


@pytest.fixture
def model() -> TwoLayers:
    import torch

    from tests.two_layers import TwoLayers

    torch.manual_seed(0)
    return TwoLayers()


@pytest.fixture(scope="session")
def compat() -> Path:
    if not COMPAT.is_dir():
        pytest.skip("the folder of inputs to be compatible with is not beside this checkout")
    return COMPAT


@pytest.fixture(scope="session")
def cifar(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tree of CIFAR-10's images: of each class 4 of train and 30 of test."""
    archive = ROOT.parent / "shared" / "data" / "cifar10-images.tar.gz"
    if not archive.is_file():
        pytest.skip("CIFAR-10's images are not beside this checkout")
    folder = tmp_path_factory.mktemp("cifar")
    taken: Counter[str] = Counter()
    with tarfile.open(archive, "r:gz") as opened:
        for member in opened:
            place = member.name.rpartition("/")[0]
            if member.isfile() and taken[place] < (4 if place.startswith("train") else 30):
                taken[place] += 1
                opened.extract(member, folder, filter="data")
    return folder


@pytest.fixture(scope="session")
def root() -> Path:
    return ROOT


@pytest.fixture(scope="session")
def s3_process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """An S3 server in a process of its own (moto's), and its URL."""
    log = tmp_path_factory.mktemp("s3") / "server.log"
    with log.open("wb") as file:
        command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", "0"]
        process = subprocess.Popen(command, stdout=file, stderr=file, env={**os.environ, "PYTHONUNBUFFERED": "1"})
    try:
        while (found := re.search(r"Running on (http://[0-9.:]+)", log.read_text())) is None:
            assert process.poll() is None, log.read_text()
            time.sleep(0.1)
        yield process, found.group(1)
    finally:
        process.kill()
        process.wait()


@pytest.fixture
def s3_endpoint(
    s3_process: tuple[subprocess.Popen[bytes], str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> str:
    """The URL of the S3 server; this process and those it starts know it and may write there."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_process[1])
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("RAYDISTILL_WORK_DIR", str(tmp_path / "work"))
    return s3_process[1]


@pytest.fixture
def bucket(s3_endpoint: str) -> str:
    """A fresh bucket."""
    import boto3

    name = f"test-{secrets.token_hex(4)}"
    boto3.client("s3", endpoint_url=s3_endpoint, region_name="us-east-1").create_bucket(Bucket=name)
    return name


class Gate:
    """Hands connections on to the server while it is open; closed, it cuts them and refuses new ones."""

    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        self._listener: socket.socket | None = None
        self._cut: list[socket.socket] = []
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.open()

    def open(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", self.port), reuse_port=True)
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def close(self) -> None:
        for ended in (self._listener, *self._cut):
            if ended is not None:
                with contextlib.suppress(OSError):
                    ended.shutdown(socket.SHUT_RDWR)
                ended.close()
        self._listener, self._cut = None, []

    def _accept(self, listener: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = listener.accept()
                server = socket.create_connection(self._target)
                self._cut += [client, server]
                for pair in ((client, server), (server, client)):
                    threading.Thread(target=_pump, args=pair, daemon=True).start()


def _pump(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_WR)


@pytest.fixture
def gate(s3_endpoint: str) -> Iterator[Gate]:
    host, _, port = s3_endpoint.rpartition("/")[2].partition(":")
    made = Gate(host, int(port))
    yield made
    made.close()


@pytest.fixture(scope="session")
def tables(tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config) -> Path:
    """A database with MLflow's tables and nothing in them: making them takes 4 s, so once for each release of it."""
    release = importlib.metadata.version("mlflow")
    kept = getattr(pytestconfig, "cache", None)  # -p no:cacheprovider
    folder = tmp_path_factory.mktemp("tables") if kept is None else kept.mkdir("tables")
    path = Path(folder / f"mlflow-{release}.db")
    if not path.exists():
        made = tmp_path_factory.mktemp("made") / "mlflow.db"
        from raydistill.tracking.store import hush, undisturbed

        with undisturbed():
            from mlflow import MlflowClient

            hush()
            MlflowClient(tracking_uri=f"sqlite:///{made}").search_experiments()
        shutil.copy(made, path.with_suffix(f".{os.getpid()}"))
        path.with_suffix(f".{os.getpid()}").replace(path)  # another process may make it at the same time
    return path
