"""timm's attention of EVA (Fang et al. 2023, arXiv 2303.11331), with heads that need not fill the width it reads."""

from __future__ import annotations

from typing import Any

import torch
from timm.layers import apply_rot_embed_cat
from timm.models.eva import EvaAttention
from torch import Tensor, nn
from torch.nn import functional


class OwnWidthAttention(EvaAttention):  # type: ignore[misc]
    """Positions are rotated in; of a packed layer biases of queries and values lie beside it, keys have none. Scores
    are scaled by the width that heads had before. A model never builds one: `RewrittenKind.before_cut` makes it of
    timm's.
    """

    @classmethod
    def take_over(cls, module: Any, stays: object) -> None:
        del stays
        module.k_bias = None  # zeros, as many as keys had
        module.__class__ = cls

    def forward(
        self, x: Tensor, rope: Tensor | None = None, attn_mask: Tensor | None = None, is_causal: bool = False
    ) -> Tensor:
        """(B, T, width) to the same; the first `num_prefix_tokens` are not rotated."""
        q, k, v = (part.unflatten(-1, (self.num_heads, -1)).transpose(1, 2) for part in self._projected(x))
        q, k = self._rotated(self.q_norm(q), rope), self._rotated(self.k_norm(k), rope)
        dropout = self.attn_drop.p if self.training else 0.0
        mixed = functional.scaled_dot_product_attention(
            q.type_as(v), k.type_as(v), v, attn_mask, dropout, is_causal, scale=self.scale
        )
        mixed = self.norm(mixed.transpose(1, 2).flatten(2))
        if self.gate is not None:
            mixed = mixed * self.gate(x).sigmoid()
        return self.proj_drop(self.proj(mixed))

    def _projected(self, x: Tensor) -> list[Tensor]:
        """Queries, keys and values, (B, T, heads * width of a head) each."""
        if self.qkv is None:
            return [layer(x) for layer in (self.q_proj, self.k_proj, self.v_proj)]
        inner: int = self.proj.in_features
        packed: nn.Linear = self.qkv
        scored = (packed.out_features - inner) // 2
        bias = self.q_bias
        if bias is not None:
            bias = torch.cat([bias, torch.zeros_like(bias), self.v_bias])
        return list(functional.linear(x, packed.weight, bias).split([scored, scored, inner], -1))

    def _rotated(self, tensor: Tensor, rope: Tensor | None) -> Tensor:
        if rope is None:
            return tensor
        before, after = tensor.tensor_split([self.num_prefix_tokens], 2)
        return torch.cat([before, apply_rot_embed_cat(after, rope, half=self.rotate_half)], 2)
