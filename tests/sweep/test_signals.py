"""SIGTERM and SIGHUP end a command as Ctrl-C does, whatever it is doing."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from raydistill.records import RUNNING
from raydistill.sweep.record.journal import read_journal
from tests.sweep.test_warm_run import RUN

ENDING = [signal.SIGTERM, signal.SIGHUP]


class Command:
    """A command whose lines can be waited for."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "PYTHONUNBUFFERED": "1"}
        self.lines: list[str] = []
        self.process = subprocess.Popen(
            [*RUN, *arguments], cwd=folder, env=environment, text=True, start_new_session=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip

    def until(self, words: str) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line)
            if words in line:
                return
        raise AssertionError("".join(self.lines))

    def end(self) -> tuple[int, str]:
        assert self.process.stdout is not None
        self.lines += self.process.stdout.readlines()
        return self.process.wait(timeout=300), "".join(self.lines)


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.parametrize("number", [ENDING[0], *(pytest.param(other, marks=pytest.mark.long) for other in ENDING[1:])])
@pytest.mark.parametrize(
    "words",
    [
        pytest.param("loading digits", marks=pytest.mark.long),
        "starting Ray",
        "trials of 500 epochs",
    ],  # as test_a_single_run
)
def test_a_sweep(number: int, words: str, write_sweep: Callable[..., Path], tmp_path: Path, spared: None) -> None:
    write_sweep(("training/epochs", 500))
    sweep = Command(tmp_path, "sweep", "space.yaml", "--cpu")
    sweep.until(words)
    sweep.process.send_signal(number)
    code, shown = sweep.end()
    assert code == 130, shown
    for word in ("Traceback", "received at time", "Stack", "core_worker"):
        assert word not in shown
    journal = tmp_path / "sweeps" / "tiny" / "journal.jsonl"
    if "trials" in words:
        assert "resume with:\n  raydistill sweep space.yaml --cpu --resume" in shown
        assert not [r for r in read_journal(journal).records.values() if r.state == RUNNING]
    else:
        assert not journal.exists()


@pytest.mark.slow
@pytest.mark.parametrize("number", ENDING)
def test_a_single_run(number: int, tmp_path: Path) -> None:
    run = Command(
        tmp_path, "compress", "--arch", "simplenet_cifar", "--dataset", "digits", "--epochs", "999", "--no-mlflow"
    )
    run.until("1/999")
    run.process.send_signal(number)
    code, shown = run.end()
    assert code == 130, shown
    assert "interrupted" in shown
    assert "Traceback" not in shown
