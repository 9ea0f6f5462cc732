"""The allocations that an agent found without training, the best first: see `raydistill.search.amc`."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence

from raydistill.errors import ConfigError, Fault
from raydistill.records import Scalar
from raydistill.search.amc import (
    ACCURACY_GUARANTEED,
    AGENTS,
    DDPG,
    MAC_CONSTRAINED,
    PROTOCOLS,
    Episode,
    Settings,
    ranked,
)
from raydistill.search.observations import Observation
from raydistill.search.points import nearest
from raydistill.search.searchers.base import Aim, Curves, Searcher
from raydistill.search.searchers.damages import is_level
from raydistill.search.searchers.sobol import SobolSearcher
from raydistill.search.space import SearchSpace


class AMCSearcher(Searcher):
    """Before the first trial an agent plays `heatup_episodes` and `training_episodes`; each trial then trains one of
    its allocations. What is searched beside levels of layers is spread evenly. See `Settings`.

    sizes, aim: see `AdditiveSearcher`.
    """

    wants_curves = True
    keeps_bounds = True

    def __init__(
        self,
        space: SearchSpace,
        seed: int,
        protocol: str = MAC_CONSTRAINED,
        agent: str = DDPG,
        heatup_episodes: int = 20,
        training_episodes: int = 80,
        action_range: Sequence[float] = (0.0, 0.8),
    ) -> None:
        low, high = action_range
        for name, value, menu in (("protocol", protocol, PROTOCOLS), ("agent", agent, AGENTS)):
            if value not in menu:
                raise ConfigError(Fault(f"searcher.{name}", f"must be one of {', '.join(menu)}", value))
        if not 0.0 <= low < high < 1.0:
            rule = "must be two fractions, the lower first"
            raise ConfigError(Fault("searcher.action_range", rule, list(action_range), "as in [0.0, 0.8]"))
        self.settings = Settings(protocol, agent, heatup_episodes, training_episodes, (low, high), seed=seed)
        self.wants_bound = protocol != ACCURACY_GUARANTEED
        self.how = f"the best of {self.settings.episodes} episodes without training ({agent}, {protocol})"
        self.dimensions = [dimension for dimension in space.dimensions if is_level(dimension)]
        self.sizes: Mapping[str, float] = {}
        self.aim = Aim()
        self._space, self._sobol = space, SobolSearcher(space, seed)
        self._found: list[Episode] = []

    def with_curves(self, curves: Curves, sizes: Mapping[str, float], aim: Aim) -> AMCSearcher:
        told = copy.copy(self)
        told.sizes, told.aim = sizes, aim
        return told

    def with_episodes(self, episodes: Sequence[Episode]) -> AMCSearcher:
        told = copy.copy(self)
        told._found = ranked(episodes)
        return told

    def values_of(self, levels: Sequence[float]) -> Mapping[str, Scalar]:
        """What is searched, of an episode: all else has the first of its values."""
        return {**self._sobol.suggest(0, (), ()), **self._levels(levels)}

    def suggest(self, trial: int, seen: Sequence[Observation], stages: Sequence[int]) -> Mapping[str, Scalar] | None:
        if trial >= len(self._found):
            return None
        return {**self._sobol.suggest(trial, (), ()), **self._levels(self._found[trial].levels)}

    def _levels(self, levels: Sequence[float]) -> Mapping[str, Scalar]:
        found: dict[str, Scalar] = {}
        for dimension, level in zip(self.dimensions, levels, strict=True):
            drawn = nearest(dimension.distribution, float(level))
            assert drawn is not None  # `is_level`
            found[dimension.path] = drawn
        return found
