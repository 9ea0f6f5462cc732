"""Hands Ray Tune the planned trials in order. What they are was decided before: by the space, the seed, the journal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ray.tune.search import Searcher


class PlannedSearcher(Searcher):
    """Suggests ``{"trial_id": ...}`` for each planned trial, then says that it is finished."""

    def __init__(self, trial_ids: Sequence[str]) -> None:
        super().__init__()
        self._waiting = list(trial_ids)

    def set_search_properties(self, metric: str | None, mode: str | None, config: Mapping[str, Any], **_: Any) -> bool:
        return True

    def suggest(self, trial_id: str) -> Any:  # Tune's own trial id is of no use: it changes with every start
        if not self._waiting:
            return Searcher.FINISHED
        return {"trial_id": self._waiting.pop(0)}

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Nothing is learnt from results."""

    def save(self, checkpoint_path: str) -> None:
        """The journal holds the state."""

    def restore(self, checkpoint_path: str) -> None:
        """The journal holds the state."""
