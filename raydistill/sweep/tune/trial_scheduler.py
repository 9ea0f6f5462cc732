"""Translates the search driver's answers for Ray Tune. All that is decided is decided in `raydistill.search`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from ray.tune.schedulers import FIFOScheduler, TrialScheduler

from raydistill.sweep.search_driver import SearchDriver

if TYPE_CHECKING:
    from ray.tune.execution.tune_controller import TuneController
    from ray.tune.experiment import Trial


class TuneTrialScheduler(FIFOScheduler):
    """Tells the search driver of every report, and stops the trials that it wants stopped."""

    def __init__(self, search_driver: SearchDriver) -> None:
        super().__init__()
        self._search_driver = search_driver

    @property
    def metric(
        self,
    ) -> None:  # what is compared is made by the search driver, so Tune must not look for it in the reports
        return None

    def set_search_properties(self, metric: str | None, mode: str | None, **_: object) -> bool:
        return True

    def __getstate__(self) -> dict[str, object]:  # Tune pickles it; the journal holds the state
        return {}

    def __deepcopy__(self, memo: dict[int, object]) -> TuneTrialScheduler:
        return self

    def choose_trial_to_run(self, tune_controller: TuneController) -> Trial | None:
        """Ray's would look at every trial that there ever was, at every step."""
        pending = [trial for trial in tune_controller.get_live_trials() if trial.status == trial.PENDING]
        return min(pending, key=lambda trial: trial.trial_id, default=None)

    def on_trial_result(self, tune_controller: TuneController, trial: Trial, result: Mapping[str, object]) -> str:
        go_on = self._search_driver.report(trial.config["trial_id"], result)
        return TrialScheduler.CONTINUE if go_on else TrialScheduler.STOP
