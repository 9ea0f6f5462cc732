"""A pruner says what a weight's mask is at a given time; it keeps no model and no clock."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from raydistill.compression.masks import smallest_mask
from raydistill.compression.rankings import Ranking, magnitude
from raydistill.compression.rates import PolicyTime, Rate
from raydistill.errors import ConfigError, Fault


class Pruner(ABC):
    """Base of all pruners. `weights`: names of the parameters it prunes, as the model spells them."""

    def __init__(self, name: str, weights: tuple[str, ...]) -> None:
        self.name = name
        self.weights = weights

    @abstractmethod
    def mask(self, weight_name: str, weight: Tensor, when: PolicyTime) -> Tensor:
        """The mask (1 keeps) for one of `weights`, of its shape."""

    @abstractmethod
    def level(self, weight_name: str, when: PolicyTime) -> float | None:
        """The sparsity it aims at, in [0, 1]; None if that is not known beforehand."""

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        del state


class RankedPruner(Pruner):
    """Rate (how much) and ranking (which): single weights with the smallest scores are pruned up to the level."""

    def __init__(self, name: str, rates: Mapping[str, Rate], ranking: Ranking = magnitude) -> None:
        super().__init__(name, tuple(rates))
        self._rates = dict(rates)
        self._ranking = ranking

    def level(self, weight_name: str, when: PolicyTime) -> float:
        return self._rates[weight_name](when)

    def mask(self, weight_name: str, weight: Tensor, when: PolicyTime) -> Tensor:
        return smallest_mask(self._ranking(weight), self.level(weight_name, when))


def checked_level(argument: str, value: object) -> float:
    """A sparsity level an argument gives; ConfigError unless it is a number in [0, 1)."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise ConfigError(Fault(argument, "must be a number", value, "give a fraction in [0, 1), such as 0.8"))
    if not 0.0 <= value < 1.0:
        way_out = f"did you mean {value / 100:g}?" if 1.0 < value <= 100.0 else "give a fraction in [0, 1)"
        raise ConfigError(Fault(argument, "must be a fraction in [0, 1)", value, way_out))
    return float(value)


def checked_weights(argument: str, value: object) -> tuple[str, ...]:
    """Parameter names an argument gives; ConfigError unless it is a list of different names."""
    if not isinstance(value, (list, tuple)) or not value or not all(isinstance(entry, str) for entry in value):
        raise ConfigError(Fault(argument, "must be a list of weight names", value, "such as [conv1.weight]"))
    twice = sorted({entry for entry in value if list(value).count(entry) > 1})
    if twice:
        raise ConfigError(Fault(argument, "names a weight twice", twice[0], "keep one"))
    return tuple(value)
