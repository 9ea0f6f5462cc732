"""L1-norm regularisation (lasso)."""

from __future__ import annotations

from torch import Tensor

from raydistill.compression.regularizers.base import Regularizer
from raydistill.errors import ConfigError, Fault


class L1Regularizer(Regularizer):
    """Adds strength * sum(|weight|). On batch-norm scales this is network slimming (Liu et al. 2017, arXiv 1708.06519).

    reg_regims: parameter name to strength. threshold_criteria: given, every element not above the strength is zeroed
    after each step (for single elements Mean_Abs and Max are the same).
    """

    def __init__(self, name: str, reg_regims: dict[str, float], threshold_criteria: str | None = None) -> None:
        if not isinstance(reg_regims, dict) or not reg_regims:
            way_out = "such as {bn1.weight: 0.001}"
            raise ConfigError(Fault("reg_regims", "must map parameter names to strengths", reg_regims, way_out))
        for key, value in reg_regims.items():
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < float("inf"):
                raise ConfigError(Fault(f"reg_regims.{key}", "the strength must be a number from 0 up", value))
        super().__init__(name, tuple(map(str, reg_regims)), threshold_criteria)
        self._strengths = {str(key): float(value) for key, value in reg_regims.items()}

    def term(self, weight_name: str, weight: Tensor) -> Tensor:
        return weight.abs().sum() * self._strengths[weight_name]

    def threshold_mask(self, weight_name: str, weight: Tensor) -> Tensor:
        return (weight.detach().abs() > self._strengths[weight_name]).to(weight.dtype)
