"""What of a network's weights lies in whole structures, for TensorBoard."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from raydistill.compression.sparsity import weights


@torch.no_grad()
def structure_sparsity(model: nn.Module) -> dict[str, float]:
    """Of each weight the fraction of 2D structures that are zero as a whole: kernels of convolutions (what stands
    between one input and one output channel), rows of matrices."""
    named = [(name, _structures(weight)) for name, weight in weights(model)]
    if not named:
        return {}
    zeros = torch.stack([(structures == 0).all(dim=1).float().mean() for _, structures in named]).tolist()
    return {name: zero for (name, _), zero in zip(named, zeros, strict=True)}


@torch.no_grad()
def filter_magnitudes(model: nn.Module) -> dict[str, np.ndarray]:
    """Of each weight the mean magnitude of each of its filters, (dim 0,)."""
    return {name: weight.abs().float().flatten(1).mean(dim=1).cpu().numpy() for name, weight in weights(model)}


def _structures(weight: Tensor) -> Tensor:
    """(structures, elements of each)."""
    return weight.flatten(0, 1).flatten(1) if weight.dim() > 2 else weight
