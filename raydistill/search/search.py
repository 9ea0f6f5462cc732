"""One search, without Ray: which trial runs next, what becomes of each result.

`Search` joins a searcher and a trial scheduler and knows of every trial whether it runs, pauses or has ended. Ray's
side asks `next` whenever there is room for a trial and tells `result` of every epoch; a simulation does the same; so
does the journal of a sweep that is resumed, through `recall`, `result` and `resumed`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from raydistill.records import Scalar
from raydistill.search.decisions import Figures, Measure, TrialScheduler, Verdict
from raydistill.search.observations import Observation
from raydistill.search.searchers.base import Searcher

NEW, RESUME, WAIT, DONE = "new", "resume", "wait", "done"


@dataclass(frozen=True)
class Order:
    """What `Search.next` wants. NEW: start `trial` with its values. RESUME: a paused one goes on. WAIT: nothing now."""

    kind: str
    trial: int = -1


class Search:
    """Trials are numbered from 0 in the order they are drawn.

    fixed: the values of the first trials (warm starts); the searcher's own are numbered from 0 behind them, and it is
    not shown those with fewer values than `dimensions` (hand-written schedules do not say all). stages: the epochs at
    which trials are compared, the last epoch among them. measure: what the searcher learns from.
    """

    def __init__(
        self,
        searcher: Searcher,
        trial_scheduler: TrialScheduler,
        measure: Measure,
        *,
        num_samples: int,
        stages: Sequence[int],
        fixed: Sequence[Mapping[str, Scalar]] = (),
        dimensions: int = 0,
    ) -> None:
        self.observations: dict[int, Observation] = {}
        self.running: set[int] = set()
        self.paused: set[int] = set()
        self.trial_scheduler = trial_scheduler
        self._searcher, self._measure = searcher, measure
        self._num_samples = num_samples
        self._stages = tuple(stages)
        self._fixed, self._dimensions = tuple(fixed), dimensions
        self._exhausted = False
        self._next = 0

    def next(self) -> Order:
        """A promotion goes before a new trial: it is the better bet, and it has been paid for in part."""
        best = self.trial_scheduler.promotable(self.paused, drained=False)
        if best is None and (values := self._draw()) is not None:
            self.recall(self._next, values)
            return Order(NEW, self._next)
        if best is None and not self.running:
            best = self.trial_scheduler.promotable(self.paused, drained=True)
        if best is not None:
            self.resumed(best)
            return Order(RESUME, best)
        return Order(WAIT if self.running else DONE)

    def result(self, trial: int, epochs_done: int, figures: Figures) -> Verdict:
        """One trained epoch. The same may be told again: after a resumption trials repeat what they know.

        The caller acts on the answer, and says so: `pause`, or `ended`.
        """
        observation = self.observations[trial]
        if epochs_done in self._stages:
            observation.points.setdefault(epochs_done, self._measure(figures))
        return self.trial_scheduler.result(trial, epochs_done, figures)

    def pause(self, trial: int) -> None:
        """Its worker is free again after `result` said so: from now on it may be promoted."""
        self.running.discard(trial)
        self.paused.add(trial)

    def ended(self, trial: int, failed: bool = False) -> None:
        """It trains no more: finished, stopped or, if so, failed."""
        if failed:
            self.trial_scheduler.failed(trial)
        self.running.discard(trial)
        self.paused.discard(trial)
        self.observations[trial].ended = True

    def recall(self, trial: int, values: Mapping[str, Scalar]) -> None:
        """A new trial starts with `values`."""
        self.observations[trial] = Observation(trial, values)
        self.running.add(trial)

    def resumed(self, trial: int) -> None:
        """A paused trial goes on."""
        self.trial_scheduler.promoted(trial)
        self.paused.discard(trial)
        self.running.add(trial)

    @property
    def idle(self) -> bool:
        """Nothing runs, and nothing is left to run."""
        drawn = self._exhausted or len(self.observations) >= self._num_samples
        return drawn and not self.running and self.trial_scheduler.promotable(self.paused, drained=True) is None

    def _draw(self) -> Mapping[str, Scalar] | None:
        """Values for trial number `_next`, the lowest that is not taken; None when all trials are drawn."""
        while self._next in self.observations:
            self._next += 1
        if self._exhausted or self._next >= self._num_samples:
            return None
        if self._next < len(self._fixed):
            return self._fixed[self._next]
        seen = [self.observations[trial] for trial in sorted(self.observations)]
        seen = [observation for observation in seen if len(observation.values) >= self._dimensions]
        values = self._searcher.suggest(self._next - len(self._fixed), seen, self._stages)
        self._exhausted = values is None
        return values
