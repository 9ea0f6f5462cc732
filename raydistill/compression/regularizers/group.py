"""Structured sparsity learning: regularisers of whole groups (Wen et al. 2016, arXiv 1608.03665)."""

from __future__ import annotations

import torch
from torch import Tensor

from raydistill.compression.granularity import CHANNELS
from raydistill.compression.regularizers.base import Regularizer
from raydistill.compression.thresholds import checked_regims, group_threshold_mask
from raydistill.errors import ConfigError, Fault


class GroupLassoRegularizer(Regularizer):
    """Adds strength * sum over groups of the group's Euclidean norm (Yuan and Lin 2006).

    reg_regims: weight name to [strength, group type]; group types as `granularity` has them, and sums: Rows+Cols.
    threshold_criteria: Mean_Abs or Max: groups not above the strength by it are zeroed after each step.
    """

    def __init__(self, name: str, reg_regims: dict[str, list[object]], threshold_criteria: str | None = None) -> None:
        self._regims = checked_regims(reg_regims)
        super().__init__(name, tuple(self._regims), threshold_criteria)

    def fault_of(self, weight_name: str, weight: Tensor) -> str:
        return self._regims[weight_name].fault_of(weight)

    def term(self, weight_name: str, weight: Tensor) -> Tensor:
        regim = self._regims[weight_name]
        norms = [torch.linalg.vector_norm(part.groups(weight), 2, dim=1).sum() for part in regim.granularities]
        return torch.stack(norms).sum() * regim.strength

    def threshold_mask(self, weight_name: str, weight: Tensor) -> Tensor:
        assert self.threshold_criteria is not None
        return group_threshold_mask(weight, self._regims[weight_name], self.threshold_criteria)


class GroupVarianceRegularizer(Regularizer):
    """Adds strength / variance of the channels' norms: channels are driven apart (Torfi et al. 2018, arXiv 1802.09902).

    reg_regims: weight name to [strength, Channels].
    """

    def __init__(self, name: str, reg_regims: dict[str, list[object]]) -> None:
        self._regims = checked_regims(reg_regims)
        for weight, regim in self._regims.items():
            if regim.granularities != (CHANNELS,):
                raise ConfigError(Fault(f"reg_regims.{weight}", "the group type must be Channels", regim.group_type))
        super().__init__(name, tuple(self._regims), None)

    def fault_of(self, weight_name: str, weight: Tensor) -> str:
        fault = self._regims[weight_name].fault_of(weight)
        return fault or ("needs at least 2 channels for a variance" if weight.shape[1] < 2 else "")

    def term(self, weight_name: str, weight: Tensor) -> Tensor:
        norms = torch.linalg.vector_norm(CHANNELS.groups(weight), 2, dim=1)
        # channels of one and the same norm (zeros above all) have no variance to divide by
        return self._regims[weight_name].strength / norms.var().clamp_min(1e-12)
