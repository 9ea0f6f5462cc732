"""Quasi-random search: a scrambled Sobol sequence fills the space more evenly than independent draws.

Owen 1998, "Scrambling Sobol' and Niederreiter-Xing points" (Journal of Complexity 14); by SciPy.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from raydistill.records import Scalar
from raydistill.search.observations import Observation
from raydistill.search.searchers.base import ALL, Searcher
from raydistill.search.space import SearchSpace


class SobolSearcher(Searcher):
    startup = ALL

    def __init__(self, space: SearchSpace, seed: int) -> None:
        self._space, self._seed = space, seed

    def suggest(self, trial: int, seen: Sequence[Observation], stages: Sequence[int]) -> Mapping[str, Scalar]:
        from scipy.stats import qmc  # a fifth of what a trial's process imports, and trials draw nothing

        sequence = qmc.Sobol(len(self._space), scramble=True, seed=self._seed)
        if trial:  # SciPy takes a step of 0 for a negative one
            sequence.fast_forward(trial)
        return self._space.from_unit(sequence.random(1)[0])
