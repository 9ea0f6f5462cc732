"""What a plan removed and what it kept, as the report counts it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping

from torch import nn

from raydistill.compression.layer_kinds import weighted
from raydistill.compression.thinning.decide import CHANNELS, FILTERS, Plan
from raydistill.compression.thinning.graph import NOTHING, Graph
from raydistill.compression.thinning.pieces import Piece
from raydistill.compression.thinning.report import Kept


def removed(plan: Plan, graph: Graph, model: nn.Module) -> dict[str, int]:
    """Rows that weighted layers lose, in the model's order."""
    lost = {layer: len(which) for (layer, is_column), which in plan.leaving(graph).items() if not is_column}
    return {name: lost[name] for name, module in model.named_modules() if name in lost and weighted(module)}


def outside(model: nn.Module, pieces: Collection[Piece], structures: Collection[str]) -> tuple[Kept, ...]:
    """Zeroed rows and columns of layers that are in none of these."""
    counts: Counter[tuple[str, str]] = Counter()
    for name, module in model.named_modules():
        kind = weighted(module)
        if kind is None or any(piece.holds(name) for piece in pieces):
            continue
        for structure in structures:
            if structure == FILTERS or not kind.is_depthwise(module):
                zero = kind.zero_columns(module) if structure == CHANNELS else kind.zero_rows(module)
                counts[f"{name}.{kind.weight}", structure] += int(zero.sum())
    why = "is in a part that cannot be traced"
    return tuple(Kept(weight, structure, count, why) for (weight, structure), count in counts.items() if count)


def kept(
    plan: Plan, graph: Graph, model: nn.Module, structures: Collection[str], fixed: Mapping[str, str] = NOTHING
) -> tuple[Kept, ...]:
    """Zeroed rows and columns of the full-width model that stay, counted by weight and reason.

    fixed: by layer, why nothing goes of it inside its block.
    """
    leaving = plan.leaving(graph)
    reasons: dict[tuple[str, str], dict[int, str]] = {}
    for index, group in enumerate(graph.groups):
        for member in group.members:
            structure = CHANNELS if member.side == "in" else FILTERS
            known = reasons.setdefault((member.layer, structure), {})
            for position, channel in zip(member.where.tolist(), member.channels.tolist(), strict=True):
                known[position] = group.blocked or plan.reasons.get(index, {}).get((structure, channel), "")
    counts: Counter[tuple[str, str, str]] = Counter()
    for name, module in model.named_modules():
        kind = weighted(module)
        if kind is None:
            continue
        weight = f"{name}.{kind.weight}" if name else kind.weight
        for structure in structures:
            if structure == CHANNELS and kind.is_depthwise(module):
                continue
            zero = kind.zero_columns(module) if structure == CHANNELS else kind.zero_rows(module)
            if (name, structure == CHANNELS) in leaving:
                zero[leaving[name, structure == CHANNELS]] = False
            known = reasons.get((name, structure), {})
            other = "reads an input of the network" if (name, FILTERS) in reasons else "not on the traced path"
            for position in zero.nonzero().flatten().tolist():
                reason = fixed.get(name) or known.get(position) or other
                counts[weight, structure, reason] += 1
    return tuple(Kept(weight, structure, count, reason) for (weight, structure, reason), count in counts.items())
