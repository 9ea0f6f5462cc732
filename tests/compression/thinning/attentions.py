"""Attention as people write it: each has four heads of width 4 on 16 channels, and a layer `out` that mixes them."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional


class Apart(nn.Module):
    """Layers by themselves, heads counted by an attribute."""

    def __init__(self, bias: bool = True, scale: float | None = 0.5) -> None:
        super().__init__()
        self.heads, self.scale = 4, scale
        self.q, self.k, self.v = (nn.Linear(16, 16) for _ in range(3))
        self.out = nn.Linear(16, 16, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (layer(x).unflatten(-1, (self.heads, -1)).transpose(1, 2) for layer in (self.q, self.k, self.v))
        mixed = functional.scaled_dot_product_attention(q, k, v, scale=self.scale)
        return self.out(mixed.transpose(1, 2).flatten(2))


class Fused(nn.Module):
    """One layer for queries, keys and values; softmax of a product, scaled beforehand."""

    def __init__(self) -> None:
        super().__init__()
        self.num_heads, self.head_dim, self.inner = 4, 4, 16
        self.qkv, self.out = nn.Linear(16, 48), nn.Linear(16, 16)

    def forward(self, x: Tensor) -> Tensor:
        batch, steps, _ = x.shape
        qkv = self.qkv(x).reshape(batch, steps, 3, self.num_heads, self.head_dim).permute(2, 0, 3, 1, 4)
        q, k, v = qkv.unbind(0)
        weights = ((q * 0.5) @ k.transpose(-2, -1)).softmax(-1)
        return self.out((weights @ v).transpose(1, 2).reshape(batch, steps, self.inner))


class Shared(nn.Module):
    """Two heads share each pair of keys and values; positions are rotated in."""

    def __init__(self) -> None:
        super().__init__()
        self.head_dim = 4
        self.q, self.out = nn.Linear(16, 16, bias=False), nn.Linear(16, 16, bias=False)
        self.k, self.v = (nn.Linear(16, 8, bias=False) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (layer(x).unflatten(-1, (-1, self.head_dim)).transpose(1, 2) for layer in (self.q, self.k, self.v))
        angle = torch.arange(x.shape[1], dtype=x.dtype)[:, None] * torch.tensor([1.0, 0.1, 1.0, 0.1], dtype=x.dtype)
        q, k = (t * angle.cos() + torch.cat([-t[..., 2:], t[..., :2]], -1) * angle.sin() for t in (q, k))
        k, v = (t.repeat_interleave(2, 1) for t in (k, v))
        mixed = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.out(mixed.transpose(1, 2).flatten(2))


class Biased(nn.Module):
    """A bias for each head and distance."""

    def __init__(self) -> None:
        super().__init__()
        self.width = 4
        self.q, self.k, self.v, self.out = (nn.Linear(16, 16) for _ in range(4))
        self.distances = nn.Parameter(torch.randn(9, 4))

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (layer(x).unflatten(-1, (-1, self.width)).transpose(1, 2) for layer in (self.q, self.k, self.v))
        steps = torch.arange(x.shape[1])
        bias = self.distances[(steps[:, None] - steps).clamp(-4, 4) + 4].permute(2, 0, 1)
        weights = (torch.matmul(q, k.transpose(-2, -1)) / math.sqrt(self.width) + bias).softmax(dim=-1)
        return self.out(torch.matmul(weights, v).transpose(1, 2).flatten(2))


class Beside(nn.Module):
    """One layer for queries, keys and values, without a bias; those of queries and values are beside it."""

    def __init__(self) -> None:
        super().__init__()
        self.num_heads = 4
        self.qkv, self.out = nn.Linear(16, 48, bias=False), nn.Linear(16, 16)
        self.q_bias, self.v_bias = nn.Parameter(torch.randn(16)), nn.Parameter(torch.randn(16))

    def forward(self, x: Tensor) -> Tensor:
        bias = torch.cat([self.q_bias, torch.zeros_like(self.q_bias), self.v_bias])
        qkv = functional.linear(x, weight=self.qkv.weight, bias=bias)
        q, k, v = qkv.unflatten(-1, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(q, k, v, scale=0.5)
        return self.out(mixed.transpose(1, 2).flatten(2))


class Settings:
    """Of a whole network."""

    def __init__(self) -> None:
        self.layers, self.heads, self.shared = 4, 4, 2


class OneLayer(nn.Module):
    """Queries, and keys and values that two heads share, come out of one layer; how many heads there are its code reads
    from settings that the network's other blocks hold too. Positions are rotated in."""

    def __init__(self, settings: Settings | None = None) -> None:
        super().__init__()
        self.settings, self.head_dim, self.shared = settings or Settings(), 4, 2
        self.qkv, self.out = nn.Linear(16, 32, bias=False), nn.Linear(16, 16, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        asked, given = self.settings.heads * self.head_dim, self.shared * self.head_dim
        qkv = self.qkv(x)
        parts = (qkv[..., :asked], qkv[..., asked : asked + given], qkv[..., asked + given :])
        q, k, v = (part.unflatten(-1, (-1, self.head_dim)).transpose(1, 2) for part in parts)
        angle = torch.arange(x.shape[1], dtype=x.dtype)[:, None] * torch.tensor([1.0, 0.1, 1.0, 0.1], dtype=x.dtype)
        q, k = (t * angle.cos() + torch.cat([-t[..., 2:], t[..., :2]], -1) * angle.sin() for t in (q, k))
        k, v = (t.repeat_interleave(q.shape[1] // t.shape[1], 1) for t in (k, v))
        mixed = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.out(mixed.transpose(1, 2).flatten(2))


class Fixed(Apart):
    """Its code writes as many channels as it reads."""

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (layer(x).unflatten(-1, (self.heads, -1)).transpose(1, 2) for layer in (self.q, self.k, self.v))
        mixed = functional.scaled_dot_product_attention(q, k, v)
        return self.out(mixed.transpose(1, 2).reshape(x.shape))


class Torchs(nn.Module):
    """torch's own."""

    def __init__(self, batch_first: bool = True) -> None:
        super().__init__()
        self.own = nn.MultiheadAttention(16, 4, batch_first=batch_first)

    @property
    def out(self) -> nn.Module:
        return self.own.out_proj

    def forward(self, x: Tensor) -> Tensor:
        return self.own(x, x, x, need_weights=False)[0]


class Net(nn.Module):
    """An attention in a residual block, between two linear layers, and one more behind it."""

    def __init__(self, attention: nn.Module) -> None:
        super().__init__()
        self.first, self.norm = nn.Linear(6, 16), nn.LayerNorm(16)
        self.attention = attention
        self.last = nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        return self.last(x + self.attention(self.norm(x)))
