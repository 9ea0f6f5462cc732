"""Sweeps that are shot at: does any of them lose something, or do something twice?

Runs the real ``raydistill sweep`` on digits, each sweep with one or two kills (SIGKILL) of its driver, of a trial's
process or of its MLflow server, with a SIGTERM or SIGHUP to its driver, or with a kill and a checkpoint that is then
cut in half (the baseline's, or that of a trial under way), at moments drawn from the sweep's number: after a drawn
line of the journal and a drawn part of a second. A killed server is started again on its port after a drawn time; a
killed driver is resumed until the sweep is done. Then `soak_reader` compares journal, MLflow's database, checkpoints
and processes with each other and with the same sweep undisturbed: every epoch and every final weight must be the same
bit for bit.

    python benchmarks/soak.py [--sweeps 30] [--first 0] [--folder DIR] [--kind trunk]

Trials of ``--kind trunk`` branch off from networks of one gradual pruning, those of ``--kind forked`` begin after the
epochs that all have in common, those of ``--kind filtered`` are chosen of a hundred by what pruning at once costs; half
of these sweeps are hit while that is trained or measured.

Prints a line a sweep: its number, what was killed after which line of the journal, resumes, seconds, verdict.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import soak_reader
import yaml

ROOT = Path(__file__).resolve().parent.parent
RUN = [sys.executable, "-c", "import sys; sys.argv[0] = 'raydistill'; from raydistill.cli.main import run; run()"]
SCENARIOS = (
    ("driver",), ("trial",), ("server",), ("driver", "driver"), ("trial", "driver"), ("server", "driver"),
    ("server", "trial"), ("trial", "trial"), ("server", "server"), ("term",), ("hup",), ("term", "hup"),
    ("trial", "term"), ("server", "hup"), ("damage",), ("damage", "damage"), ("term", "damage"),
)  # fmt: skip
SIGNALS = {"term": signal.SIGTERM, "hup": signal.SIGHUP}
INTERRUPTED = 130
LINES = 33
"""Of the journal of an undisturbed sweep, about: four trials of five epochs."""
EARLY_LINE, EARLY_S = 2, 8.0
"""Behind the baseline's line a sweep trains its trunk or measures for some seconds."""
MODEL = '''
"""A small network that takes its time, so that it can be hit."""
import time
from torch import nn

class Net(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 8, stride=4)
        self.fc = nn.Linear(8 * 49, num_classes)

    def forward(self, images):
        if self.training:
            time.sleep(0.06)
        return self.fc(self.conv(images).relu().flatten(1))
'''
SWEEP = {
    "version": 1,
    "model": {"arch": "soak_model:Net"},
    "dataset": {"name": "digits"},
    "training": {"epochs": 5, "batch_size": 256, "lr": 0.02, "deterministic": True, "precision": "fp32"},
    "baseline": {"epochs": 3, "lr": 0.05},
    "searcher": {"name": "sobol"},  # the same with a trial scheduler and without
    "schedule": {
        "version": 1,
        "pruners": {
            "agp": {
                "class": "AutomatedGradualPruner",
                "initial_sparsity": 0.05,
                "final_sparsity": 0.5,
                "weights": ["conv.weight", "fc.weight"],
            }
        },
        "policies": [{"pruner": {"instance_name": "agp"}, "starting_epoch": 0, "ending_epoch": 4, "frequency": 1}],
    },
    "search": {
        "training.lr": {"loguniform": [0.01, 0.05]},
        "per_layer": {"weights": ["*.weight"], "final_sparsity": {"uniform": [0.3, 0.95]}},
    },
    "num_samples": 4,
    "max_failures": 5,
    "resources_per_trial": {"cpu": 1},
}

KINDS: Mapping[str, Mapping[str, object]] = {
    "plain": {},
    "trunk": {
        "trunk": {"epochs": 12, "initial_sparsity": 0.2, "final_sparsity": 0.9},
        "schedule": {"version": 1},
        "search": {"training.lr": {"loguniform": [0.01, 0.05]}, "trunk.sparsity": {"uniform": [0.3, 0.9]}},
    },
    "forked": {
        "training": {**SWEEP["training"], "epochs": 8},  # type: ignore[dict-item]
        "schedule": {
            **SWEEP["schedule"],  # type: ignore[dict-item]
            "policies": [{"pruner": {"instance_name": "agp"}, "starting_epoch": 4, "ending_epoch": 7, "frequency": 1}],
        },
        "search": {"per_layer": {"weights": ["*.weight"], "final_sparsity": {"uniform": [0.3, 0.95]}}},
    },
    "filtered": {"warm_start": {"auto": 100}},
}


@dataclass
class Report:
    """One sweep: what was killed ("driver@12": after 12 lines of the journal), resumes, seconds, what is wrong."""

    number: int
    scheduler: str
    killed: list[str] = field(default_factory=list)
    resumes: int = 0
    seconds: float = 0.0
    faults: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        verdict = "ok" if not self.faults else "; ".join(self.faults)
        killed = ", ".join(self.killed)
        return f"{self.number:>4}  {self.scheduler:<4}  {killed:<28} {self.resumes:>7} {self.seconds:>7.0f}  {verdict}"


HEADER = f"{'seed':>4}  {'asha':<4}  {'killed @ line of the journal':<28} {'resumes':>7} {'seconds':>7}  verdict"


class Server:
    """A real ``mlflow server`` on SQLite."""

    def __init__(self, folder: Path, tables: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.uri = f"http://127.0.0.1:{self.port}"
        self.folder, self.mark = folder, uuid.uuid4().hex
        self.restart_at = 0.0
        self.process: subprocess.Popen[bytes] | None = None
        folder.mkdir()
        shutil.copy(tables, folder / "mlflow.db")

    def start(self) -> None:
        command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(self.port)]
        command += ["--backend-store-uri", f"sqlite:///{self.folder}/mlflow.db", "--workers", "1"]
        command += ["--artifacts-destination", str(self.folder / "mlartifacts")]
        environment = {**os.environ, "RAYDISTILL_SOAK": self.mark, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
        with open(self.folder / "server.log", "ab") as out:
            self.process = subprocess.Popen(command, stdout=out, stderr=out, env=environment, start_new_session=True)
        self.restart_at = 0.0

    def answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.uri}/health", timeout=2) as answer:
                return answer.status == 200
        except OSError:
            return False

    def ready(self) -> None:
        """Started if it is not, and waited for."""
        if self.process is None:
            self.start()
        deadline = time.monotonic() + 120
        while not self.answers():
            if time.monotonic() > deadline:
                raise RuntimeError(f"no server: {(self.folder / 'server.log').read_text()[-2000:]}")
            time.sleep(0.2)

    def kill(self) -> None:
        """SIGKILL to the server and its workers."""
        if self.process is not None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            self.process = None


class Range:
    """What all sweeps share: baselines by content hash, empty databases, undisturbed sweeps, one server."""

    def __init__(self, folder: Path, tables: Path | None = None, changes: Mapping[str, object] | None = None) -> None:
        """tables: an empty database of MLflow's, where there is one already. changes: sections other than `SWEEP`'s."""
        self.folder, self.changes = folder, dict(changes or {})
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "soak_model.py").write_text(MODEL)
        self.tables = tables or folder / "tables.db"
        if tables is None:
            made = "from mlflow import MlflowClient; import sys; MlflowClient(sys.argv[1]).search_experiments()"
            subprocess.run([sys.executable, "-c", made, f"sqlite:///{self.tables}"], check=True, capture_output=True)
        self.server = Server(folder / "server", self.tables)
        self.references: dict[int, Path] = {}
        self.marks: list[str] = []

    def reference(self, seed: int) -> Path:
        """The folder of the sweep with this seed, undisturbed."""
        if seed not in self.references:
            shot = Sweep(self, f"reference{seed}", seed, "none", self.folder / "sweeps")
            shot.start()
            shot.finish()
            self.references[seed] = shot.folder
            faults = soak_reader.faults_of(shot.folder, shot.folder / "mlflow.db", shot.folder / "mlartifacts", None)
            if shot.code or faults:
                raise RuntimeError(f"the undisturbed sweep: {shot.output()} {faults}")
        return self.references[seed]


class Sweep:
    """One ``raydistill sweep``, started and resumed in processes of its own."""

    def __init__(self, place: Range, name: str, seed: int, scheduler: str, storage: Path, uri: str = "") -> None:
        self.name, self.storage, self.folder, self.place = name, storage, storage / name, place
        self.mark = uuid.uuid4().hex
        self.journal = self.folder / "journal.jsonl"
        self.log = place.folder / f"{name}.log"
        self.process: subprocess.Popen[bytes] | None = None
        self.code = self.said = self.lost_baselines = 0
        section = {"name": scheduler, **({"grace_period": 2} if scheduler == "asha" else {})}
        sweep = {**SWEEP, **place.changes, "name": name, "seed": seed, "trial_scheduler": section}
        if uri:
            sweep["tracking"] = {"uri": uri}
        else:
            self.folder.mkdir(parents=True)
            shutil.copy(place.tables, self.folder / "mlflow.db")
        self.file = place.folder / f"{name}.yaml"
        self.file.write_text(yaml.safe_dump(sweep, sort_keys=False))

    def lines(self) -> int:
        return self.journal.read_bytes().count(b"\n") if self.journal.exists() else 0

    def start(self) -> None:
        resume = ["--resume"] if self.lines() else []
        python_path = os.pathsep.join([str(ROOT), str(self.place.folder)])
        environment = {**os.environ, "PYTHONPATH": python_path, "RAYDISTILL_SOAK": self.mark, "OMP_NUM_THREADS": "1"}
        self.said = self.log.stat().st_size if self.log.exists() else 0
        with open(self.log, "ab") as out:
            self.process = subprocess.Popen(
                [*RUN, "sweep", str(self.file), "--storage", str(self.storage), *resume],
                cwd=self.place.folder, env=environment, stdout=out, stderr=out, start_new_session=True,
            )  # fmt: skip

    def running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def finish(self, timeout_s: float = 900.0) -> None:
        assert self.process is not None
        self.code = self.process.wait(timeout_s)

    def trials(self) -> list[int]:
        """Processes that a trial runs in now; ImplicitFunc is Tune's name for them."""
        return [pid for pid, command in soak_reader.marked(self.mark).items() if command.startswith("ray::Implicit")]

    def output(self) -> str:
        return self.log.read_text(errors="replace")

    def end(self) -> None:
        """Whatever happened: nothing of this sweep stays behind."""
        for pid in soak_reader.marked(self.mark):
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)


def shoot(place: Range, number: int) -> Report:
    """One sweep, killed as `number` says, resumed until it is done, then read."""
    rng = random.Random(number)
    kinds = SCENARIOS[number % len(SCENARIOS)]
    scheduler = "asha" if number % 4 == 3 else "none"
    seed = number % 2
    reference = place.reference(seed)
    report = Report(number, "yes" if scheduler == "asha" else "no")
    served = "server" in kinds
    storage = place.folder / (f"alone{number}" if number % 5 == 4 else "sweeps")  # alone: it trains its own baseline
    if served:
        place.server.ready()
    sweep = Sweep(place, f"shot{number}", seed, scheduler, storage, place.server.uri if served else "")
    began = time.monotonic()
    sweep.start()
    lines = sorted(rng.randrange(1, LINES) for _ in kinds)
    if place.changes and number % 2:
        lines[0] = EARLY_LINE
    try:
        for kind, line in zip(kinds, lines, strict=True):
            _hit(kind, line, rng, sweep, place.server, report)
        _to_its_end(sweep, place.server, served, report)
        report.seconds = time.monotonic() - began
        database = place.server.folder if served else sweep.folder
        if sweep.code == 0:
            report.faults += soak_reader.faults_of(
                sweep.folder, database / "mlflow.db", database / "mlartifacts", reference, sweep.lost_baselines
            )
        else:
            report.faults.append(f"exit code {sweep.code}: {sweep.output()[-500:]}")
        report.faults += left_running([sweep.mark], 20.0, besides="ray::.*Agent")
        place.marks.append(sweep.mark)
    except BaseException:
        sweep.end()
        raise
    return report


def left_running(marks: Sequence[str], wait_s: float, besides: str = "$^") -> list[str]:
    """Processes of these sweeps that are still there after a while; they are ended then.

    besides: command lines to pass over. Ray's agents, when their raylet was killed, spend a minute on telling it.
    """
    deadline = time.monotonic() + wait_s
    while True:
        found = {pid: command for mark in marks for pid, command in soak_reader.marked(mark).items()}
        left = {pid: command.strip() for pid, command in found.items() if not re.match(besides, command)}
        if not left or time.monotonic() > deadline:
            break
        time.sleep(0.2)
    for pid in left:
        with contextlib.suppress(OSError):
            os.kill(pid, signal.SIGKILL)
    return [f"still running: {command[:80]}" for command in left.values()]


def _cut_in_half(sweep: Sweep, rng: random.Random) -> None:
    """The checkpoint of the baseline, of a trial that has not ended, or one of the trunk's; the processes that write it
    are ended first."""
    sweep.end()
    story = soak_reader.read_story(sweep.journal)
    under_way = [Path(path) for trial_id, path in story.checkpoints.items() if not story.ends.get(trial_id)]
    of_trunk = [*sweep.storage.glob("trunks/*/*.pt")]
    found = sorted({*under_way, *of_trunk, *sweep.storage.glob("baselines/*/checkpoint.pt")})
    if found:
        path = rng.choice([path for path in found if path.exists()])
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        sweep.lost_baselines += path not in under_way and path not in of_trunk


def _hit(kind: str, line: int, rng: random.Random, sweep: Sweep, server: Server, report: Report) -> None:
    """Wait for the drawn moment and kill; a driver is resumed, a server is started again after a drawn time."""
    delay, away = rng.uniform(0.0, EARLY_S if line == EARLY_LINE else 0.7), rng.uniform(0.5, 12.0)
    while sweep.running() and sweep.lines() < line:
        _revive(server)
        time.sleep(0.01)
    until = time.monotonic() + delay
    while time.monotonic() < until or (kind == "trial" and sweep.running() and not sweep.trials()):
        _revive(server)
        time.sleep(0.01)
    if not sweep.running():
        report.killed.append(f"{kind}: too late")
        return
    report.killed.append(f"{kind}@{sweep.lines()}")
    if kind in ("driver", "damage"):
        assert sweep.process is not None
        sweep.process.kill()
        sweep.process.wait()
        if kind == "damage":
            _cut_in_half(sweep, rng)
        _resume(sweep, server, report)
    elif kind in SIGNALS:
        assert sweep.process is not None
        sweep.process.send_signal(SIGNALS[kind])
        sweep.finish(120.0)
        heard = sweep.log.stat().st_size > sweep.said  # before Python runs, a signal ends a process by itself
        if sweep.code not in (0, INTERRUPTED) and (heard or sweep.code != -SIGNALS[kind]):
            report.faults.append(f"exit code {sweep.code} after {kind}")
        _resume(sweep, server, report)
    elif kind == "trial":
        with contextlib.suppress(ProcessLookupError):
            os.kill(rng.choice(sorted(sweep.trials())), signal.SIGKILL)
    else:
        server.kill()
        server.restart_at = time.monotonic() + away


def _revive(server: Server) -> None:
    if server.restart_at and time.monotonic() > server.restart_at:
        server.start()


def _resume(sweep: Sweep, server: Server, report: Report) -> None:
    if server.restart_at or server.process is not None:
        server.ready()  # a sweep does not start without its server: it says so and ends
    report.resumes += 1
    sweep.start()


def _to_its_end(sweep: Sweep, server: Server, served: bool, report: Report) -> None:
    """Until the command says that all is done; a server that came too late is one more resume."""
    for _ in range(5):
        while sweep.running():
            _revive(server)
            time.sleep(0.05)
        sweep.finish()
        told = sweep.output().rpartition("delivering to MLflow")[2]
        if sweep.code == 0 and "MLflow did not take" not in told:
            return
        if sweep.code not in (0, 2):
            return
        _resume(sweep, server, report)
    report.faults.append("not done after five resumes")


@contextlib.contextmanager
def open_range(
    folder: Path, tables: Path | None = None, changes: Mapping[str, object] | None = None
) -> Iterator[Range]:
    place = Range(folder, tables, changes)
    try:
        yield place
    finally:
        place.server.kill()


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Kill sweeps at random moments and look for what is lost.")
    parser.add_argument("--sweeps", type=int, default=30)
    parser.add_argument("--first", type=int, default=0, help="number of the first sweep; each number is one story")
    parser.add_argument("--kind", choices=list(KINDS), default="plain", help="of sweep")
    parser.add_argument("--folder", type=Path, help="where to work; left out, a folder that is removed at the end")
    options = parser.parse_args(arguments)
    if options.folder is not None and options.folder.exists() and any(options.folder.iterdir()):
        parser.error(f"--folder: {options.folder} holds something already; name another, or remove it")
    with contextlib.ExitStack() as stack:
        folder = options.folder or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="soak")))
        place = stack.enter_context(open_range(folder.resolve(), changes=KINDS[options.kind]))
        print(HEADER, flush=True)
        reports = []
        for number in range(options.first, options.first + options.sweeps):
            reports.append(shoot(place, number))
            print(reports[-1], flush=True)
        left = left_running(place.marks, 120.0)
    print(*left, sep="\n", end="\n" * bool(left))
    bad = sum(bool(report.faults) for report in reports)
    kills = sum("@" in killed for report in reports for killed in report.killed)
    print(
        f"{len(reports)} sweeps, {kills} kills, {sum(r.resumes for r in reports)} resumes, {bad} with something wrong"
    )
    return 1 if bad or left else 0


if __name__ == "__main__":
    sys.exit(main())
