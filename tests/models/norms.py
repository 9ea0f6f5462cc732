"""Batch norms that are not as they begin."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


def norm(x: Tensor, bn: nn.Module) -> Tensor:
    return F.batch_norm(x, bn.running_mean, bn.running_var, bn.weight, bn.bias)


def shuffle_norms(model: nn.Module) -> None:
    """Statistics and scales that are not 0 and 1, so that a forgotten batch norm shows."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, 0, 0.2)
            nn.init.uniform_(module.running_var, 0.5, 2)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, 0, 0.2)
