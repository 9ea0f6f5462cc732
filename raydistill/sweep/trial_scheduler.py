"""Ray's ASHA, which also says why it stopped a trial and can be replayed from the journal.

ASHA: Li et al. 2020, "A System for Massively Parallel Hyperparameter Tuning" (arXiv 1810.05934). It compares one
number: a weighted sum of a trial's figures. Bare top1 would stop whatever prunes hard, hence ``planned_sparsity``: the
total sparsity that a trial's schedule is bound for.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

from ray.tune.schedulers import ASHAScheduler, TrialScheduler

SCORABLE = ("top1", "top5", "loss", "train_loss", "sparsity", "planned_sparsity")
EPOCHS_DONE = "epochs_done"
FAILURE = "failure"
"""Key of a report that ends its trial: training cannot go on, for the reason given."""


def score_of(weights: Mapping[str, float], figures: Mapping[str, Any], planned_sparsity: float) -> float:
    """Weighted sum over `SCORABLE` figures; NaN if one is NaN."""
    known = {**figures, "planned_sparsity": planned_sparsity}
    return float(sum(weight * float(known[name]) for name, weight in weights.items()))


class ExplainedASHA(ASHAScheduler):
    """`reasons`: why each stopped trial was stopped, by raydistill's trial id (Tune's changes with every start)."""

    def __init__(
        self,
        *,
        max_t: int,
        grace_period: int,
        reduction_factor: float,
        score: Mapping[str, float],
        planned_sparsity: Mapping[str, float],
    ) -> None:
        super().__init__(
            time_attr=EPOCHS_DONE,
            metric="score",
            mode="max",
            max_t=max_t,
            grace_period=grace_period,
            reduction_factor=reduction_factor,
            stop_last_trials=False,  # the default would stop survivors inside their last report
        )
        self.reasons: dict[str, str] = {}
        self._score = dict(score)
        self._planned = dict(planned_sparsity)

    @property
    def metric(self) -> None:  # the score is made here, so Tune must not look for it in the reports
        return None

    def set_search_properties(self, metric: str | None, mode: str | None, **_: Any) -> bool:
        return True

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        self._trial_info[trial.trial_id] = self._brackets[0]

    def on_trial_result(self, tune_controller: Any, trial: Any, result: Mapping[str, Any]) -> str:
        if FAILURE in result:
            return TrialScheduler.STOP
        if EPOCHS_DONE not in result:
            return TrialScheduler.CONTINUE
        why = self.decide(trial.config["trial_id"], int(result[EPOCHS_DONE]), result)
        return TrialScheduler.STOP if why else TrialScheduler.CONTINUE

    def on_trial_complete(self, tune_controller: Any, trial: Any, result: Mapping[str, Any]) -> None:
        self._trial_info.pop(trial.trial_id, None)

    def on_trial_remove(self, tune_controller: Any, trial: Any) -> None:
        self._trial_info.pop(trial.trial_id, None)

    def decide(self, trial_id: str, epochs_done: int, figures: Mapping[str, Any]) -> str:
        """Enter one result into the rungs: why the trial has to stop, or "" if it may go on.

        This is also how recorded results are replayed: the same results in the same order give the same rungs.
        """
        score = score_of(self._score, figures, self._planned.get(trial_id, 0.0))
        at = f"stopped after {epochs_done} of {self._max_t} epochs"
        if epochs_done >= self._max_t:  # trained to the end: a rung there could only spoil it
            return ""
        if math.isnan(score):
            why = f"{at}: its score is not a number"
        else:
            bracket = self._brackets[0]
            rung = next((r for r in bracket._rungs if epochs_done >= r[0]), None)
            if rung is None or trial_id in rung[1]:
                return ""
            cutoff, others = bracket.cutoff(rung[1]), len(rung[1])
            action = bracket.on_result(SimpleNamespace(trial_id=trial_id), epochs_done, score)
            if action != TrialScheduler.STOP:
                return ""
            compared = f"rung {rung[0]:g}, {others} trial{'s' if others > 1 else ''} before it"
            why = f"{at}: score {score:.3f} below the rung's cutoff {cutoff:.3f} ({compared})"
        self.reasons[trial_id] = why
        self._num_stopped += 1
        return why
