"""What of a network can be pruned by structures, as a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from raydistill.compression.thinning.coupling import Coupling, Offer, couplings
from raydistill.compression.thinning.depth import Blocks, blocks_of
from raydistill.compression.thinning.inputs import Example
from raydistill.compression.thinning.verify import parameter_count

BLOCKS = "Blocks"
NO_BLOCKS = Blocks()


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


@dataclass(frozen=True)
class KindRow:
    """All couplings of one kind. structures: how many there are in all of them. share: what is in one of
    these of the network's parameters, in [0, 1]."""

    kind: str
    couplings: int
    structures: int
    share: float


@dataclass(frozen=True)
class StayRow:
    """Layers that can lose nothing, for one reason."""

    reason: str
    layers: tuple[str, ...]


def structures_by_kind(offer: Offer, model: nn.Module, blocks: Blocks = NO_BLOCKS) -> tuple[KindRow, ...]:
    """What a network offers, in a few lines."""
    total = parameter_count(model)
    by_kind: dict[str, list[Coupling]] = {}
    for each in offer.couplings:
        by_kind.setdefault(each.kind, []).append(each)
    rows = [
        KindRow(kind, len(found), sum(each.count for each in found), _held(found, model) / total)
        for kind, found in by_kind.items()
    ]
    depth = _depth(blocks, model)
    if depth is not None:
        rows.append(KindRow(depth.structures, 1, depth.count, depth.share or 0.0))
    return tuple(rows)


def _depth(blocks: Blocks, model: nn.Module) -> StructureRow | None:
    """All blocks that can go, in one row."""
    names = {parameter for name in blocks.innermost for parameter in blocks.parameters[name]}
    if not names:
        return None
    total = parameter_count(model)
    share = sum(model.get_parameter(name).numel() for name in names) / total
    return StructureRow(blocks.innermost[0], BLOCKS, len(blocks.innermost), len(names), share, "")


def stays(offer: Offer, model: nn.Module) -> tuple[StayRow, ...]:
    """What it does not offer, and why; reasons of the most layers first."""
    by_reason: dict[str, list[str]] = {}
    for layer in _kept(offer, _order(model)):
        by_reason.setdefault(offer.refused[layer], []).append(layer)
    rows = [StayRow(reason, tuple(layers)) for reason, layers in by_reason.items()]
    return tuple(sorted(rows, key=lambda row: -len(row.layers)))


def structure_table(model: nn.Module, example: Example) -> tuple[StructureRow, ...]:
    """Couplings in the order of the model's layers, all blocks that can go, then what stays and why.

    Raises:
        ConfigError: the model does not run on these inputs.
    """
    offer = couplings(model, example)
    order = _order(model)
    total = parameter_count(model)
    found = sorted(offer.couplings, key=lambda each: order.get(each.name, -1))
    rows = [
        StructureRow(
            each.name,
            each.kind,
            each.count,
            len({part.weight for part in each.slices}),
            _held([each], model) / total,
            "",
        )
        for each in found
    ]
    depth = _depth(blocks_of(model, example), model)
    rows += [] if depth is None else [depth]
    kept = _kept(offer, order)
    return (*rows, *(StructureRow(layer, "", 0, 0, None, offer.refused[layer]) for layer in kept))


def _order(model: nn.Module) -> dict[str, int]:
    return {name: index for index, (name, _) in enumerate(model.named_modules())}


def _kept(offer: Offer, order: Mapping[str, int]) -> list[str]:
    """Layers of which nothing can go, in the model's order."""
    inside = {name.rpartition(".")[0] for each in offer.couplings for name in each.writers}
    return sorted(set(offer.refused) - inside, key=lambda layer: order.get(layer, -1))


def _held(couplings: Sequence[Coupling], model: nn.Module) -> int:
    """How many elements of the model's weights are in one of these."""
    masks: dict[str, Tensor] = {}
    for coupling in couplings:
        weights = {part.weight: model.get_parameter(part.weight).detach() for part in coupling.slices}
        for name, mask in coupling.expand(torch.zeros(coupling.count), weights).items():
            masks[name] = masks[name] * mask if name in masks else mask
    return sum(int((mask == 0).sum()) for mask in masks.values())
