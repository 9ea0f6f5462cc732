"""What may be pruned of a network, and how far: the ranges that a search begins with where nothing was measured.

They follow what is usual (Han et al. 2015, arXiv 1506.02626, section 4; Gale et al. 2019, arXiv 1902.09574, section 6):
the first layer has few weights and bears little, the last one somewhat less than those between, large layers the most.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from torch import nn

from raydistill.compression import weights as weights_of
from raydistill.compression.layer_kinds import weighted
from raydistill.errors import ABSENT, ConfigError, Fault

MOST_DIMENSIONS = 24
"""A network with more layers is searched by blocks: so many trials as are usual cannot tell more values apart."""
_OF_A_LAYER = re.compile(r"(^|[._])weight[^.]*$")
"""``conv.weight``, ``lstm.weight_ih_l0``, ``attention.in_proj_weight``; not ``encoder.pos_embedding``."""
_LARGE = 0.1
"""A layer with this share of all weights is a large one."""


@dataclass(frozen=True)
class Range:
    """Weights whose final sparsities are drawn between the same bounds. name: of its pruner. note: what they are."""

    name: str
    weights: tuple[str, ...]
    low: float
    high: float
    note: str


def ranges(model: nn.Module, blocks: bool = True) -> tuple[list[Range], list[str]]:
    """What may be pruned of a network, and how far: one for each weight, or, if so, for each block of a network that
    has more than `MOST_DIMENSIONS`. And the names of what is left dense, as it is no layer's weight.

    Raises:
        ConfigError: there is no weight to prune.
    """
    owners = {
        f"{prefix}.{name}" if prefix else name: module
        for prefix, module in model.named_modules()
        for name, _ in module.named_parameters(recurse=False)
    }
    named = [(name, weight) for name, weight in weights_of(model) if weight.numel()]
    layers = [(name, weight) for name, weight in named if _OF_A_LAYER.search(name)]
    if not layers:
        raise ConfigError(Fault("--arch", "the network has no weight that can be pruned", ABSENT, "choose another"))
    whole = sum(weight.numel() for _, weight in layers)
    ordinary = [name for name, _ in layers if not isinstance(owners.get(name), nn.Embedding)]
    found = []
    for name, weight in layers:
        module, share = owners.get(name), weight.numel() / whole
        kind = weighted(module) if module is not None else None
        size = f"{'x'.join(map(str, weight.shape))}, {100 * share:.1f} %"
        if isinstance(module, nn.Embedding):
            low, high, about = 0.1, 0.9, "; an embedding"
        elif kind is not None and module is not None and kind.is_depthwise(module):
            low, high, about = 0.0, 0.5, "; depthwise"
        elif len(ordinary) > 2 and name == ordinary[0] and share < _LARGE:
            low, high, about = 0.0, 0.6, "; the first layer"
        elif len(ordinary) > 2 and name == ordinary[-1]:
            low, high, about = 0.2, 0.9, "; the last layer"
        elif share >= _LARGE:
            low, high, about = 0.4, 0.98, ""
        else:
            low, high, about = 0.2, 0.9, ""
        found.append(Range("agp", (name,), low, high, size + about))
    dense = [name for name, _ in named if name not in {name for name, _ in layers}]
    if blocks and len(found) > MOST_DIMENSIONS:
        found = _blocks(found, {name: weight.numel() / whole for name, weight in layers})
    return found, dense


def structure_ranges(model: nn.Module, example: Sequence[object]) -> list[Range]:
    """One for each coupling of structures of a network, by the first weight that writes them.

    Raises:
        ConfigError: there are none that can go.
    """
    from raydistill.compression.pruners.coupled import CoupledPruner  # its module imports Torch-Pruning when asked
    from raydistill.compression.thinning.coupling import EMBEDDING, couplings

    offer = couplings(model, tuple(example))
    order = {name: place for place, (name, _) in enumerate(model.named_parameters())}
    found = []
    for each in sorted(offer.couplings, key=lambda coupling: order[coupling.writers[0]]):
        if each.count < 2 or each.kind == EMBEDDING or each.tied:  # those that lose alike have no level of their own
            continue
        writer = min(each.writers, key=lambda name: order[name])
        layers = f", {len(each.writers)} layers" if len(each.writers) > 1 else ""
        found.append(Range("structures", (writer,), 0.0, 0.9, f"{each.count} {each.kind.lower()}{layers}"))
    if not found:
        why = next(iter(offer.refused.values()), "it has none")
        rule = f"{CoupledPruner.__name__} finds no structures of the network that can go ({why})"
        raise ConfigError(Fault("--goal", rule, ABSENT, "ask for sparsity, parameters or compressed_size_bytes"))
    return found


def wide(found: Sequence[Range]) -> list[Range]:
    """Each layer's damage is measured before the first trial: no bound has to be guessed."""
    return [replace(one, low=0.0, high=max(one.high, 0.9)) for one in found]


def _blocks(found: Sequence[Range], shares: Mapping[str, float]) -> list[Range]:
    """Ranges of a block together: as deep as names go without making more than `MOST_DIMENSIONS` of them."""
    names = [one.weights[0] for one in found]
    groups: dict[str, list[Range]] = {}
    for depth in range(1, max(name.count(".") for name in names) + 1):
        deeper: dict[str, list[Range]] = {}
        for one in found:
            parts = one.weights[0].split(".")[:-1]
            deeper.setdefault(".".join(parts[:depth]), []).append(one)
        if groups and len(deeper) > MOST_DIMENSIONS:
            break
        groups = deeper if len(deeper) > len(groups) else groups
    blocks = []
    for prefix, inside in groups.items():
        weights = tuple(name for one in inside for name in one.weights)
        share = math.fsum(shares[name] for name in weights)
        # what the largest layer bears; the first or last of all, if there are others as large, does not speak for them
        most = max(inside, key=lambda one: (shares[one.weights[0]], one.high))
        count = f"{len(weights)} weights" if len(weights) > 1 else most.note.partition(",")[0]
        about = most.note.partition(";")[2] if len(weights) == 1 else ""
        note = f"{count}, {100 * share:.1f} %" + (f";{about}" if about else "")
        label = re.sub(r"[^A-Za-z0-9_]", "_", prefix) or "weights"
        blocks.append(Range(label, weights, most.low, most.high, note))
    return blocks
