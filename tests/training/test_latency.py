"""What is measured, not how long it takes: the clock is set by hand."""

from __future__ import annotations

import multiprocessing
import os
import time
from collections import Counter

import pytest
import torch

from raydistill.training import latency
from raydistill.training.latency import at_rest, take_turns


class Clock:
    """others: cores that other processes use."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, others: float = 0.0) -> None:
        self.now, self.others = 0.0, others
        monkeypatch.setattr(latency.time, "perf_counter", lambda: self.now)
        monkeypatch.setattr(latency.os, "cpu_count", lambda: 4)
        monkeypatch.setattr(latency, "_cpu_seconds", lambda: (1.0 + self.now * (1 + self.others), self.now))

    def takes(self, seconds: float) -> None:
        self.now += seconds


def test_all_are_timed_turn_by_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, calls = Clock(monkeypatch), []
    threads = torch.get_num_threads()

    def first() -> None:
        calls.append("first")
        clock.takes(0.004 if calls.count("first") > 3 else 1.0)  # the first passes warm up

    def second() -> None:
        calls.append("second")
        assert torch.get_num_threads() == 3
        clock.takes(0.002)

    found = take_turns({"first": first, "second": second}, 3)
    assert (found.ms["first"].median, found.ms["second"].median) == (pytest.approx(4.0), pytest.approx(2.0))
    assert not found.busy
    assert torch.get_num_threads() == threads
    assert calls[:4] == ["second", "first", "first", "second"]
    assert Counter(calls)["first"] == Counter(calls)["second"] == found.ms["second"].passes + 3


def test_short_passes_are_measured_for_half_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    found = take_turns({"this": lambda: clock.takes(0.0001)}, 1)
    assert clock.now == pytest.approx(0.5, abs=0.01)
    assert found.ms["this"].passes == pytest.approx(5000, abs=10)


def test_the_quartiles(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    times = iter([0.001, 0.001, 0.001] + [0.010, 0.020, 0.030, 0.040] * 200)
    found = take_turns({"this": lambda: clock.takes(next(times))}, 1)
    assert 10 < found.ms["this"].lower < found.ms["this"].median < found.ms["this"].upper < 40
    assert found.busy, "times vary much"


@pytest.mark.parametrize(
    ("others", "threads", "busy"),
    [(0.2, 4, False), (0.5, 4, True), (1.5, 2, False), (2.5, 1, True)],
)
def test_other_work_on_the_cores_that_are_needed(
    monkeypatch: pytest.MonkeyPatch, others: float, threads: int, busy: bool
) -> None:
    clock = Clock(monkeypatch, others)
    assert take_turns({"this": lambda: clock.takes(0.001)}, threads).busy is busy


def test_where_the_system_does_not_say_its_load_does(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    monkeypatch.setattr(latency, "_cpu_seconds", lambda: None)
    for load in (0.5, 3.0):
        monkeypatch.setattr(latency.os, "getloadavg", lambda load=load: (load, 0.0, 0.0))
        assert take_turns({"this": lambda: clock.takes(0.001)}, 1).busy is (load > 2)


def test_of_three_busy_attempts_the_quickest(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch, others=4.0)
    durations, coming = [0.0], iter([0.005, 0.003, 0.004])
    pauses: list[float] = []

    def pause(seconds: float) -> None:
        pauses.append(seconds)
        durations.append(next(coming))

    monkeypatch.setattr(latency.time, "sleep", pause)
    found = at_rest({"this": lambda: clock.takes(durations[-1])}, 1)
    assert (found.ms["this"].median, found.busy) == (pytest.approx(3.0), True)
    assert pauses == [0.0, 0.5, 1.0]


def test_the_first_attempt_that_has_peace(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch, others=4.0)
    monkeypatch.setattr(latency.time, "sleep", lambda seconds: setattr(clock, "others", 4.0 if seconds < 0.5 else 0.0))
    found = at_rest({"this": lambda: clock.takes(0.001)}, 1)
    assert not found.busy
    assert clock.now == pytest.approx(1.0, abs=0.01), "two attempts"


@pytest.mark.slow
@pytest.mark.skipif(not os.path.exists("/proc/stat"), reason="only Linux tells what others use")
def test_what_others_use_is_seen() -> None:
    """A process that does nothing but work, beside this one that sleeps."""
    working = multiprocessing.get_context("spawn").Process(target=_work, daemon=True)
    working.start()
    try:
        time.sleep(2.0)
        before = latency._cpu_seconds()
        time.sleep(1.0)
        after = latency._cpu_seconds()
    finally:
        working.kill()
        working.join()
    assert before is not None
    assert after is not None
    assert after[0] - before[0] - (after[1] - before[1]) > 0.5


def _work() -> None:
    while True:
        pass
