"""What of a network can be pruned by structures, as a table."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from raydistill.compression.thinning.coupling import Coupling, couplings
from raydistill.compression.thinning.inputs import Example


@dataclass(frozen=True)
class StructureRow:
    """One coupling, or a layer that cannot lose any.

    layer: the first that writes them. structures: their kind, "" where none can go. count: how many there are.
    weights: how many weights hold a part. share: of the network's parameters that go with them, in [0, 1]. kept: why
    none can go.
    """

    layer: str
    structures: str
    count: int
    weights: int
    share: float | None
    kept: str


def structure_table(model: nn.Module, example: Example) -> tuple[StructureRow, ...]:
    """Couplings in the order of the model's layers, then what stays and why.

    Raises:
        ConfigError: the model does not run on these inputs.
    """
    offer = couplings(model, example)
    order = {name: index for index, (name, _) in enumerate(model.named_modules())}
    total = sum(parameter.numel() for parameter in model.parameters())
    found = sorted(offer.couplings, key=lambda each: order.get(each.name, -1))
    rows = [
        StructureRow(
            each.name, each.kind, each.count, len({part.weight for part in each.slices}), _held(each, model) / total, ""
        )
        for each in found
    ]
    inside = {name.rpartition(".")[0] for each in found for name in each.writers}
    kept = sorted(set(offer.refused) - inside, key=lambda layer: order.get(layer, -1))
    return (*rows, *(StructureRow(layer, "", 0, 0, None, offer.refused[layer]) for layer in kept))


def _held(coupling: Coupling, model: nn.Module) -> int:
    """How many elements of the model's weights are in it."""
    weights = {part.weight: model.get_parameter(part.weight) for part in coupling.slices}
    masks = coupling.expand(torch.zeros(coupling.count), {name: weight.detach() for name, weight in weights.items()})
    return sum(int((mask == 0).sum()) for mask in masks.values())
