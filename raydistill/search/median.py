"""The median stopping rule: Golovin et al. 2017, "Google Vizier", section 3.2.2.

A trial stops when its best figure so far is below the median, over the other trials, of their running means up to the
same epoch. It compares one number, so with several objectives a score (see `decisions.by_score`).
"""

from __future__ import annotations

import statistics

from raydistill.search.decisions import GO_ON, STOP, Figures, Measure, Stopping, Verdict


class MedianStopping(Stopping):
    """grace_period: epochs before any trial is stopped. minimum: how many others must have come as far."""

    def __init__(self, measure: Measure, *, max_epochs: int, grace_period: int, minimum: int = 3) -> None:
        self._measure = measure
        self._max_epochs = max_epochs
        self._grace_period = grace_period
        self._minimum = minimum
        self._best: dict[int, float] = {}
        self._means: dict[int, list[float]] = {}

    def result(self, trial: int, epochs_done: int, figures: Figures) -> Verdict:
        """Epochs of one trial must come in order; one that is known already goes on."""
        means = self._means.setdefault(trial, [])
        if epochs_done <= len(means):
            return Verdict(GO_ON)
        (value,) = self._measure(figures)
        at = f"stopped after {epochs_done} of {self._max_epochs} epochs"
        if value != value:
            return Verdict(STOP, f"{at}: its score is not a number")
        means.append(((means[-1] if means else 0.0) * len(means) + value) / (len(means) + 1))
        self._best[trial] = max(value, self._best.get(trial, value))
        if not self._grace_period <= epochs_done < self._max_epochs:
            return Verdict(GO_ON)
        others = [
            other[epochs_done - 1] for i, other in self._means.items() if i != trial and len(other) >= epochs_done
        ]
        if len(others) < self._minimum:
            return Verdict(GO_ON)
        median = statistics.median(others)
        if self._best[trial] >= median:
            return Verdict(GO_ON)
        why = f"{at}: best score {self._best[trial]:.3f} below the median {median:.3f} of {len(others)} other trials"
        return Verdict(STOP, why)
