"""`torch.nn.MultiheadAttention`, whose query, key and value weights stand in one parameter."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from raydistill.compression.layer_kinds import attention_inputs
from raydistill.compression.layer_kinds.base import Cut, LayerKind, select


@dataclass(frozen=True)
class AttentionKind(LayerKind):
    """Rows: those of the packed weight, queries first, then keys, then values. Columns: what it reads. What it gives is
    made by its ``out_proj``, a layer of its own."""

    counted: bool = True
    whole: str = "which is attention: only its heads are thinned"
    numbers: tuple[str, ...] | None = ("num_heads",)
    weight: str = "in_proj_weight"

    def rows(self, module: nn.Module) -> int:
        return len(_packed(module))

    def columns(self, module: nn.Module) -> int:
        return _packed(module).shape[1]

    def may_be_cut(self, module: nn.Module) -> bool:
        attention = cast(nn.MultiheadAttention, module)
        # Keys and values that are added to every sequence have the width of all heads.
        return attention.in_proj_weight is not None and attention.bias_k is None and not attention.add_zero_attn

    def can_lose(self, module: nn.Module, is_column: bool) -> bool:
        del is_column
        return self.may_be_cut(module)

    def bias_of(self, module: nn.Module) -> Tensor | None:
        return cast(nn.MultiheadAttention, module).in_proj_bias

    @property
    def bias_name(self) -> str:
        return "in_proj_bias"

    def zero_columns(self, module: nn.Module) -> Tensor:
        return (_packed(module).data == 0).all(0)

    def zero_rows(self, module: nn.Module) -> Tensor:
        return (_packed(module).data == 0).all(1)

    def heads(self, module: nn.Module) -> tuple[Tensor, Tensor, Tensor, str, Tensor] | None:
        if not self.may_be_cut(module):
            return None
        heads = cast(nn.MultiheadAttention, module).num_heads
        sizes = _sizes(module)
        query, key, value = (rows.view(heads, -1) for rows in torch.arange(sum(sizes)).split(sizes))
        return query, key, value, "out_proj", torch.arange(sizes[2]).view(heads, -1)

    def rounded(self, module: nn.Module) -> dict[str, int | None]:
        return {name: 0 for name, tensor in module.named_parameters(recurse=False) if tensor.dim() == 2}

    def multiplies(self, module: nn.Module) -> tuple[str, ...]:
        """None where its heads do not fill its width; its output projection is called as a layer then."""
        return () if isinstance(module, HeadedAttention) else attention_inputs.weights(module)

    def reads(self, module: nn.Module, weight: str, arguments: Sequence[object], named: Mapping[str, object]) -> Tensor:
        return attention_inputs.reads(module, weight, arguments, named)

    def cuts(self, module: nn.Module, keep_rows: Tensor | None, keep_columns: Tensor | None) -> dict[str, Cut]:
        def weight(tensor: Tensor) -> Tensor:
            tensor = tensor if keep_columns is None else select(1, keep_columns, tensor)
            return tensor if keep_rows is None else select(0, keep_rows, tensor)

        found: dict[str, Cut] = {"in_proj_weight": weight}
        if keep_rows is not None and self.bias_of(module) is not None:
            found["in_proj_bias"] = partial(select, 0, keep_rows)
        return found

    def fit(self, module: nn.Module, rows: int | None = None) -> None:
        """An attention whose heads do not fill its width is one of `HeadedAttention` from now on: torch's own refuses
        to run. Object, names and parameters stay."""
        attention = cast(nn.MultiheadAttention, module)
        if self.rows(module) != 3 * attention.embed_dim or self.columns(module) != attention.embed_dim:
            module.__class__ = HeadedAttention
            attention._qkv_same_embed_dim = False  # torch's fused encoder layer stays away
            attention.embed_dim = attention.kdim = attention.vdim = self.columns(module)


class HeadedAttention(nn.MultiheadAttention):
    """`torch.nn.MultiheadAttention` with fewer or narrower heads than its width has room for.

    Of `num_heads` heads each has a value width of ``out_proj.in_features / num_heads``; queries and keys share the
    other rows of ``in_proj_weight``. Scores are scaled by `head_dim`, the width that heads had before, so that they are
    those of the masked layer. A model never builds one: `AttentionKind.fit` makes it of torch's own.
    """

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """As torch's: (B, T, width) where `batch_first`, else (T, B, width), or (T, width); weights are those of the
        heads that are left. `is_causal` is a hint beside `attn_mask`, as it is there."""
        del is_causal
        if query.is_nested:
            return self._nested(query), None
        single = query.dim() == 2
        query, key, value = ((t.unsqueeze(0) if single else self._batched(t)) for t in (query, key, value))
        q, k, v = self._by_head(query, key, value)
        mask = self._mask(attn_mask, key_padding_mask, q, single)
        scale, dropout = self.head_dim**-0.5, self.dropout if self.training else 0.0
        weights = None
        if need_weights:
            scores = (q * scale) @ k.transpose(-2, -1)
            weights = functional.softmax(scores if mask is None else scores + mask, dim=-1)
            mixed = functional.dropout(weights, dropout) @ v
            weights = weights.mean(1) if average_attn_weights else weights
            weights = weights.squeeze(0) if single else weights
        else:
            mixed = functional.scaled_dot_product_attention(q, k, v, mask, dropout, scale=scale)
        output = self.out_proj(mixed.transpose(1, 2).flatten(2))
        return (output.squeeze(0) if single else self._batched(output)), weights

    def _nested(self, states: Tensor) -> Tensor:
        """Self-attention over sequences of different lengths, which torch's encoder puts together where there is
        padding."""
        lengths = [len(sequence) for sequence in states.unbind()]
        padded = states.to_padded_tensor(0.0)
        padding = (
            torch.arange(padded.shape[1], device=padded.device) >= torch.tensor(lengths, device=padded.device)[:, None]
        )
        output, _ = self(padded, padded, padded, key_padding_mask=padding, need_weights=False)
        return torch.nested.as_nested_tensor([row[:length] for row, length in zip(output, lengths, strict=True)])

    def _batched(self, states: Tensor) -> Tensor:
        return states if self.batch_first else states.transpose(0, 1)

    def _by_head(self, query: Tensor, key: Tensor, value: Tensor) -> list[Tensor]:
        """(B, heads, T, width of a head) each."""
        sizes = _sizes(self)
        weights = _packed(self).split(sizes)
        biases = [None] * 3 if self.in_proj_bias is None else self.in_proj_bias.split(sizes)
        return [
            functional.linear(states, weight, bias).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
            for states, weight, bias in zip((query, key, value), weights, biases, strict=True)
        ]

    def _mask(self, attention: Tensor | None, padding: Tensor | None, q: Tensor, single: bool) -> Tensor | None:
        """What is added to the scores (B or 1, heads or 1, T, S); None where nothing is."""
        total: Tensor | None = None
        if attention is not None:
            wide = attention if attention.dim() == 2 else attention.view(-1, self.num_heads, *attention.shape[1:])
            total = _added(wide, q.dtype)
        if padding is not None:
            padding = padding.unsqueeze(0) if single else padding
            added = _added(padding, q.dtype)[:, None, None, :]
            total = added if total is None else total + added
        return total


ATTENTION = AttentionKind()


def _packed(module: nn.Module) -> Tensor:
    weight: Tensor | None = cast(nn.MultiheadAttention, module).in_proj_weight
    return torch.empty(0, 0) if weight is None else weight


def _sizes(module: nn.Module) -> list[int]:
    """How many rows of the packed weight are of queries, keys and values."""
    inner: int = cast(nn.MultiheadAttention, module).out_proj.in_features
    return [(len(_packed(module)) - inner) // 2] * 2 + [inner]


def _added(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """A mask as numbers to add; of a boolean one, True is what is not seen."""
    if mask.dtype != torch.bool:
        return mask.to(dtype)
    return torch.zeros(mask.shape, dtype=dtype, device=mask.device).masked_fill_(mask, float("-inf"))
