"""T5's attention (Raffel et al. 2020, arXiv 1910.10683), whose position biases the first layer makes for all of them.

A bias is (1, heads, T, S); 1 stands for any number of heads.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from transformers.models.t5.modeling_t5 import T5Attention


class OwnBias(nn.Module):
    """Put before the library's class. With heads of its own: of the biases that it is given it reads those of its
    heads, and hands all of them on.

    kept: of the heads that the network had, int64 (heads,). A model never builds one: `RewrittenKind.before_cut` makes
    it of the library's own.
    """

    kept: Tensor
    made: list[Tensor]

    @classmethod
    def take_over(cls, module: Any, stays: Mapping[str, Tensor]) -> None:
        if not isinstance(module, cls):
            module.register_buffer("kept", torch.arange(module.n_heads, device=module.q.weight.device), False)
            module.made = []
            module.__class__ = cls
        if "q" in stays:
            heads = (stays["q"] // module.key_value_proj_dim).unique()
            module.kept = module.kept[heads.to(module.kept.device)]

    def forward(self, hidden_states: Tensor, *arguments: Any, position_bias: Tensor | None = None, **named: Any) -> Any:
        given = None if position_bias is None else self._own(position_bias)
        output, own, weights = super().forward(hidden_states, *arguments, position_bias=given, **named)
        if position_bias is None:
            position_bias = self.made.pop() if self.made else own[:, :1]  # of attention without a table it is zero
        return output, position_bias, weights

    def compute_bias(self, *arguments: Any, **named: Any) -> Tensor:
        whole: Tensor = super().compute_bias(*arguments, **named)  # type: ignore[misc]
        self.made.append(whole)
        return self._own(whole)

    def _own(self, bias: Tensor) -> Tensor:
        """All of it where the table has lost the columns of the heads that are gone."""
        return bias if bias.shape[1] in (1, len(self.kept)) else bias[:, self.kept]


class OwnBiasAttention(OwnBias, T5Attention):  # type: ignore[misc]
    """T5's."""
