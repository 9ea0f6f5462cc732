"""Hands Ray Tune the search driver's legs. A promotion is a leg like any other: Tune knows of no paused trials."""

from __future__ import annotations

from collections.abc import Mapping

from ray.tune.search import Searcher

from raydistill.sweep.search_driver import SearchDriver
from raydistill.sweep.trial.lazy import Lazy


class TuneSearcher(Searcher):
    """Suggests one leg for each free place, then says that it is finished."""

    def __init__(self, search_driver: SearchDriver) -> None:
        super().__init__()
        self._search_driver = search_driver

    def set_search_properties(
        self, metric: str | None, mode: str | None, config: Mapping[str, object], **_: object
    ) -> bool:
        return True

    def __getstate__(self) -> dict[str, object]:  # Tune pickles it; the journal holds the state
        return {}

    def __deepcopy__(self, memo: dict[int, object]) -> TuneSearcher:
        return self

    def suggest(self, trial_id: str) -> object:  # Tune's own trial id is of no use: it changes with every leg
        leg = self._search_driver.next_leg()
        if leg is None:
            return Searcher.FINISHED if self._search_driver.done else None
        plan = Lazy(leg.plan.trial_id, leg.plan)
        return {"trial_id": leg.plan.trial_id, "plan": plan, "known": leg.known, "until": leg.until}

    def on_trial_complete(self, trial_id: str, result: dict[str, object] | None = None, error: bool = False) -> None:
        """The search driver hears of it from the callback."""

    def save(self, checkpoint_path: str) -> None:
        """The journal holds the state."""

    def restore(self, checkpoint_path: str) -> None:
        """The journal holds the state."""
