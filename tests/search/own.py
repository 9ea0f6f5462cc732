"""A searcher and a trial scheduler as a user would write them; and some that are wrong."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from raydistill.records import Scalar
from raydistill.search import SearchSpace
from raydistill.search.decisions import GO_ON, STOP, Figures, Measure, Stopping, Verdict
from raydistill.search.observations import Observation
from raydistill.search.searchers import Searcher


class Ladder(Searcher):
    """Climbs from the low end of every dimension by a step a trial; after its first trial, from the best one."""

    startup = 1

    def __init__(self, space: SearchSpace, seed: int, step: float = 0.25) -> None:
        if step <= 0:
            raise ValueError("step must be above 0")
        self._space, self._step = space, step

    def suggest(self, trial: int, seen: Sequence[Observation], stages: Sequence[int]) -> Mapping[str, Scalar] | None:
        done = [observation for observation in seen if max(stages, default=0) in observation.points]
        if not done:
            return self._space.from_unit([0.0] * len(self._space))
        best = max(done, key=lambda observation: sum(observation.points[max(stages)]))
        units = self._space.to_unit(best.values) + self._step
        return None if (units > 1).any() else self._space.from_unit(units)


class Patience(Stopping):
    """Stops a trial whose sum of what is compared has not risen for `epochs` epochs."""

    def __init__(self, measure: Measure, *, max_epochs: int, epochs: int) -> None:
        self._measure, self._epochs = measure, epochs
        self._best: dict[int, tuple[float, int]] = {}

    def result(self, trial: int, epochs_done: int, figures: Figures) -> Verdict:
        value = sum(self._measure(figures))
        best, at = self._best.get(trial, (value, epochs_done))
        if value > best:
            best, at = value, epochs_done
        self._best[trial] = best, at
        waited = epochs_done - at
        return Verdict(STOP, f"no better for {waited} epochs") if waited >= self._epochs else Verdict(GO_ON)


class NotASearcher:
    def suggest(self, *_: Any) -> dict[str, Scalar]:
        raise AssertionError("it is called")


class Unfinished(Searcher):
    pass


class Gives(Ladder):
    """What it is told to."""

    def __init__(self, space: SearchSpace, seed: int, given: Any) -> None:
        self.given = given

    def suggest(self, *_: Any) -> Any:
        return 1 / 0 if self.given == "error" else self.given


class Answers(Stopping):
    """What it is told to."""

    def __init__(self, measure: Measure, max_epochs: int, answer: Any = "go on") -> None:
        self.answer = answer

    def result(self, *_: Any) -> Any:
        return 1 / 0 if self.answer == "error" else self.answer
