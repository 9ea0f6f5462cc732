"""Pruning below a threshold: how much is pruned follows from the weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

from torch import Tensor

from raydistill.compression.pruners.arguments import checked_mapping, checked_number, checked_weights
from raydistill.compression.pruners.base import Pruner
from raydistill.compression.rates import PolicyTime
from raydistill.compression.thresholds import CRITERIA, checked_regims, group_threshold_mask
from raydistill.errors import ConfigError, Fault, close_match


def above(weight: Tensor, threshold: float) -> Tensor:
    """1 where the absolute value is above the threshold, in the weight's dtype."""
    return (weight.detach().abs() > threshold).to(weight.dtype)


class _PerWeight(Pruner):
    """One number a weight; ``*`` stands for every weight that is not named."""

    def __init__(self, name: str, argument: str, values: object) -> None:
        given = checked_mapping(argument, values, "{fc1.weight: 0.5}")
        self._values = {key: checked_number(f"{argument}.{key}", value, low=0.0) for key, value in given.items()}
        self.everything_else = "*" in self._values
        super().__init__(name, tuple(key for key in self._values if key != "*"))

    def value(self, weight_name: str) -> float:
        return self._values[weight_name] if weight_name in self._values else self._values["*"]


class MagnitudeParameterPruner(_PerWeight):
    """Prunes weights whose absolute value is not above a threshold (Han et al. 2015, arXiv 1506.02626).

    thresholds: weight name to threshold; ``*`` is the one for all other weights (biases are left alone).
    """

    def __init__(self, name: str, thresholds: dict[str, float]) -> None:
        super().__init__(name, "thresholds", thresholds)

    def mask(self, weight_name: str, weight: Tensor, when: PolicyTime) -> Tensor:
        return above(weight, self.value(weight_name))


class SensitivityPruner(_PerWeight):
    """Prunes weights not above `sensitivity` standard deviations of the weight (Han et al. 2015, arXiv 1506.02626).

    The deviation is taken once, when the weight is first pruned: as training pulls weights towards zero, the same
    threshold catches more of them. sensitivities: weight name to multiplier; ``*``: all other weights.
    """

    def __init__(self, name: str, sensitivities: dict[str, float]) -> None:
        super().__init__(name, "sensitivities", sensitivities)
        self._deviation: dict[str, float] = {}

    def mask(self, weight_name: str, weight: Tensor, when: PolicyTime) -> Tensor:
        if weight_name not in self._deviation:
            self._deviation[weight_name] = float(weight.detach().std())
        return above(weight, self._deviation[weight_name] * self.value(weight_name))

    def state_dict(self) -> dict[str, object]:
        return {"deviation": dict(self._deviation)}

    def load_state_dict(self, state: Mapping[str, object]) -> None:
        self._deviation = dict(cast(Mapping[str, float], state["deviation"]))


class BaiduRNNPruner(Pruner):
    """A threshold that rises along two slopes (Narang et al. 2017, arXiv 1704.05119, eq. 1 and alg. 1).

    q: the 90th percentile of the dense weights, as the paper takes it. ramp_epoch_offset: epochs after the policy's
    start at which the slope is multiplied by ramp_slope_mult. Epochs stand for the paper's iterations.
    """

    def __init__(self, name: str, q: float, ramp_epoch_offset: int, ramp_slope_mult: float, weights: list[str]) -> None:
        super().__init__(name, checked_weights("weights", weights))
        self._q = checked_number("q", q, low=0.0)
        self._offset = checked_number("ramp_epoch_offset", ramp_epoch_offset, low=0.0)
        self._multiplier = checked_number("ramp_slope_mult", ramp_slope_mult, low=0.0)

    def threshold(self, when: PolicyTime) -> float:
        ramp = when.starting_epoch + self._offset
        span = 2 * (ramp - when.starting_epoch) + 3 * (when.ending_epoch - ramp)
        if span <= 0:
            rule = f"reaches beyond the policy's {when.ending_epoch - when.starting_epoch} epochs"
            raise ConfigError(Fault("ramp_epoch_offset", rule, self._offset, "make it smaller, or the policy longer"))
        slope = 2 * self._q * when.frequency / span
        if when.epoch < ramp:
            return slope * (when.epoch - when.starting_epoch + 1) / when.frequency
        before, after = ramp - when.starting_epoch + 1, when.epoch - ramp + 1
        return (slope * before + slope * self._multiplier * after) / when.frequency

    def mask(self, weight_name: str, weight: Tensor, when: PolicyTime) -> Tensor:
        return above(weight, self.threshold(when))


class StructureParameterPruner(Pruner):
    """Prunes structures whose mean (Mean_Abs) or largest (Max) absolute value is not above a threshold.

    reg_regims: weight name to [threshold, group type].
    """

    def __init__(self, name: str, reg_regims: dict[str, list[object]], threshold_criteria: str) -> None:
        if threshold_criteria not in CRITERIA:
            way_out = close_match(str(threshold_criteria), CRITERIA)
            raise ConfigError(
                Fault("threshold_criteria", f"must be one of {', '.join(CRITERIA)}", threshold_criteria, way_out)
            )
        self._regims = checked_regims(reg_regims)
        self._criterion = threshold_criteria
        super().__init__(name, tuple(self._regims))

    def fault_of(self, weight_name: str, weight: Tensor) -> str:
        return self._regims[weight_name].fault_of(weight)

    def mask(self, weight_name: str, weight: Tensor, when: PolicyTime) -> Tensor:
        regim = self._regims[weight_name]
        return group_threshold_mask(weight, regim, self._criterion)
