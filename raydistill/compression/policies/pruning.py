"""Pruning as a policy: masks are decided at the beginning of each scheduled epoch and stay in force after it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from raydistill.compression.masks import MaskSet
from raydistill.compression.policies.base import Policy
from raydistill.compression.pruners import Pruner
from raydistill.compression.rates import PolicyTime


class PruningPolicy(Policy):
    """Sets the masks of the pruner's weights; the scheduler's `MaskSet` applies them after every optimizer step."""

    def __init__(self, pruner: Pruner, model: nn.Module, masks: MaskSet) -> None:
        self.pruner = pruner
        self._masks = masks
        parameters = dict(model.named_parameters())
        self._weights = {name: parameters[name] for name in pruner.weights}

    @torch.no_grad()
    def on_epoch_begin(self, when: PolicyTime) -> None:
        for name, weight in self._weights.items():
            self._masks.set(name, self.pruner.mask(name, weight, when))
        self._masks.apply()

    def state_dict(self) -> dict[str, Any]:
        return self.pruner.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.pruner.load_state_dict(state)
