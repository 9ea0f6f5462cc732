"""How long two networks take, measured turn by turn in one run: on a machine that is busy both suffer alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from raydistill.training.latency import Timed, take_turns, threads_of

DENSE, THIS = "dense", "this"
_HELPS, _MOST_S = 0.95, 2.0
"""A doubled batch helps while a sample takes less than this share of what it took before."""
_LARGEST_BATCH = 256


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
    found = take_turns(passes, threads)
    return Row(runtime, device, threads, batch, found.ms, found.busy)


def batch_that_helps(run: Callable[[int], object], threads: int) -> int:
    """The largest batch size, of 1, 2, 4, ..., that still makes a sample cheaper. run: a pass with so many samples."""
    best, before = 1, float("inf")
    batch = 1
    with threads_of(threads):
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
