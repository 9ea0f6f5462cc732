"""A whole sweep against a server whose URI holds a password: it is nowhere afterwards, and has to be given again."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from raydistill.errors import ConfigError
from raydistill.sweep.file.load import Overrides, load_sweep
from raydistill.sweep.planning.plan import plan_sweep
from raydistill.sweep.record.journal import FORMAT, History
from raydistill.sweep.record.resume import check_same
from raydistill.tasks.classification import ImageShape
from tests.tracking.test_server import Server

pytestmark = pytest.mark.slow

CIFAR = ImageShape(10, (3, 32, 32))

WriteSweep = Callable[..., Path]
WORD = "s3cr3t-Word"
DATASET = {"name": "digits", "fingerprint": "ab12"}


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    (tmp_path / "server").mkdir()
    made = Server(tmp_path / "server")
    made.start()
    yield made
    made.kill()


def test_another_password_is_no_other_sweep_but_none_is_asked_for(write_sweep: WriteSweep) -> None:
    entry = {"sweep": "first", "top": 1, "tracking_uri": f"postgresql://me:{WORD}@db/x"}
    file = write_sweep(("warm_start", [entry]))
    started = load_sweep(file, Overrides(tracking_uri=f"http://me:{WORD}@host"))
    assert WORD not in str(started.config())
    assert started.sections.tracking.uri == f"http://me:{WORD}@host"
    write_sweep(("warm_start", [{**entry, "tracking_uri": "postgresql://me:other@db/x"}]))

    def resume(uri: str | None, config: object) -> None:
        history = History(start={"format": FORMAT, "config": config, "dataset": DATASET})
        again = load_sweep(file, Overrides(tracking_uri=uri))
        plain = load_sweep(write_sweep(name="plain.yaml"))
        check_same(file, history, again.config(), DATASET, plan_sweep(plain, CIFAR))

    resume("http://me:other@host", started.config())
    resume("http://elsewhere", started.config())
    in_clear = {**started.config(), "warm_start": [entry]}  # as journals were written before
    resume("http://me:other@host", in_clear)
    with pytest.raises(ConfigError, match=r"--tracking-uri: is needed again: .* http://me:\*\*\*@host") as caught:
        resume(None, started.config())
    assert WORD not in str(caught.value)
    resume(None, load_sweep(file, Overrides(tracking_uri="http://host")).config())


@pytest.mark.ray
def test_a_password_is_nowhere(
    write_sweep: WriteSweep,
    sweep_here: Callable[..., str],
    tmp_path: Path,
    spared: None,
    server: Server,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    uri = f"http://me:{WORD}@127.0.0.1:{server.port}"
    write_sweep(("num_samples", 1))
    shown = sweep_here("space.yaml", "--cpu", "--tracking-uri", uri)
    masked = f"http://me:***@127.0.0.1:{server.port}"
    assert f"open MLflow  {masked}" in shown
    assert f"--tracking-uri '{masked}' --resume" in shown
    again = sweep_here("space.yaml", "--cpu", "--tracking-uri", masked, "--resume", code=2)
    assert "stands there as it is shown, not as it is" in again.splitlines()[-1]
    assert "is needed again" in sweep_here("space.yaml", "--cpu", "--resume", code=2)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    shown += sweep_here("space.yaml", "--cpu", "--resume", "--num-samples", "2")
    server.kill()
    shown += sweep_here("space.yaml", "--cpu", "--resume", "--num-samples", "2", code=2)
    assert "no MLflow server answers there" in shown
    assert WORD not in shown + again
    kept = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(kept) > 20
    assert [str(path) for path in kept if WORD.encode() in path.read_bytes()] == []
