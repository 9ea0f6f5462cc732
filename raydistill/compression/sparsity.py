"""How sparse a model is. *Weights* are parameters with two or more dimensions; nothing else counts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn


def weights(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """The model's weights by parameter name; a shared one counts once."""
    return ((name, p) for name, p in model.named_parameters() if p.dim() >= 2)


def zero_counts(model: nn.Module) -> dict[str, tuple[int, int]]:
    """(zeros, size) of each weight; one transfer from the device for all of them."""
    named = list(weights(model))
    if not named:
        return {}
    nonzero = torch.stack([torch.count_nonzero(p.detach()) for _, p in named]).tolist()
    return {name: (p.numel() - count, p.numel()) for (name, p), count in zip(named, nonzero, strict=True)}


def sparsity(model: nn.Module, dense_sizes: Mapping[str, int] | None = None) -> tuple[float, dict[str, float]]:
    """Fraction of zeros: in total, and of each weight.

    dense_sizes: elements of each weight before thinning; what was removed counts as zero then.
    """
    counts = zero_counts(model)
    if dense_sizes is not None:
        for name, (zeros, size) in counts.items():
            dense = dense_sizes.get(name, size)
            counts[name] = (zeros + dense - size, dense)
    return from_counts(counts)


def from_counts(counts: dict[str, tuple[int, int]]) -> tuple[float, dict[str, float]]:
    zeros = sum(zero for zero, _ in counts.values())
    size = sum(size for _, size in counts.values())
    return (zeros / size if size else 0.0), {name: zero / size for name, (zero, size) in counts.items()}
