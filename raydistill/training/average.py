"""An exponential moving average of a network's weights, under its masks."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn

from raydistill.compression.masks import MaskSet
from raydistill.compression.structure import StructureChange
from raydistill.errors import CheckpointError, Fault


class AveragedWeights:
    """The average of all parameters and floating-point buffers after each optimizer step; other buffers are the last
    ones.

    decay: in (0, 1), what stays of the average in a step. The first steps count more: the decay is at most (1 + n) /
    (10 + n) after n steps, so that the random start is soon forgotten (as TensorFlow's ExponentialMovingAverage has
    it). A weight that is masked is zero in the average too.
    """

    def __init__(self, model: nn.Module, decay: float, masks: MaskSet) -> None:
        self._model, self._decay, self._masks = model, decay, masks
        self.begin()
        masks.listeners.append(self.on_structure_change)

    def begin(self) -> None:
        """Start from the weights that the model has now."""
        self._steps = 0
        self._values = {name: value.clone() for name, value in _floating(self._model).items()}

    @torch.no_grad()
    def update(self) -> None:
        """After an optimizer step, when the masks have been applied."""
        stays = min(self._decay, (1 + self._steps) / (10 + self._steps))
        self._steps += 1
        now = _floating(self._model)
        torch._foreach_lerp_([self._values[name] for name in now], list(now.values()), 1.0 - stays)
        self._mask()

    @contextlib.contextmanager
    def in_place(self) -> Iterator[None]:
        """While the block runs the model has the averaged weights."""
        self._mask()  # which may have changed since the last step
        trained = {name: value.clone() for name, value in _floating(self._model).items()}
        self._put(self._values)
        try:
            yield
        finally:
            self._put(trained)

    def on_structure_change(self, happened: StructureChange) -> None:
        happened.follow(self._values)

    def trained(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Of a model's state, copies of what the average stands for: the weights that training goes on with."""
        return {name: value.clone() for name, value in state.items() if value.is_floating_point()}

    def state_dict(self) -> dict[str, int]:
        return {"steps": self._steps}

    def load(self, averaged: Mapping[str, Tensor], state: Mapping[str, int], where: str) -> None:
        """averaged: a checkpoint's model.

        Raises:
            CheckpointError: it is another network's.
        """
        self.begin()
        kept = self._model.state_dict()
        for name, value in self._values.items():
            if name not in kept:  # a buffer that no checkpoint holds
                continue
            if name not in averaged or averaged[name].shape != value.shape:
                raise CheckpointError(Fault(where, f"has no averaged weights of this shape of '{name}'"))
            self._values[name] = averaged[name].detach().clone().to(value.device)
        self._steps = int(state["steps"])

    @torch.no_grad()
    def _mask(self) -> None:
        for name in self._masks.names():
            if name in self._values:
                self._values[name].mul_(self._masks[name])

    @torch.no_grad()
    def _put(self, values: Mapping[str, Tensor]) -> None:
        for name, value in _floating(self._model).items():
            value.copy_(values[name])


def _floating(model: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers with a part after the point, each once; they share the model's memory."""
    return {
        name: value.detach()
        for name, value in (*model.named_parameters(), *model.named_buffers())
        if value.is_floating_point()
    }
