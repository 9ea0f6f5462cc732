"""Asynchronous successive halving over several objectives (MO-ASHA), stopping or promoting.

Li et al. 2020, "A System for Massively Parallel Hyperparameter Tuning" (arXiv 1810.05934): rungs stand at
``grace_period * reduction_factor^k`` epochs, and one in `reduction_factor` of a rung's trials goes on. A bracket `s`
leaves the first `s` rungs out, the last one all of them: it trains every trial to its end, so that a search whose rungs
mislead is no worse than one without by more than its share. Trials are dealt out to brackets in Hyperband's proportions
(Li et al. 2018, arXiv 1603.06560). With several objectives "one in so many" is what `selection.best` takes (Schmucker
et al. 2021, arXiv 2106.12639). With one number to compare it is plain ASHA.

*Stopping*: a trial that is not among the best of its rung when it gets there stops for good; the first always goes on.
*Promotion*: every trial pauses at its rung, and goes on when it is among the best of it, at once or later. Of a rung
that nobody was promoted from, the best goes on when nothing else is left to do. A trial that fails gives its place up:
the next best of its rungs goes on instead.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field

import numpy as np

from raydistill.search.decisions import GO_ON, PAUSE, STOP, Figures, Measure, TrialScheduler, Verdict
from raydistill.search.selection import best


@dataclass
class Rung:
    """The trials that reached `epochs`, in the order of their arrival. points: what was compared there.

    promoted: those that went on from it and live.
    """

    epochs: int
    trials: list[int] = field(default_factory=list)
    points: list[tuple[float, ...]] = field(default_factory=list)
    promoted: set[int] = field(default_factory=set)

    def enter(self, trial: int, point: tuple[float, ...]) -> None:
        self.trials.append(trial)
        self.points.append(point)


class Halving(TrialScheduler):
    """grace_period: epochs before the first rung. brackets: 1 is ASHA, more is asynchronous Hyperband; None: as many as
    it has, one more than there are rungs.

    measure: what is compared. spread: one of `selection.SPREADS`. promote: pause and promote instead of stopping.
    """

    def __init__(
        self,
        measure: Measure,
        *,
        max_epochs: int,
        grace_period: int,
        reduction_factor: float,
        brackets: int | None = 1,
        promote: bool = False,
        spread: str = "epsilon_net",
    ) -> None:
        if reduction_factor <= 1 or grace_period < 1 or (brackets is not None and brackets < 1):
            raise ValueError("halving needs reduction_factor > 1, grace_period >= 1 and brackets >= 1")
        levels = rung_levels(grace_period, reduction_factor, max_epochs)
        most = len(levels) + 1
        count = most if brackets is None else min(brackets, most)
        self.brackets = [[Rung(epochs) for epochs in levels[skip:]] for skip in range(count)]
        self._counts = tuple(len(rungs) for rungs in self.brackets)
        self._measure = measure
        self._max_epochs = max_epochs
        self._factor = reduction_factor
        self._promote = promote
        self._spread = spread
        self._failed: set[int] = set()

    def result(self, trial: int, epochs_done: int, figures: Figures) -> Verdict:
        if epochs_done >= self._max_epochs:  # trained to the end: a rung there could only spoil it
            return Verdict(GO_ON)
        at = f"after {epochs_done} of {self._max_epochs} epochs"
        point = self._measure(figures)
        if not np.isfinite(point).all():
            return Verdict(STOP, f"stopped {at}: what its rung compares is not a number")
        rung = next((rung for rung in reversed(self._rungs(trial)) if epochs_done >= rung.epochs), None)
        if rung is None or trial in rung.trials:
            return Verdict(GO_ON)
        rung.enter(trial, point)
        if self._promote:
            return Verdict(PAUSE, f"paused {at}, at its rung")
        if self._selected(rung, least=1)[-1]:
            return Verdict(GO_ON)
        return Verdict(STOP, f"stopped {at}: {self._place(rung, len(rung.trials) - 1)}")

    def promotable(self, paused: Collection[int], drained: bool) -> int | None:
        """The trial that has come farthest goes first. When drained, every rung may promote its best one at least."""
        if not self._promote or not paused:
            return None
        everywhere = sorted((rung for rungs in self.brackets for rung in rungs), key=lambda rung: -rung.epochs)
        for rung in everywhere:
            if not rung.trials:
                continue
            selected = self._selected(rung, least=1 if drained and not rung.promoted else 0)
            chosen = [rung.trials[i] for i in np.flatnonzero(selected)]
            waiting = [trial for trial in chosen if trial not in rung.promoted and trial in paused]
            if waiting:
                return waiting[0]
        return None

    def promoted(self, trial: int) -> None:
        rung = self._reached(trial)
        if rung is not None:
            rung.promoted.add(trial)

    def failed(self, trial: int) -> None:
        self._failed.add(trial)
        for rung in self._rungs(trial):
            rung.promoted.discard(trial)

    def until(self, trial: int, epochs_done: int) -> int | None:
        later = [rung.epochs for rung in self._rungs(trial) if rung.epochs > epochs_done and trial not in rung.trials]
        return later[0] if self._promote and later else None

    def why_not_promoted(self, trial: int) -> str:
        rung = self._reached(trial)
        if rung is None:
            return ""
        at = f"stopped after {rung.epochs} of {self._max_epochs} epochs"
        return f"{at}: {self._place(rung, rung.trials.index(trial))}"

    def _rungs(self, trial: int) -> list[Rung]:
        return self.brackets[bracket_of(trial, self._counts, self._factor)]

    def _reached(self, trial: int) -> Rung | None:
        """The last rung that the trial came to."""
        return next((rung for rung in reversed(self._rungs(trial)) if trial in rung.trials), None)

    def _selected(self, rung: Rung, least: int) -> np.ndarray:
        """Mask (trials of the rung,): as many as its arrivals are worth, of those that live."""
        keep = max(least, math.floor(len(rung.trials) / self._factor + 1e-9))
        living = np.array([trial not in self._failed for trial in rung.trials])
        selected: np.ndarray = np.zeros(len(rung.trials), dtype=bool)
        if keep and living.any():
            selected[living] = best(np.array(rung.points)[living], keep, self._spread)
        return selected

    def _place(self, rung: Rung, index: int) -> str:
        """Why one of the rung's trials is not among its best."""
        points = np.array(rung.points)
        own, count = points[index], len(points)
        if points.shape[1] == 1:
            how = f"place {int((points[:, 0] > own[0]).sum()) + 1} of {count}, with {own[0]:.3f}"
        else:
            dominating = int(((points >= own).all(axis=1) & (points > own).any(axis=1)).sum())
            how = f"{dominating} of {count} trials are better in all" if dominating else "others cover the front better"
        keep = max(1, math.floor(count / self._factor + 1e-9))
        return f"{how}; {keep} of {count} go on from the rung at epoch {rung.epochs}"


def rung_levels(grace_period: int, reduction_factor: float, max_epochs: int) -> list[int]:
    """Whole epochs, each below `max_epochs`: there is nothing to decide at the end."""
    levels: list[int] = []
    level = float(grace_period)
    while round(level) < max_epochs:
        if not levels or round(level) > levels[-1]:
            levels.append(round(level))
        level *= reduction_factor
    return levels


def bracket_of(trial: int, rungs: tuple[int, ...], reduction_factor: float) -> int:
    """Deals trials out so that a bracket of `s` rungs gets about ``reduction_factor^s / (s + 1)`` in proportion.

    Hyperband's n_s, by which all brackets train about the same number of epochs. rungs: of each bracket. It depends on
    the trial's number alone.
    """
    if len(rungs) == 1:
        return 0
    dealt, dealer = _deal(rungs, reduction_factor)
    while len(dealt) <= trial:
        dealt.append(next(dealer))
    return dealt[trial]


@functools.lru_cache(maxsize=16)
def _deal(rungs: tuple[int, ...], reduction_factor: float) -> tuple[list[int], Iterator[int]]:
    """What has been dealt out so far, and who deals on: a trial costs the same however many were before it."""

    def dealer() -> Iterator[int]:
        weights = [reduction_factor**s / (s + 1) for s in rungs]
        shares = [weight / sum(weights) for weight in weights]
        counts = [0] * len(rungs)
        for number in itertools.count(1):
            owed = [share * number - count for share, count in zip(shares, counts, strict=True)]
            bracket = owed.index(max(owed))
            counts[bracket] += 1
            yield bracket

    return [], dealer()
