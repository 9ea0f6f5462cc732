"""A small decoder-only transformer, as GPT-2's (Radford et al. 2019): norms before each half block, learned positions.

Shapes: tokens int64 (B, T), T up to `context`; states (B, T, width); logits (B, T, num_classes).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from raydistill.errors import ConfigError, Fault


class Attention(nn.Module):
    """Causal self-attention; q, k, v and out are layers by themselves, so that a schedule can name each."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.q, self.k, self.v = (nn.Linear(width, width) for _ in range(3))
        self.out = nn.Linear(width, width)

    def forward(self, states: Tensor) -> Tensor:
        def by_head(projected: Tensor) -> Tensor:
            return projected.unflatten(-1, (self.heads, -1)).transpose(1, 2)  # (B, heads, T, width / heads)

        mixed = functional.scaled_dot_product_attention(
            by_head(self.q(states)),
            by_head(self.k(states)),
            by_head(self.v(states)),
            dropout_p=self.dropout if self.training else 0.0,
            is_causal=True,
        )
        return self.out(mixed.transpose(1, 2).flatten(2))


class MLP(nn.Module):
    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(width, hidden), nn.Linear(hidden, width)

    def forward(self, states: Tensor) -> Tensor:
        return self.down(functional.gelu(self.up(states)))


class Block(nn.Module):
    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = Attention(width, heads, dropout)
        self.mlp = MLP(width, 4 * width)
        self.drop = nn.Dropout(dropout)

    def forward(self, states: Tensor) -> Tensor:
        states = states + self.drop(self.attention(self.norm1(states)))
        return states + self.drop(self.mlp(self.norm2(states)))


class DecoderLM(nn.Module):
    """num_classes: the vocabulary. context: the most tokens it sees at a time. The decoder is not tied to the encoder.

    Weights begin normal with deviation 0.02; those that write into the residual stream with 0.02 / sqrt(2 * depth)
    (section 2.3 of the paper), so that its variance does not grow with depth.

    Raises:
        ConfigError: a width that the heads do not divide; when called, more tokens than the context.
    """

    def __init__(
        self,
        num_classes: int = 33_278,
        width: int = 128,
        depth: int = 4,
        heads: int = 4,
        dropout: float = 0.1,
        context: int = 128,
    ) -> None:
        super().__init__()
        for name, value in (("width", width), ("depth", depth), ("heads", heads), ("context", context)):
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ConfigError(Fault(name, "must be a whole number from 1 up", value))
        if width % heads:
            raise ConfigError(Fault("width", f"must be a multiple of heads {heads}", width, f"such as {heads * 32}"))
        self.context = context
        self.encoder = nn.Embedding(num_classes, width)
        self.positions = nn.Embedding(context, width)
        self.drop = nn.Dropout(dropout)
        self.blocks = nn.ModuleList(Block(width, heads, dropout) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        self.decoder = nn.Linear(width, num_classes, bias=False)
        for name, parameter in self.named_parameters():
            if parameter.dim() > 1:
                residual = name.endswith(("attention.out.weight", "mlp.down.weight"))
                nn.init.normal_(parameter, std=0.02 / (math.sqrt(2 * depth) if residual else 1.0))
            elif name.endswith("bias"):
                nn.init.zeros_(parameter)

    def forward(self, tokens: Tensor) -> Tensor:
        length = tokens.shape[1]
        if length > self.context:
            rule = f"sees {self.context} tokens at a time"
            raise ConfigError(Fault("model.args.context", rule, length, "raise context, or lower task.args.bptt"))
        places = torch.arange(length, device=tokens.device)
        states = self.drop(self.encoder(tokens) + self.positions(places))
        for block in self.blocks:
            states = block(states)
        return self.decoder(self.norm(states))
