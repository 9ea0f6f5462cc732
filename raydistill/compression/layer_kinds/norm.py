"""Normalizations that keep channels apart (batch and instance norms), and PReLU, which has a slope a channel."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from raydistill.compression.layer_kinds.base import LayerKind, set_sizes


@dataclass(frozen=True)
class NormKind(LayerKind):
    """Channels in dim 1. Its tensors, all of which it may lack, are one number a channel."""

    norm: bool = True

    def rows(self, module: Any) -> int:
        return int(module.num_features)

    def channel_axis(self, module: Any, dims: int) -> int:
        return 1 - dims

    def zero_rows(self, module: Any) -> Tensor:
        if module.weight is None:
            return torch.zeros(self.rows(module), dtype=torch.bool)
        zero: Tensor = module.weight.data == 0
        return zero

    def fit(self, module: Any, rows: int | None = None) -> None:
        first = module.weight if module.weight is not None else module.running_mean
        if rows is None and first is not None:
            rows = len(first)
        if rows is not None:
            set_sizes(module, {"num_features": rows})


@dataclass(frozen=True)
class SlopeKind(LayerKind):
    """PReLU: a slope for negative values, one a channel or one for all."""

    def rows(self, module: Any) -> int:
        return int(module.num_parameters)

    def keeps_apart(self, module: Any) -> bool:
        return self.rows(module) > 1

    def fit(self, module: Any, rows: int | None = None) -> None:
        set_sizes(module, {"num_parameters": len(module.weight)})


BATCH_NORM = NormKind(batch_norm=True)
INSTANCE_NORM = NormKind()
PRELU = SlopeKind()
