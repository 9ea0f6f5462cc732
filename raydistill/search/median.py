"""The median stopping rule, for networks that are pruned meanwhile.

Golovin et al. 2017, "Google Vizier", section 3.2.2, stop a trial whose best figure so far is below the median of the
others' running means. A trial that goes on from a dense network is at its best in its first epoch and falls as it is
pruned, so that its best never falls below anything, and a running mean tells late what has become of it. Here like is
held against like: a trial's figure against the others' at the same epoch, where they were pruned as far. Who was
stopped counts as below at every later epoch: were it left out, each epoch would halve those that are left. It compares
one number, so with several objectives a score (see `decisions.by_score`).
"""

from __future__ import annotations

import math
import statistics

from raydistill.search.decisions import GO_ON, STOP, Figures, Measure, Stopping, Verdict


class MedianStopping(Stopping):
    """grace_period: epochs before any trial is stopped. minimum: how many others must have come as far, or have been
    stopped on their way.
    """

    def __init__(self, measure: Measure, *, max_epochs: int, grace_period: int, minimum: int = 3) -> None:
        self._measure = measure
        self._max_epochs = max_epochs
        self._grace_period = grace_period
        self._minimum = minimum
        self._scores: dict[int, list[float]] = {}
        self._stopped: set[int] = set()

    def result(self, trial: int, epochs_done: int, figures: Figures) -> Verdict:
        """Epochs of one trial must come in order; one that is known already goes on."""
        scores = self._scores.setdefault(trial, [])
        if epochs_done <= len(scores):
            return Verdict(GO_ON)
        (score,) = self._measure(figures)
        at = f"stopped after {epochs_done} of {self._max_epochs} epochs"
        if score != score:
            return Verdict(STOP, f"{at}: its score is not a number")
        scores.append(score)
        if not self._grace_period <= epochs_done < self._max_epochs:
            return Verdict(GO_ON)
        others = [self._at(other, epochs_done) for other in self._scores if other != trial]
        there = [other for other in others if other is not None]
        if len(there) < self._minimum:
            return Verdict(GO_ON)
        median = statistics.median(there)
        if not score < median:  # between infinite scores the median may be NaN, which stops nobody
            return Verdict(GO_ON)
        self._stopped.add(trial)
        compared = f"the median {median:.3f} of {len(there)} other trials"
        return Verdict(STOP, f"{at}: score {score:.3f} below {compared}")

    def _at(self, trial: int, epochs_done: int) -> float | None:
        """The trial's score after so many epochs; None where it has not come there yet."""
        scores = self._scores[trial]
        if len(scores) >= epochs_done:
            return scores[epochs_done - 1]
        return -math.inf if trial in self._stopped else None
