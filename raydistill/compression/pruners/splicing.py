"""Dynamic network surgery: pruning and splicing back (Guo et al. 2016, arXiv 1608.04493, eq. 3)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import cast

import torch
from torch import Tensor

from raydistill.compression.pruners.arguments import checked_number
from raydistill.compression.pruners.base import Moment
from raydistill.compression.pruners.threshold import _PerWeight
from raydistill.compression.rates import PolicyTime
from raydistill.errors import ConfigError, Fault


class SplicingPruner(_PerWeight):
    """Prunes below a low threshold, splices back from a high one up, and leaves the mask alone between them.

    The thresholds are multiples of mean + sensitivity * deviation of the weight's absolute values, both taken when the
    weight is first pruned (as the authors' code does). sensitivities: weight name to sensitivity (``*``: all others).
    sensitivity_multiplier: the sensitivity grows by this fraction of itself every epoch after the policy's start.
    """

    def __init__(
        self,
        name: str,
        sensitivities: dict[str, float],
        low_thresh_mult: float,
        hi_thresh_mult: float,
        sensitivity_multiplier: float = 0.0,
    ) -> None:
        super().__init__(name, "sensitivities", sensitivities)
        self._low = checked_number("low_thresh_mult", low_thresh_mult, low=0.0)
        self._high = checked_number("hi_thresh_mult", hi_thresh_mult, low=0.0)
        if self._high < self._low:
            rule = f"must not be below low_thresh_mult {self._low:g}"
            raise ConfigError(Fault("hi_thresh_mult", rule, self._high, "swap them or raise it"))
        self._growth = checked_number("sensitivity_multiplier", sensitivity_multiplier, low=0.0)
        self._moments: dict[str, list[float]] = {}

    def masks(self, weights: Mapping[str, Tensor], moment: Moment) -> dict[str, Tensor]:
        return {
            name: self._surgery(name, weight, moment.when, moment.masks.get(name)) for name, weight in weights.items()
        }

    def mask(self, weight_name: str, weight: Tensor, when: PolicyTime) -> Tensor:
        return self._surgery(weight_name, weight, when, None)

    def _surgery(self, name: str, weight: Tensor, when: PolicyTime, current: Tensor | None) -> Tensor:
        size = weight.detach().abs()
        if name not in self._moments:
            self._moments[name] = [float(size.mean()), float(size.std())]
        mean, deviation = self._moments[name]
        sensitivity = self.value(name) * (1.0 + (when.epoch - when.starting_epoch) * self._growth)
        threshold = mean + deviation * sensitivity
        mask = torch.ones_like(size) if current is None else current.detach().clone()
        mask[size < threshold * self._low] = 0
        mask[size >= threshold * self._high] = 1
        return mask

    def state_dict(self) -> dict[str, object]:
        return {"moments": {name: list(values) for name, values in self._moments.items()}}

    def load_state_dict(self, state: Mapping[str, object]) -> None:
        moments = cast(Mapping[str, Iterable[float]], state["moments"])
        self._moments = {name: list(values) for name, values in moments.items()}
