"""Neural matrix factorisation (He et al. 2017, arXiv 1708.05031, section 3.4), with the names of MLPerf's."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from raydistill.errors import ConfigError, Fault


class NeuMF(nn.Module):
    """Pairs int64 (B, 2) of a user and an item to the logit (B,) that they go together.

    mf_dim: factors that are multiplied. mlp_layers: widths of the layers beside it, the first one of both embeddings
    together. The defaults of users and items are those of MovieLens 100K.

    Embeddings begin normal with deviation 0.01, the layers as Glorot's, as in the paper.

    Raises:
        ConfigError: widths that are none, or a first one that is odd.
    """

    def __init__(
        self, users: int = 943, items: int = 1682, mf_dim: int = 16, mlp_layers: Sequence[int] = (64, 32, 16)
    ) -> None:
        super().__init__()
        listed = isinstance(mlp_layers, (list, tuple)) and len(mlp_layers) > 0
        if not listed or not all(type(width) is int and width > 0 for width in mlp_layers) or mlp_layers[0] % 2:
            rule = "must be whole numbers from 1 up, the first one even (half a user's, half an item's)"
            raise ConfigError(Fault("mlp_layers", rule, mlp_layers, "as [64, 32, 16]"))
        half = mlp_layers[0] // 2
        self.mf_user_embed, self.mf_item_embed = nn.Embedding(users, mf_dim), nn.Embedding(items, mf_dim)
        self.mlp_user_embed, self.mlp_item_embed = nn.Embedding(users, half), nn.Embedding(items, half)
        self.mlp = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(mlp_layers))
        self.final = nn.Linear(mlp_layers[-1] + mf_dim, 1)
        for module in self.modules():
            if isinstance(module, nn.Embedding):
                nn.init.normal_(module.weight, std=0.01)
            elif isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
        bound = math.sqrt(3 / self.final.in_features)
        nn.init.uniform_(self.final.weight, -bound, bound)

    def forward(self, pairs: Tensor) -> Tensor:
        user, item = pairs[:, 0], pairs[:, 1]
        factors = self.mf_user_embed(user) * self.mf_item_embed(item)
        states = torch.cat([self.mlp_user_embed(user), self.mlp_item_embed(item)], dim=1)
        for layer in self.mlp:
            states = torch.relu(layer(states))
        return self.final(torch.cat([factors, states], dim=1))[:, 0]
