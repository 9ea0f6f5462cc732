"""How long forward passes take, and whether the machine had other work meanwhile."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

_WARM_UP, _LEAST, _MOST = 3, 10, 200
_LEAST_S, _MOST_S = 0.5, 2.0
"""Of each network. Shorter ones would not show other work: an operating system counts it in hundredths of a second."""
_BUSY_SPREAD, _BUSY_SHARE, _SLACK = 0.3, 0.5, 0.25
_ATTEMPTS, _PAUSE_S = 3, 0.5


@dataclass(frozen=True)
class Timed:
    """Milliseconds of one pass: the median and the quartiles; passes: how many were measured."""

    median: float
    lower: float
    upper: float
    passes: int

    @property
    def spread(self) -> float:
        """The interquartile range, of the median."""
        return (self.upper - self.lower) / self.median if self.median else 0.0


@dataclass(frozen=True)
class Turns:
    """ms: by name. busy: other work took the cores that were needed, or half of all, or times varied much."""

    ms: Mapping[str, Timed]
    busy: bool


def take_turns(passes: Mapping[str, Callable[[], object]], threads: int) -> Turns:
    """Time several things turn by turn: on a machine that is busy all suffer alike. passes: by name, one forward pass
    each. threads: torch's meanwhile."""
    times: dict[str, list[float]] = {name: [] for name in passes}
    before, begun, done, took = _cpu_seconds(), time.perf_counter(), 0, 0.0
    with threads_of(threads):
        while (
            done < _WARM_UP + _LEAST
            or took < _LEAST_S * len(passes)
            or (done < _WARM_UP + _MOST and took < _MOST_S * len(passes))
        ):
            names = list(passes) if done % 2 else list(passes)[::-1]  # neither always has the other's warm cache
            for name in names:
                start = time.perf_counter()
                passes[name]()
                times[name].append(1000 * (time.perf_counter() - start))
            done, took = done + 1, time.perf_counter() - begun
    ms = {}
    for name, found in times.items():
        lower, median, upper = np.percentile(found[_WARM_UP:], (25, 50, 75)).tolist()
        ms[name] = Timed(median, lower, upper, len(found) - _WARM_UP)
    busy = _busy(before, _cpu_seconds(), took, threads) or any(timed.spread > _BUSY_SPREAD for timed in ms.values())
    return Turns(ms, busy)


def at_rest(passes: Mapping[str, Callable[[], object]], threads: int) -> Turns:
    """`take_turns`, where the machine was busy again after a pause; of three busy attempts the quickest."""
    attempts = []
    for attempt in range(_ATTEMPTS):
        time.sleep(_PAUSE_S * attempt)
        attempts.append(take_turns(passes, threads))
        if not attempts[-1].busy:
            return attempts[-1]
    return min(attempts, key=lambda found: sum(timed.median for timed in found.ms.values()))


def _cpu_seconds() -> tuple[float, float] | None:
    """What all processes of this machine have used of its cores, and this one; None where nobody says."""
    try:
        user, nice, system, _, _, irq, softirq, stolen = map(int, Path("/proc/stat").read_text().split()[1:9])
    except (OSError, ValueError):
        return None
    own = os.times()
    return (user + nice + system + irq + softirq + stolen) / os.sysconf("SC_CLK_TCK"), own.user + own.system


def _busy(before: tuple[float, float] | None, after: tuple[float, float] | None, took: float, threads: int) -> bool:
    cores = os.cpu_count() or 1
    if before is None or after is None or after[0] <= before[0]:
        return os.getloadavg()[0] > _BUSY_SHARE * cores
    others = (after[0] - before[0] - (after[1] - before[1])) / took
    return others > min(_BUSY_SHARE * cores, max(cores - threads, 0) + _SLACK)


@contextmanager
def threads_of(count: int) -> Iterator[None]:
    """torch's, within the block."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
