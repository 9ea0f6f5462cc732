"""Regularisation as a policy: a term of the loss, and groups zeroed once they are small enough."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from raydistill.compression.masks import MaskSet
from raydistill.compression.policies.base import Policy, Step, weights_text
from raydistill.compression.rates import PolicyTime
from raydistill.compression.regularizers import Regularizer
from raydistill.compression.structure import StructureChange
from raydistill.errors import ConfigError, Fault


@dataclass(frozen=True)
class RegularizationControls:
    """A policy's ``args``. keep_mask: what the regularizer's threshold zeroes at the end stays zero from then on."""

    keep_mask: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.keep_mask, bool):
            raise ConfigError(Fault("keep_mask", "must be true or false", self.keep_mask))


class RegularizationPolicy(Policy):
    """Adds the regularizer's terms to the loss and applies its threshold after each step.

    weights: the names it acts on. last_epoch: the last it is scheduled in.
    """

    def __init__(
        self,
        regularizer: Regularizer,
        masks: MaskSet,
        weights: Sequence[str],
        last_epoch: int,
        controls: RegularizationControls | None = None,
    ) -> None:
        self.regularizer = regularizer
        self.controls = controls or RegularizationControls()
        self.weights = tuple(weights)
        self._masks = masks
        self._last_epoch = last_epoch

    def says(self, when: PolicyTime) -> str:
        return f"regularises {weights_text(self.weights)}"

    @property
    def may_draw(self) -> bool:
        return False

    def before_backward(self, step: Step, loss: Tensor) -> Tensor:
        return self.regularizer.loss({name: self._masks.parameter(name) for name in self.weights}, loss)

    def on_structure_change(self, happened: StructureChange) -> None:
        self.regularizer.on_structure_change(happened)

    def state_dict(self) -> dict[str, object]:
        return self.regularizer.state_dict()

    def load_state_dict(self, state: Mapping[str, object]) -> None:
        if state:
            self.regularizer.load_state_dict(state)

    @torch.no_grad()
    def on_minibatch_end(self, step: Step) -> None:
        if self.regularizer.threshold_criteria is None:
            return
        for name in self.weights:
            weight = self._masks.parameter(name)
            weight.mul_(self.regularizer.threshold_mask(name, weight))

    @torch.no_grad()
    def on_epoch_end(self, when: PolicyTime, metrics: Mapping[str, float]) -> None:
        keeps = self.controls.keep_mask and self.regularizer.threshold_criteria is not None
        if not keeps or when.epoch != self._last_epoch:
            return
        masks = {name: self.regularizer.threshold_mask(name, self._masks.parameter(name)) for name in self.weights}
        for name, mask in self._masks.ranks.tensors_of_first(masks).items():
            self._masks.set(name, mask * self._masks[name] if name in self._masks else mask)
        self._masks.apply()
