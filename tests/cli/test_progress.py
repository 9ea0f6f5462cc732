"""Progress: a table on a terminal, lines elsewhere, a time left that can be checked by hand; within 80 columns."""

from __future__ import annotations

import fcntl
import io
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from raydistill.cli.progress import Progress
from raydistill.cli.tables import front_report, infeasible_lines
from raydistill.records import BASELINE, FAILED, FINISHED, RUNNING, STOPPED, EpochMetrics, Evaluation, TrialRecord
from raydistill.search import FrontRow
from raydistill.sweep.record.observer import Opening
from raydistill.tasks.classification.metrics import METRICS


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def metrics(epoch: int, top1: float = 0.7, sparsity: float = 0.5, epochs: int = 10) -> EpochMetrics:
    return EpochMetrics(epoch, epochs, 1.0, {"top1": top1, "top5": 0.9, "loss": 1.0}, 0.1, sparsity, {}, 1e3, 0.5, 0)


def record(index: int, epochs_done: int = 0, state: str = RUNNING, reason: str = "") -> TrialRecord:
    last = metrics(epochs_done - 1) if epochs_done else None
    trial_id = f"t{index:04d}"
    return TrialRecord(trial_id, {}, state, "net", "digits", 0, reason, planned_sparsity=0.9, epochs=10, last=last)


def watch(clock: Clock, terminal: bool = False) -> tuple[Progress, io.StringIO]:
    out = io.StringIO()
    return Progress(Console(file=out, width=80, force_terminal=terminal, highlight=False), METRICS, clock), out


def opening(trials: int = 4) -> Opening:
    return Opening("tiny", trials, 10, 2, "digits", "net", {})


def test_lines_without_a_terminal() -> None:
    clock = Clock()
    progress, out = watch(clock)
    progress.step("starting Ray")
    progress.warning("training on digits INSTEAD OF cifar10")
    progress.opening(opening())
    progress.trial(record(0))
    progress.beat()
    clock.now += 320
    for _ in range(9):
        progress.beat()
        clock.now += 320  # nothing has changed since
    progress.trial(record(0, 10, FINISHED, "trained all 10 epochs"))
    progress.trial(record(1, 4, STOPPED, "stopped after 4 of 10 epochs: score 0.5 below the rung's cutoff 0.6"))
    progress.trial(record(2, 1, FAILED, "the loss is nan"))
    assert out.getvalue().splitlines() == [
        "starting Ray",
        "warning: training on digits INSTEAD OF cifar10",
        "tiny: net on digits, 4 trials of 10 epochs, 2 at a time",
        "1 running, 0 finished, 0 stopped, 3 waiting, processes are starting",
        "t0000 finished  top1 70.00 %  sparsity 50.00 %",
        "t0001 stopped   top1 70.00 %  sparsity 50.00 %  after 4 of 10 epochs: score 0.5 below the rung's cutoff 0.6",
        "t0002 failed    top1 70.00 %  sparsity 50.00 %  the loss is nan",
    ]


def test_time_left() -> None:
    """Two trials at one epoch a second each: 10 + 10 epochs to come after the first pair, at 2 a second."""
    clock = Clock()
    progress, out = watch(clock)
    progress.opening(opening())
    for epoch in range(1, 11):
        for index in range(2):
            state = FINISHED if epoch == 10 else RUNNING
            progress.trial(record(index, epoch, state))
        clock.now += 1
    clock.now += 300  # silence: a line is due
    progress.beat()
    # 19 epochs were counted in 310 s, 20 are left
    assert out.getvalue().splitlines()[-1] == "0 running, 2 finished, 0 stopped, 2 waiting, about 5 min 26 s left"


def test_a_resumed_sweep_counts_what_had_ended() -> None:
    clock = Clock()
    progress, out = watch(clock)
    records = {record(0).trial_id: record(0, 10, FINISHED), record(1).trial_id: record(1, 3, STOPPED)}
    progress.opening(replace(opening(), records=records))
    assert "4 trials of 10 epochs, 2 of them ended before, 2 at a time" in out.getvalue()
    clock.now += 320
    progress.beat()
    assert "0 running, 1 finished, 1 stopped, 2 waiting" in out.getvalue()


def test_the_table_on_a_terminal_fits() -> None:
    clock = Clock()
    progress, _ = watch(clock, terminal=True)
    progress.opening(opening(20))
    for index in range(12):
        progress.trial(record(index, 3))
    rows = [row(f"t{i:04d}", 0.9 - i / 100, i / 100) for i in range(9)]
    progress.front(rows)
    console = Console(file=io.StringIO(), width=80, record=True)
    console.print(progress._table())
    progress.stop()
    lines = console.export_text().splitlines()
    assert lines[0].startswith("12 running, 0 finished, 0 stopped, 8 waiting")
    assert sum("running" in line and "3/10" in line for line in lines) == 8
    assert any("and 4 more" in line for line in lines)
    assert sum(" front " in line for line in lines) == 6
    assert "t0008" in "".join(lines)  # the sparsest
    assert max(map(len, lines)) <= 80


def row(trial_id: str, top1: float, sparsity: float, pareto: bool = True, knee: bool = False) -> FrontRow:
    last = metrics(9, top1, sparsity)
    test = Evaluation("test", {"top1": top1 - 0.01, "top5": 0.9, "loss": 1.0}, 100)
    trial = TrialRecord(trial_id, {}, FINISHED, "net", "digits", 0, epochs=10, last=last, test=test)
    return FrontRow(trial, {"top1": top1, "sparsity": sparsity}, 0 if pareto else 1, pareto, knee)


@pytest.mark.parametrize("dense_on_front", [True, False])
def test_the_front_table(dense_on_front: bool) -> None:
    rows = [row("t0003", 0.71, 0.8, knee=True), row("t0001", 0.69, 0.9), row(BASELINE, 0.705, 0.0, dense_on_front)]
    rows.append(row("t0009", 0.5, 0.5, pareto=False))
    console = Console(file=io.StringIO(), width=80, record=True)
    for part in front_report(rows, "cifar10", METRICS):
        console.print(part)
    lines = [line.rstrip() for line in console.export_text().splitlines() if line.strip()]
    assert lines[0] == "Pareto front: cifar10, top1 on its validation and test split, seeds: 1"
    note = ["dense"] if dense_on_front else ["dominated"]
    assert [line.split() for line in lines[3:]] == [
        ["baseline", "0.00", "70.50", "69.50", *note],
        ["t0003", "80.00", "71.00", "70.00", "knee"],
        ["t0001", "90.00", "69.00", "68.00"],
    ]
    assert "…" not in "".join(lines)


def test_an_empty_front_is_said() -> None:
    bad = [replace(row(name, 0.5, 0.5, False), violations=("sparsity 0.5, not >= 0.9",)) for name in ("t0", "t1")]
    dense = row(BASELINE, 0.7, 0.0)
    lines = infeasible_lines([*bad, dense])
    assert lines[0] == "t0 is infeasible: sparsity 0.5, not >= 0.9"
    assert "the front is the dense baseline alone: loosen them" in lines[2]
    broken = replace(row(BASELINE, 0.7, 0.0, False), violations=("sparsity 0, not >= 0.9",))
    lines = infeasible_lines([*bad, broken])
    assert len(lines) == 3
    assert "the front is empty, and no model is registered" in lines[2]
    assert infeasible_lines([row("t2", 0.6, 0.95), bad[0], broken]) == lines[:1]
    console = Console(file=io.StringIO(), width=80, record=True)
    console.print(front_report([*bad, broken], "digits", METRICS)[1])
    assert console.export_text().split()[-5:] == ["baseline", "0.00", "70.00", "69.00", "infeasible"]


def test_the_front_fits_with_three_objectives_and_several_seeds() -> None:
    runs = [row("t0003", top1, 0.8).record for top1 in (0.97, 0.98, 0.95)]
    values = {"top1": 2.9 / 3, "macs": 651_720.0, "latency_ms": 0.4444}
    member = replace(runs[0], extra={"warm_start": "schedule agp.yaml"})
    rows = [FrontRow(member, values, 0, True, True, tuple(runs[1:]))]
    rows.append(replace(row(BASELINE, 0.9, 0.0, pareto=False), values={**values, "top1": 0.9}))
    console = Console(file=io.StringIO(), width=80, record=True)
    for part in front_report(rows, "digits", METRICS):
        console.print(part)
    text = console.export_text()
    assert "…" not in text
    assert "96.67 ± 1.53" in text
    assert "dominated" in text
    assert "knee, warm start" in " ".join(text.split())
    assert max(map(len, text.splitlines())) <= 80


class Screen:
    """What stands on a terminal of so many rows, with what has scrolled off it, after what was written to it."""

    def __init__(self, height: int) -> None:
        self.lines, self._at, self._height = [""], 0, height

    def write(self, text: str) -> None:
        for part in re.findall(r"\x1b\[[?0-9;]*[a-zA-Z]|\r|\n|[^\x1b\r\n]+", text):
            if part == "\n":
                self._at += 1
                self.lines += [""] * (self._at == len(self.lines))
            elif part == "\x1b[2K":
                self.lines[self._at] = ""
            elif part.startswith("\x1b[") and part.endswith("A"):  # up, but not to what has scrolled off
                self._at = max(self._at - int(part[2:-1] or 1), len(self.lines) - self._height, 0)
            elif part != "\r" and not part.startswith("\x1b"):
                self.lines[self._at] += part  # what is written over was erased before


ON_A_TERMINAL = """
import time
from rich.console import Console
from raydistill.cli.progress import Progress
from raydistill.tasks.classification.metrics import METRICS
from tests.cli.test_progress import opening, record, row
with Progress(Console(highlight=False, width=80, height={height}), METRICS) as progress:
    progress.opening(opening(20))
    for index in range(12):
        progress.trial(record(index, 3))
    progress.front([row(f"t{{i:04d}}", 0.9 - i / 100, i / 100) for i in range(6)])
    time.sleep(0.6)
    progress.warning("one")
    time.sleep(0.4)
print("END")
"""


@pytest.mark.slow
@pytest.mark.parametrize("height", [6, 14, 40])
def test_no_row_is_left_behind_on_a_terminal(height: int) -> None:
    """Whether all of the table has room there or not."""
    reader, writer = pty.openpty()
    fcntl.ioctl(writer, termios.TIOCSWINSZ, struct.pack("HHHH", height, 80, 0, 0))
    command = [sys.executable, "-c", ON_A_TERMINAL.format(height=height)]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "TERM": "xterm"}
    process = subprocess.Popen(command, stdout=writer, stderr=writer, env=environment)
    os.close(writer)
    written = b""
    while True:
        try:
            written += os.read(reader, 10_000)
        except OSError:  # the other end is closed
            break
    os.close(reader)
    assert process.wait(timeout=300) == 0, written.decode()
    assert b"12 running" in written
    screen = Screen(height)
    screen.write(written.decode())
    assert [line.strip() for line in screen.lines if line.strip()] == [
        "tiny: net on digits, 20 trials of 10 epochs, 2 at a time",
        "warning: one",
        "END",
    ]


def test_trials_that_train_nothing_are_said_so() -> None:
    progress, out = watch(Clock())
    progress.opening(replace(opening(), epochs=0))
    assert "4 trials without training, 2 at a time" in out.getvalue()
