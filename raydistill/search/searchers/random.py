"""Random search: Bergstra and Bengio 2012, "Random Search for Hyper-Parameter Optimization" (JMLR 13)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from raydistill.records import Scalar
from raydistill.search.observations import Observation
from raydistill.search.searchers.base import ALL, Searcher
from raydistill.search.space import SearchSpace


class RandomSearcher(Searcher):
    startup = ALL

    def __init__(self, space: SearchSpace, seed: int) -> None:
        self._space, self._seed = space, seed

    def suggest(self, trial: int, seen: Sequence[Observation], stages: Sequence[int]) -> Mapping[str, Scalar]:
        return self._space.sample_trial(self._seed, trial)
