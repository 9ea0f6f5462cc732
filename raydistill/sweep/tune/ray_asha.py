"""Ray's ASHA as a trial scheduler: it compares one number, a weighted sum of a trial's figures.

Li et al. 2020, "A System for Massively Parallel Hyperparameter Tuning" (arXiv 1810.05934).
"""

from __future__ import annotations

import math
from types import SimpleNamespace

from ray.tune.schedulers import ASHAScheduler, TrialScheduler

from raydistill.search.decisions import GO_ON, STOP, Figures, Measure, Stopping, Verdict


class RayASHA(Stopping):
    """Ray's rungs and cutoffs (its own bracket decides); here they can be asked why, and replayed from a journal."""

    def __init__(self, measure: Measure, *, max_epochs: int, grace_period: int, reduction_factor: float) -> None:
        self._measure = measure
        self._max_epochs = max_epochs
        self._bracket = ASHAScheduler(
            max_t=max_epochs,
            grace_period=grace_period,
            reduction_factor=reduction_factor,
            stop_last_trials=False,  # the default would stop survivors inside their last report
        )._brackets[0]

    def result(self, trial: int, epochs_done: int, figures: Figures) -> Verdict:
        (score,) = self._measure(figures)
        at = f"stopped after {epochs_done} of {self._max_epochs} epochs"
        if epochs_done >= self._max_epochs:  # trained to the end: a rung there could only spoil it
            return Verdict(GO_ON)
        if math.isnan(score):
            return Verdict(STOP, f"{at}: its score is not a number")
        rung = next((rung for rung in self._bracket._rungs if epochs_done >= rung[0]), None)
        if rung is None or trial in rung[1]:
            return Verdict(GO_ON)
        cutoff, others = self._bracket.cutoff(rung[1]), len(rung[1])
        action = self._bracket.on_result(SimpleNamespace(trial_id=trial), epochs_done, score)
        if action != TrialScheduler.STOP:
            return Verdict(GO_ON)
        compared = f"rung {rung[0]:g}, {others} trial{'s' if others > 1 else ''} before it"
        return Verdict(STOP, f"{at}: score {score:.3f} below the rung's cutoff {cutoff:.3f} ({compared})")
