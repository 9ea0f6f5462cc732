"""How long two networks take, measured turn by turn in one run: on a machine that is busy both suffer alike."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch

DENSE, THIS = "dense", "this"
_WARM_UP, _LEAST, _MOST, _MOST_S = 3, 10, 200, 2.0
_HELPS = 0.95
"""A doubled batch helps while a sample takes less than this share of what it took before."""
_LARGEST_BATCH = 256
_BUSY_SPREAD, _BUSY_LOAD = 0.3, 0.5


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
class Row:
    """One runtime with one batch size. ms: of `DENSE` (where there is one) and of `THIS`. busy: other work was going
    on, or times varied much."""

    runtime: str
    device: str
    threads: int
    batch: int
    ms: Mapping[str, Timed]
    busy: bool

    @property
    def speedup(self) -> float | None:
        return self.ms[DENSE].median / self.ms[THIS].median if DENSE in self.ms else None


def side_by_side(
    passes: Mapping[str, Callable[[], object]], runtime: str, threads: int, batch: int, device: str = "cpu"
) -> Row:
    """passes: by `DENSE` and `THIS`, one forward pass each."""
    load = os.getloadavg()[0] / (os.cpu_count() or 1)
    times: dict[str, list[float]] = {name: [] for name in passes}
    begun, done = time.perf_counter(), 0
    with _threads(threads):
        while done < _WARM_UP + _LEAST or (
            done < _WARM_UP + _MOST and time.perf_counter() - begun < _MOST_S * len(passes)
        ):
            names = list(passes) if done % 2 else list(passes)[::-1]  # neither always has the other's warm cache
            for name in names:
                start = time.perf_counter()
                passes[name]()
                times[name].append(1000 * (time.perf_counter() - start))
            done += 1
    ms = {}
    for name, found in times.items():
        lower, median, upper = np.percentile(found[_WARM_UP:], (25, 50, 75)).tolist()
        ms[name] = Timed(median, lower, upper, len(found) - _WARM_UP)
    busy = load > _BUSY_LOAD or any(timed.spread > _BUSY_SPREAD for timed in ms.values())
    return Row(runtime, device, threads, batch, ms, busy)


def batch_that_helps(run: Callable[[int], object], threads: int) -> int:
    """The largest batch size, of 1, 2, 4, ..., that still makes a sample cheaper. run: a pass with so many samples."""
    best, before = 1, float("inf")
    batch = 1
    with _threads(threads):
        while batch <= _LARGEST_BATCH:
            times = []
            for _ in range(5):
                start = time.perf_counter()
                run(batch)
                times.append(time.perf_counter() - start)
            a_sample = min(times) / batch
            if a_sample > _HELPS * before:
                break
            best, before, batch = batch, a_sample, 2 * batch
            if sum(times) > _MOST_S:
                break
    return best


@contextmanager
def _threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
