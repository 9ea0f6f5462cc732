"""Norms over channels, and embeddings: what stands on a residual stream and can lose channels of it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import cast

import torch
from torch import Tensor, nn

from raydistill.compression.layer_kinds.base import Cut, LayerKind, select


@dataclass(frozen=True)
class LayerNormKind(LayerKind):
    """`torch.nn.LayerNorm` and `torch.nn.RMSNorm` over the last dimension. centered: it takes the mean away."""

    numbers: tuple[str, ...] | None = ()
    whole: str = "which normalizes over channels"
    centered: bool = True

    def rows(self, module: nn.Module) -> int:
        return int(cast(nn.LayerNorm, module).normalized_shape[-1])

    def may_be_cut(self, module: nn.Module) -> bool:
        norm = cast(nn.LayerNorm, module)
        return len(norm.normalized_shape) == 1 and norm.weight is not None

    def can_lose(self, module: nn.Module, is_column: bool) -> bool:
        return not is_column and self.may_be_cut(module)

    def channel_axis(self, module: nn.Module, dims: int) -> int:
        del module, dims
        return -1

    def fit(self, module: nn.Module, rows: int | None = None) -> None:
        """A norm that has lost channels is one of `PartialLayerNorm` from now on, so that its statistics are those of
        all; object, names and parameters stay."""
        norm = cast(nn.LayerNorm, module)
        before = self.rows(module)
        norm.normalized_shape = (len(norm.weight),)
        if self.centered and len(norm.weight) < before and not isinstance(module, PartialLayerNorm):
            first = _takes_maps(norm)
            module.__class__ = PartialLayerNorm
            partial_norm = cast(PartialLayerNorm, module)
            partial_norm.features, partial_norm.channels_first = before, first


class PartialLayerNorm(nn.LayerNorm):
    """`torch.nn.LayerNorm` over `features` channels, all of which but those that it is given are zero.

    channels_first: it takes maps (B, C, H, W). A model never builds one: `LayerNormKind.fit` makes it of torch's own,
    or of a child of that.
    """

    features: int
    channels_first: bool = False

    def forward(self, input: Tensor) -> Tensor:
        return self._maps(input) if self.channels_first else self._last(input)

    def _maps(self, input: Tensor) -> Tensor:
        return self._last(input.movedim(1, -1)).movedim(-1, 1)

    def _last(self, input: Tensor) -> Tensor:
        share = input.shape[-1] / self.features
        own_variance, own_mean = torch.var_mean(input, -1, correction=0, keepdim=True)
        mean = own_mean * share
        variance = share * (own_variance + (own_mean - mean).square()) + (1 - share) * mean.square()
        result = (input - mean) * torch.rsqrt(variance + self.eps)
        return result * self.weight if self.bias is None else torch.addcmul(self.bias, result, self.weight)


@torch.no_grad()
def _takes_maps(norm: nn.LayerNorm) -> bool:
    """Whether a norm of a class of its own takes maps with their channels first: torch's raises on them."""
    if type(norm).forward is nn.LayerNorm.forward:
        return False
    count = len(norm.weight)
    try:
        return bool(norm(norm.weight.new_zeros(1, count, 1, count + 1)).shape[1] == count)
    except RuntimeError:
        return False


@dataclass(frozen=True)
class EmbeddingKind(LayerKind):
    """`torch.nn.Embedding`: its rows are the dimensions of a vector, which are the columns of its weight."""

    numbers: tuple[str, ...] | None = ()
    embedding: bool = True
    whole: str = "which is not thinned"
    out_dim: int = 1
    in_dim: int = 0

    def rows(self, module: nn.Module) -> int:
        return cast(nn.Embedding, module).embedding_dim

    def can_lose(self, module: nn.Module, is_column: bool) -> bool:
        return not is_column

    def channel_axis(self, module: nn.Module, dims: int) -> int:
        del module, dims
        return -1

    def zero_rows(self, module: nn.Module) -> Tensor:
        return (cast(nn.Embedding, module).weight.data == 0).all(0)

    def cuts(self, module: nn.Module, keep_rows: Tensor | None, keep_columns: Tensor | None) -> dict[str, Cut]:
        del keep_columns
        return {} if keep_rows is None else {"weight": partial(select, 1, keep_rows)}

    def fit(self, module: nn.Module, rows: int | None = None) -> None:
        embedding = cast(nn.Embedding, module)
        embedding.embedding_dim = embedding.weight.shape[1]


LAYER_NORM = LayerNormKind()
RMS_NORM = LayerNormKind(centered=False)
EMBEDDING = EmbeddingKind()
