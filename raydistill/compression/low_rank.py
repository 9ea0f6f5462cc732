"""Recovery by low-rank adapters (Hu et al. 2021, LoRA, arXiv 2106.09685): what pruning has left stays as it is; what is
learned is a product of two small matrices a weight, which is added to it.

The network stays the network: a weight always holds base + scale * (up @ down), masked, so that nothing is merged at
the end, and what is validated, kept and thinned in between is what will be delivered. Gradients of the two follow from
the weight's own. This spares the optimizer's memory (moments of two small matrices, not of all of a weight), not that
of the weight's gradient.

Shapes: a weight (rows, ...) as a matrix (rows, columns); down (rank, columns), up (rows, rank).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from raydistill.compression.masks import MaskSet
from raydistill.compression.policies.base import Step, weights_text
from raydistill.compression.policies.extension import Extension
from raydistill.compression.pruners.arguments import checked_number, checked_weights
from raydistill.compression.rates import PolicyTime
from raydistill.compression.structure import StructureChange
from raydistill.errors import ConfigError, Fault, close_match

_SAME = 1e-5
"""Of the largest weight: what a weight may differ by from what its adapter makes it and still be that."""


@dataclass(frozen=True)
class Adapter:
    """base: what the weight was when it began."""

    base: Tensor
    down: Tensor
    up: Tensor

    def merged(self, scale: float, mask: Tensor | None) -> Tensor:
        """The weight that it makes; zero where the mask is."""
        weight = self.base + scale * (self.up @ self.down).view_as(self.base)
        return weight if mask is None else weight * mask

    def take_gradient(self, gradient: Tensor, scale: float, mask: Tensor | None) -> None:
        """From the weight's to its own two."""
        matrix = (gradient if mask is None else gradient * mask).flatten(1).to(self.up.dtype)
        self.up.grad, self.down.grad = scale * matrix @ self.down.T, scale * self.up.T @ matrix


def adapter_of(weight: Tensor, rank: int, seed: int) -> Adapter:
    """One that adds nothing yet: `up` is zero, `down` normal with a variance of 1 / columns.

    rank: no more than the weight's own is taken. seed: the run's own draws stay what they are.
    """
    rows, columns = weight.flatten(1).shape
    rank = min(rank, rows, columns)
    generator = torch.Generator().manual_seed(seed)
    down = torch.randn(rank, columns, generator=generator).div_(columns**0.5).to(weight)
    return Adapter(weight.detach().clone(), down.requires_grad_(), weight.new_zeros(rows, rank).requires_grad_())


class LowRankRecovery(Extension):
    """Trains adapters in its epochs, and nothing else: all other parameters stand still too, unless `train_others`
    (norms still gather statistics). Masks stay exact.

    rank, alpha: of an adapter, and alpha / rank what its product is taken times. lr: of the adapters' own Adam, which
    the run's learning rate has no part in. weights: those that get one; left out, every one of two or more dimensions
    that has a mask when the epochs begin.

    A weight that is pruned further keeps its adapter. Where it is no longer what that made it (it was thinned, or
    trained in epochs between), all begin anew from what the weights are then.
    """

    withholds = True

    def __init__(
        self,
        name: str,
        rank: int = 8,
        alpha: float = 16.0,
        lr: float = 1e-3,
        weights: list[str] | None = None,
        train_others: bool = False,
    ) -> None:
        if isinstance(rank, bool) or not isinstance(rank, int) or rank < 1:
            raise ConfigError(Fault("rank", "must be a whole number from 1 up", rank))
        if not isinstance(train_others, bool):
            raise ConfigError(Fault("train_others", "must be true or false", train_others))
        self.name = name
        self.rank = rank
        self.scale = checked_number("alpha", alpha, 0.0) / rank
        self.lr = checked_number("lr", lr, 0.0)
        self.weights: Sequence[str] = () if weights is None else checked_weights("weights", weights)
        self.train_others = train_others
        self.adapters: dict[str, Adapter] = {}
        self._optimizer: Optimizer | None = None
        self._withheld: list[tuple[nn.Parameter, Tensor]] = []
        self._bound: tuple[nn.Module, MaskSet] | None = None

    def bind(
        self, model: nn.Module, optimizer: Optimizer, masks: MaskSet, example_input: Sequence[object] | None
    ) -> None:
        """Raises ConfigError where the model lacks a weight, or one is no matrix."""
        known = dict(model.named_parameters())
        for weight in self.weights:
            if weight not in known:
                raise ConfigError(Fault("weights", "the model has no such weight", weight, close_match(weight, known)))
            if known[weight].dim() < 2:
                raise ConfigError(Fault("weights", "must have two or more dimensions", weight, "leave it out"))
        self._bound = (model, masks)

    def says(self, when: PolicyTime) -> str:
        adapted = self.weights or tuple(self.adapters)
        return f"trains adapters of {weights_text(adapted) if adapted else 'the pruned weights'}, rank {self.rank}"

    @property
    def may_draw(self) -> bool:
        return False

    @torch.no_grad()
    def on_epoch_begin(self, when: PolicyTime) -> None:
        _, masks = self._where()
        for name, adapter in self.adapters.items():
            weight = masks.parameter(name)
            made = adapter.merged(self.scale, self._mask(name))
            if made.shape != weight.shape or float((made - weight).abs().max()) > _SAME * float(weight.abs().max()):
                self._forget()
                return

    @torch.no_grad()
    def on_minibatch_begin(self, step: Step) -> None:
        """Adapters begin behind all that the epoch begins with, whatever the order of the file."""
        if not self.adapters:
            _, masks = self._where()
            names = [*self.weights] or [name for name in masks.names() if masks.parameter(name).dim() > 1]
            for seed, name in enumerate(names):
                self.adapters[name] = adapter_of(masks.parameter(name).data, self.rank, seed)
            self._optimizer = self._adam()

    @torch.no_grad()
    def before_parameter_optimization(self, step: Step) -> None:
        model, masks = self._where()
        if not model.training or self._optimizer is None:  # a look at minibatches from which nothing is learned
            return
        weights = {name: masks.parameter(name) for name in self.adapters}
        whole = all(bool(w.grad.isfinite().all()) for w in weights.values() if w.grad is not None)
        for name, weight in weights.items():
            if weight.grad is not None:
                self.adapters[name].take_gradient(weight.grad, self.scale, self._mask(name))
        if whole:  # scaled gradients may overflow; such a step is left out
            self._optimizer.step()
            for name, weight in weights.items():
                weight.data.copy_(self.adapters[name].merged(self.scale, self._mask(name)))
        self._optimizer.zero_grad()
        for parameter in weights.values() if self.train_others else model.parameters():
            if parameter.grad is not None:
                self._withheld.append((parameter, parameter.grad))
                parameter.grad = None  # who has no gradient is not moved, by weight decay or momentum either

    def on_minibatch_end(self, step: Step) -> None:
        """Who wrote the loop may hold gradients in tensors of its own: they are given back."""
        for parameter, gradient in self._withheld:
            parameter.grad = gradient
        self._withheld = []

    def on_structure_change(self, happened: StructureChange) -> None:
        self._forget()

    def state_dict(self) -> dict[str, object]:
        if self._optimizer is None:
            return {}
        kept = {
            name: {"base": each.base.clone(), "down": each.down.detach().clone(), "up": each.up.detach().clone()}
            for name, each in self.adapters.items()
        }
        return {"adapters": kept, "optimizer": self._optimizer.state_dict()}

    def load_state_dict(self, state: Mapping[str, object]) -> None:
        self._forget()
        if not state:
            return
        _, masks = self._where()
        for name, kept in cast(Mapping[str, Mapping[str, Tensor]], state["adapters"]).items():
            base, down, up = (kept[part].detach().clone().to(masks.parameter(name)) for part in ("base", "down", "up"))
            self.adapters[name] = Adapter(base, down.requires_grad_(), up.requires_grad_())
        self._optimizer = self._adam()
        self._optimizer.load_state_dict(cast(dict[str, Any], state["optimizer"]))

    def _adam(self) -> Optimizer:
        return torch.optim.Adam([part for each in self.adapters.values() for part in (each.down, each.up)], lr=self.lr)

    def _forget(self) -> None:
        """The weights hold what the adapters have learned."""
        self.adapters, self._optimizer = {}, None

    def _mask(self, name: str) -> Tensor | None:
        _, masks = self._where()
        return masks[name] if name in masks.names() else None

    def _where(self) -> tuple[nn.Module, MaskSet]:
        if self._bound is None:
            raise ConfigError(Fault(self.name, "has no model yet", way_out="call bind first"))
        return self._bound
