"""Evolution around the present front: children of front members, their values mutated.

The trials that cover the most hypervolume are parents. A child takes each value from one of two neighbours on the
front and moves some of them by a Gaussian step in [0, 1] (see `distributions`). Options of a choice are no neighbours:
about one value of a child is switched if it is one. With a front of one, that is an evolution strategy around it. It is
steady-state, as SMS-EMOA is (Beume, Naujoks, Emmerich 2007, EJOR 181): no generation is waited for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from raydistill.records import Scalar
from raydistill.search.distributions import Choice, Distribution, QUniform, RandInt
from raydistill.search.observations import Observation, comparable
from raydistill.search.searchers.base import Searcher, generator
from raydistill.search.searchers.sobol import SobolSearcher
from raydistill.search.selection import best
from raydistill.search.space import SearchSpace

_TRIES = 20


class EvolutionSearcher(Searcher):
    """startup: trials drawn from a Sobol sequence first. step: the standard deviation of a move, in shares of a range;
    of whole numbers and multiples at least the share of one.

    parents: how many of the best trials have children; of a front that is larger, those that cover it.
    """

    def __init__(self, space: SearchSpace, seed: int, startup: int = 10, step: float = 0.1, parents: int = 8) -> None:
        self._space, self._seed, self.startup = space, seed, startup
        self._step, self._parents = step, parents
        self._first = SobolSearcher(space, seed)
        kinds = [d.distribution for d in space.dimensions]
        self._options = np.array([len(kind.options) if isinstance(kind, Choice) else 0 for kind in kinds])
        self._steps = np.array([max(step, _share(kind)) for kind in kinds])

    def suggest(self, trial: int, seen: Sequence[Observation], stages: Sequence[int]) -> Mapping[str, Scalar]:
        usable = comparable(seen, stages, self.startup)
        if not usable:
            return self._first.suggest(trial, seen, stages)
        rng = generator(self._seed, trial)
        points = np.array([point for _, point in usable])
        chosen = np.flatnonzero(best(points, min(self._parents, len(points)), "hypervolume"))
        chosen = chosen[np.argsort(points[chosen, 0], kind="stable")]  # neighbours on the front stand side by side
        units = [self._space.to_unit(usable[i][0].values) for i in chosen]
        known = {tuple(self._space.to_unit(o.values)) for o in seen}
        values: Mapping[str, Scalar] = {}
        for _ in range(_TRIES):
            values = self._space.from_unit(self._child(units, rng))
            if tuple(self._space.to_unit(values)) not in known:
                break
        return values

    def _child(self, units: list[np.ndarray], rng: np.random.Generator) -> np.ndarray:
        first = int(rng.integers(len(units)))
        second = min(max(first + int(rng.choice([-1, 1])), 0), len(units) - 1)
        size = len(units[first])
        child = np.where(rng.random(size) < 0.5, units[first], units[second])
        moved = rng.random(size) < max(0.5, 1.0 / size)
        switched = rng.random(size) < 1.0 / size
        surely = int(rng.integers(size))
        moved[surely] = switched[surely] = True
        stepped = np.abs(child + np.where(moved, rng.normal(0.0, self._steps), 0.0))
        stepped = np.where(stepped > 1.0, 2.0 - stepped, stepped)  # reflected: the ends do not collect what falls out
        others = np.maximum(self._options - 1, 0)
        shares = np.minimum(
            np.floor(rng.random(size) * others) + 1, others
        )  # to any other option, round the end and on
        chosen = (child + np.where(switched, shares, 0.0) / np.maximum(self._options, 1)) % 1.0
        return np.clip(np.where(self._options > 0, chosen, stepped), 0.0, 1.0)


def _share(kind: Distribution) -> float:
    """What one of the values takes of [0, 1]; 0 of a continuous one."""
    if isinstance(kind, QUniform):
        return 1.0 / (kind.steps[1] - kind.steps[0] + 1)
    return 1.0 / (kind.high - kind.low) if isinstance(kind, RandInt) else 0.0
