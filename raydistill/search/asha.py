"""Plain ASHA, stopping, with Ray Tune's rungs and cutoff: it compares one number, a weighted sum of a trial's figures.

Li et al. 2020, "A System for Massively Parallel Hyperparameter Tuning" (arXiv 1810.05934). It differs from `Halving` as
Ray's does from the paper: a newcomer is held against the percentile of those before it at its rung, itself not among
them, and who equals it goes on. What stopped counts at its rung all the same.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from raydistill.search.decisions import GO_ON, STOP, Figures, Measure, Stopping, Verdict


@dataclass
class _Rung:
    """The scores, by trial, of those that reached `epochs`: at a fractional reduction factor not a whole number."""

    epochs: float
    scores: dict[int, float] = field(default_factory=dict)


class ASHA(Stopping):
    """grace_period: epochs before the first rung; each further one stands `reduction_factor` times as high.

    Of a rung's trials one in `reduction_factor` goes on; the first always does.
    """

    def __init__(self, measure: Measure, *, max_epochs: int, grace_period: int, reduction_factor: float) -> None:
        if reduction_factor <= 1 or not 1 <= grace_period <= max_epochs:
            raise ValueError("ASHA needs reduction_factor > 1 and 1 <= grace_period <= max_epochs")
        self._measure = measure
        self._max_epochs = max_epochs
        self._percentile = (1 - 1 / reduction_factor) * 100
        count = int(np.log(max_epochs / grace_period) / np.log(reduction_factor) + 1)
        self._rungs = [_Rung(grace_period * reduction_factor**k) for k in reversed(range(count))]

    def result(self, trial: int, epochs_done: int, figures: Figures) -> Verdict:
        (score,) = self._measure(figures)
        at = f"stopped after {epochs_done} of {self._max_epochs} epochs"
        if epochs_done >= self._max_epochs:  # trained to the end: a rung there could only spoil it
            return Verdict(GO_ON)
        if math.isnan(score):
            return Verdict(STOP, f"{at}: its score is not a number")
        rung = next((rung for rung in self._rungs if epochs_done >= rung.epochs), None)
        if rung is None or trial in rung.scores:
            return Verdict(GO_ON)
        before = list(rung.scores.values())
        rung.scores[trial] = score
        if not before:
            return Verdict(GO_ON)
        with np.errstate(invalid="ignore"):  # between infinite scores the cutoff may be NaN, which stops nobody
            cutoff = float(np.nanpercentile(before, self._percentile))
        if not score < cutoff:
            return Verdict(GO_ON)
        compared = f"rung {rung.epochs:g}, {len(before)} trial{'s' if len(before) > 1 else ''} before it"
        return Verdict(STOP, f"{at}: score {score:.3f} below the rung's cutoff {cutoff:.3f} ({compared})")
