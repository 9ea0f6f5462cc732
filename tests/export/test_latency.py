"""What is measured, not how long it takes: the clock is set by hand."""

from __future__ import annotations

from collections import Counter

import pytest
import torch

from raydistill.export import latency
from raydistill.export.latency import DENSE, THIS, batch_that_helps, side_by_side


class Clock:
    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        monkeypatch.setattr(latency.time, "perf_counter", lambda: self.now)
        monkeypatch.setattr(latency.os, "getloadavg", lambda: (0.0, 0.0, 0.0))

    def takes(self, seconds: float) -> None:
        self.now += seconds


def test_both_are_timed_turn_by_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, calls = Clock(monkeypatch), []
    threads = torch.get_num_threads()

    def dense() -> None:
        calls.append(DENSE)
        clock.takes(0.004 if calls.count(DENSE) > 3 else 1.0)  # the first passes warm up

    def this() -> None:
        calls.append(THIS)
        assert torch.get_num_threads() == 3
        clock.takes(0.002)

    row = side_by_side({DENSE: dense, THIS: this}, "torch", 3, 8)
    assert (row.ms[DENSE].median, row.ms[THIS].median) == (pytest.approx(4.0), pytest.approx(2.0))
    assert row.speedup == pytest.approx(2.0)
    assert (row.batch, row.threads, row.busy) == (8, 3, False)
    assert torch.get_num_threads() == threads
    assert calls[:4] == [THIS, DENSE, DENSE, THIS]
    assert Counter(calls)[DENSE] == Counter(calls)[THIS] == row.ms[THIS].passes + 3


def test_the_quartiles_and_a_busy_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    times = iter([0.001, 0.001, 0.001] + [0.010, 0.020, 0.030, 0.040] * 200)
    row = side_by_side({THIS: lambda: clock.takes(next(times))}, "torch", 1, 1)
    assert 10 < row.ms[THIS].lower < row.ms[THIS].median < row.ms[THIS].upper < 40
    assert row.busy
    assert row.speedup is None


def test_a_loaded_machine_is_busy(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    monkeypatch.setattr(latency.os, "getloadavg", lambda: (1000.0, 0.0, 0.0))
    assert side_by_side({THIS: lambda: clock.takes(0.001)}, "torch", 1, 1).busy


@pytest.mark.parametrize(("fixed", "each", "best"), [(0.0, 1e-3, 1), (7e-3, 1e-3, 64), (1.0, 1e-6, 256)])
def test_the_batch_that_helps(monkeypatch: pytest.MonkeyPatch, fixed: float, each: float, best: int) -> None:
    """A pass costs something by itself, and something for each sample: doubling helps while the first is felt."""
    clock = Clock(monkeypatch)
    monkeypatch.setattr(latency, "_MOST_S", 1e9)
    assert batch_that_helps(lambda rows: clock.takes(fixed + rows * each), 1) == best
