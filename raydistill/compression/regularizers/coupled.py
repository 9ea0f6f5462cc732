"""Penalties on structures that several layers share, over all of their parts together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from raydistill.compression.pruners.arguments import checked_number
from raydistill.compression.pruners.base import Moment
from raydistill.compression.pruners.coupled import STRUCTURES, CoupledPruner
from raydistill.compression.rates import PolicyTime
from raydistill.compression.regularizers.base import Regularizer
from raydistill.compression.structure import StructureChange
from raydistill.errors import ConfigError, Fault

_ONCE = PolicyTime(0, 0, 1, 1)


class _Coupled(Regularizer):
    """Of the structures that a `CoupledPruner` of these arguments would prune; a weight is never looked at alone."""

    def __init__(self, name: str, pruner: CoupledPruner) -> None:
        self._pruner = pruner
        super().__init__(name, pruner.weights, None)

    def bind(self, model: nn.Module, example_input: Sequence[object] | None) -> None:
        self._pruner.bind(model, example_input)
        self.weights = self._pruner.weights

    def on_structure_change(self, happened: StructureChange) -> None:
        self._pruner.on_structure_change(happened)

    def term(self, weight_name: str, weight: Tensor) -> Tensor:
        raise NotImplementedError("structures are penalized over all of their weights together")


class CoupledGroupLassoRegularizer(_Coupled):
    """Adds strength * sum over structures of the Euclidean norm of all their parts: rows that write a channel and
    columns that read it shrink together (Yuan and Lin 2006; over coupled layers Fang et al. 2023, arXiv 2301.12900).

    weights: those that write the structures; structures: see `CoupledPruner`.
    """

    def __init__(
        self,
        name: str,
        strength: float,
        weights: list[str],
        structures: list[str] | str = list(STRUCTURES[:-1]),  # noqa: B006 - never changed; shown as the default
    ) -> None:
        self.strength = checked_number("strength", strength, 0.0)
        super().__init__(name, CoupledPruner(name, 0.0, weights, structures))

    def loss(self, weights: Mapping[str, Tensor], loss: Tensor) -> Tensor:
        for coupling in self._pruner.couplings:
            parts = torch.cat([part.of(weights[part.weight]) for part in coupling.slices], dim=1)
            loss = loss + self.strength * torch.linalg.vector_norm(parts, dim=1).sum()
        return loss


class GrowingRegularizer(_Coupled):
    """A penalty that grows on the structures that are to go, so that little is left of them once they are pruned
    (Wang et al. 2021, GReg-1, arXiv 2012.09243): adds half of it times the sum of their weights' squares.

    final_sparsity, weights, structures, ranking, reduction, scope: as `CoupledPruner` has them, which prunes the same
    ones afterwards; they are chosen at the first minibatch. penalty_step: what the penalty begins with, and grows by
    every so many (`every`) minibatches, up to `ceiling`; the paper's values are the defaults.
    """

    def __init__(
        self,
        name: str,
        final_sparsity: float,
        weights: list[str],
        structures: list[str] | str = list(STRUCTURES[:-1]),  # noqa: B006
        ranking: str = "magnitude",
        reduction: str = "mean",
        scope: str = "layer",
        penalty_step: float = 1e-4,
        every: int = 10,
        ceiling: float = 1.0,
    ) -> None:
        pruner = CoupledPruner(
            name,
            final_sparsity,
            weights,
            structures,
            rate="one_shot",
            ranking=ranking,
            reduction=reduction,
            scope=scope,
        )
        if pruner.evidence != "none":
            raise ConfigError(Fault("ranking", "must rank by the weights alone", ranking, "such as magnitude"))
        if isinstance(every, bool) or not isinstance(every, int) or every < 1:
            raise ConfigError(Fault("every", "must be a whole number of minibatches from 1 up", every))
        self.penalty_step = checked_number("penalty_step", penalty_step, 0.0)
        self.ceiling = checked_number("ceiling", ceiling, 0.0)
        self.every = every
        self._seen = 0
        self._going: dict[str, Tensor] = {}
        super().__init__(name, pruner)

    @property
    def penalty(self) -> float:
        """At the present minibatch."""
        return min(self.ceiling, self.penalty_step * (self._seen // self.every + 1))

    def loss(self, weights: Mapping[str, Tensor], loss: Tensor) -> Tensor:
        if not self._going:
            with torch.no_grad():
                masks = self._pruner.masks({name: weight.detach() for name, weight in weights.items()}, Moment(_ONCE))
            self._going = {name: (mask == 0).to(mask.dtype) for name, mask in masks.items()}
        squares = [(weight.square() * self._going[name].to(weight)).sum() for name, weight in weights.items()]
        loss = loss + 0.5 * self.penalty * torch.stack(squares).sum()
        self._seen += 1
        return loss

    def on_structure_change(self, happened: StructureChange) -> None:
        super().on_structure_change(happened)
        happened.follow(self._going)

    def state_dict(self) -> dict[str, object]:
        return {"seen": self._seen, "going": {name: value.clone() for name, value in self._going.items()}}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._seen = int(state["seen"])
        self._going = {name: value.clone() for name, value in cast(Mapping[str, Tensor], state["going"]).items()}
