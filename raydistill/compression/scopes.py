"""Among what: which groups of several weights are kept, by their scores, where one level is given for all of them.

A `Scope` of one's own is named in a schedule as ``pkg.mod:SCOPE``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from raydistill.compression.masks import pruned_count, smallest_mask


@dataclass(frozen=True)
class Scope:
    """A named choice among the groups of several weights.

    keep: (scores, shapes, level) to what is kept: by weight name, shape (groups,), 1 keeps and 0 prunes. scores: by
    weight name, shape (groups,), the smallest go first. shapes: of the weights. level: in [0, 1], of all groups.
    """

    name: str
    keep: Callable[[Mapping[str, Tensor], Mapping[str, tuple[int, ...]], float], Mapping[str, Tensor]]

    def fault(self) -> str:
        """What keeps a scope of one's own from being used, as two weights of 4 and 6 groups show it; "" if nothing."""
        scores = {"a": torch.tensor([0.5, 0.1, 0.4, 0.3]), "b": torch.tensor([0.9, 0.2, 0.6, 0.8, 0.7, 1.0])}
        shapes = {"a": (4, 2), "b": (6, 3)}
        try:
            with torch.random.fork_rng(devices=[]):
                keeps = dict(self.keep(scores, shapes, 0.5))
        except Exception as error:
            return f"fails on two weights of 4 and 6 groups ({type(error).__name__}: {error})"
        given = {name: keep.shape for name, keep in keeps.items() if isinstance(keep, Tensor)}
        if given != {name: score.shape for name, score in scores.items()}:
            return "must give one tensor a weight, of the shape of its scores"
        if not all(bool(((keep == 0) | (keep == 1)).all()) for keep in keeps.values()):
            return "must give 1 for what is kept and 0 for what is pruned, and nothing else"
        return ""


def layer_masks(scores: Mapping[str, Tensor], shapes: Mapping[str, tuple[int, ...]], level: float) -> dict[str, Tensor]:
    """Each weight to the level by itself."""
    return {name: smallest_mask(score, level) for name, score in scores.items()}


def global_masks(
    scores: Mapping[str, Tensor], shapes: Mapping[str, tuple[int, ...]], level: float
) -> dict[str, Tensor]:
    """One threshold over all scores; each weight keeps its best group even if that is below it.

    scores: by weight name, shape (groups,). The number pruned is `pruned_count` of all groups, less those kept so.
    """
    flat = torch.cat([score.reshape(-1) for score in scores.values()])
    keep = smallest_mask(flat, level)
    masks = dict(zip(scores, keep.split([score.numel() for score in scores.values()]), strict=True))
    for name, mask in masks.items():
        if not bool(mask.any()):
            mask[int(scores[name].argmax())] = 1
    return masks


def erk_masks(scores: Mapping[str, Tensor], shapes: Mapping[str, tuple[int, ...]], level: float) -> dict[str, Tensor]:
    """Each weight to its own of the `erk_levels`."""
    levels = erk_levels(shapes, level)
    return {name: smallest_mask(score, levels[name]) for name, score in scores.items()}


def erk_levels(shapes: Mapping[str, tuple[int, ...]], level: float) -> dict[str, float]:
    """Sparsity of each weight so that densities go by (sum of dims) / (product of dims) and `level` holds in total.

    Weights whose density would pass 1 stay dense, and the others share the rest.
    """
    sizes = {name: math.prod(shape) for name, shape in shapes.items()}
    raw = {name: sum(shape) / math.prod(shape) for name, shape in shapes.items()}
    kept = sum(sizes.values()) - pruned_count(level, sum(sizes.values()))
    dense: set[str] = set()
    while True:
        sparse = [name for name in shapes if name not in dense]
        room = kept - sum(sizes[name] for name in dense)
        if not sparse or room <= 0:
            scale = 0.0
            break
        scale = room / sum(raw[name] * sizes[name] for name in sparse)
        over = [name for name in sparse if scale * raw[name] > 1.0]
        if not over:
            break
        dense.update(over)
    return {name: 0.0 if name in dense else 1.0 - scale * raw[name] for name in shapes}


LAYER = Scope("layer", layer_masks)
GLOBAL = Scope("global", global_masks)
ERK = Scope("erk", erk_masks)

MENU: dict[str, Scope] = {scope.name: scope for scope in (LAYER, GLOBAL, ERK)}
