"""The composition itself as a class of schedule files: rate x ranking x granularity x scope."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from raydistill.compression import rankings, rates
from raydistill.compression.granularity import ELEMENT, Granularity, granularity
from raydistill.compression.masks import pruned_count, smallest_mask
from raydistill.compression.pruners.arguments import checked_leader, checked_rise, checked_weights
from raydistill.compression.pruners.base import ComposedPruner, Moment
from raydistill.compression.rates import PolicyTime
from raydistill.errors import ConfigError, Fault, close_match

SCOPES = ("layer", "global", "erk")


class RankedPruner(ComposedPruner):
    """Any rate with any ranking and granularity.

    initial_sparsity, final_sparsity: fractions in [0, 1). rate: cubic (AGP), linear, cosine, one_shot.
    ranking: magnitude (l1), l2, taylor, snip, movement, random, apoz, mean_activation, bn_scale; see `rankings`.
    granularity: Element, Filters, Channels, Rows, Cols, 2D, 4D, Blocks (with block_shape); see `granularity`.
    scope: ``layer``: each weight to the level; ``global``: one threshold for all weights together, with at least one
    group left in each; ``erk``: levels by Erdos-Renyi-kernel density (Evci et al. 2020, arXiv 1911.11134, app. B),
    the level in total. group_dependency: ``Leader``: the first weight decides for all (scope layer).
    """

    def __init__(
        self,
        name: str,
        final_sparsity: float,
        weights: list[str],
        initial_sparsity: float = 0.0,
        rate: str = "cubic",
        ranking: str = "magnitude",
        granularity: str = "Element",
        scope: str = "layer",
        group_dependency: str | None = None,
        block_shape: list[int] | None = None,
    ) -> None:
        initial, final = checked_rise(initial_sparsity, final_sparsity)
        _one_of("rate", rate, rates.MENU)
        _one_of("ranking", ranking, rankings.MENU)
        _one_of("scope", scope, SCOPES)
        leader = checked_leader(group_dependency)
        if leader and scope != "layer":
            raise ConfigError(Fault("scope", "must be layer where group_dependency is Leader", scope))
        curve = rates.MENU[rate](initial, final)
        names = checked_weights("weights", weights)
        super().__init__(
            name,
            dict.fromkeys(names, curve),
            rankings.MENU[ranking],
            _granularity(granularity, block_shape),
            leader=leader,
        )
        self.scope = scope
        self._curve = curve

    def masks(self, weights: Mapping[str, Tensor], moment: Moment) -> dict[str, Tensor]:
        if self.scope == "layer":
            return super().masks(weights, moment)
        level = self._curve(moment.when)
        scores = {name: self.scores(weight, moment.evidence.get(name)) for name, weight in weights.items()}
        if self.scope == "global":
            keeps = global_masks(scores, level)
        else:
            levels = erk_levels({name: tuple(weight.shape) for name, weight in weights.items()}, level)
            keeps = {name: smallest_mask(score, levels[name]) for name, score in scores.items()}
        return {name: self.granularity.expand(keeps[name], weight) for name, weight in weights.items()}


class NMPruner(ComposedPruner):
    """N:M semi-structured sparsity: of every `m` adjacent inputs the `n` largest stay (Mishra et al. 2021, arXiv
    2104.08378); 2:4 runs on sparse tensor cores. Inputs are dim 1: of a convolution, channels at one kernel position.
    """

    def __init__(self, name: str, weights: list[str], n: int = 2, m: int = 4, ranking: str = "magnitude") -> None:
        for argument, value in (("n", n), ("m", m)):
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ConfigError(Fault(argument, "must be a whole number from 1 up", value))
        if n > m:
            raise ConfigError(Fault("n", f"must not be above m, {m}", n, "n of every m weights stay"))
        _one_of("ranking", ranking, rankings.MENU)
        if rankings.MENU[ranking].filters_only:
            raise ConfigError(Fault("ranking", "must rank single weights", ranking, "such as magnitude"))
        level = rates.constant(1.0 - n / m)
        super().__init__(name, dict.fromkeys(checked_weights("weights", weights), level), rankings.MENU[ranking])
        self._n, self._m = n, m

    def fault_of(self, weight_name: str, weight: Tensor) -> str:
        if weight.dim() < 2:
            return f"needs a weight of 2 or more dimensions, this one has {weight.dim()}"
        if weight.shape[1] % self._m:
            return f"m = {self._m} does not divide its {weight.shape[1]} inputs"
        return ""

    def _mask(self, name: str, weight: Tensor, when: PolicyTime, evidence: Tensor | None) -> Tensor:
        scores = self.scores(weight, evidence).reshape(weight.shape)
        inputs_last = scores.movedim(1, -1)
        rows = inputs_last.reshape(-1, self._m)
        kept = rows.sort(dim=1, descending=True, stable=True).indices[:, : self._n]
        mask = torch.zeros_like(rows).scatter_(1, kept, 1.0)
        return mask.reshape(inputs_last.shape).movedim(-1, 1)


def global_masks(scores: Mapping[str, Tensor], level: float) -> dict[str, Tensor]:
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


def _granularity(name: object, block_shape: Any) -> Granularity:
    return ELEMENT if name == "Element" and block_shape is None else granularity("granularity", name, block_shape)


def _one_of(argument: str, value: object, menu: Any) -> None:
    if value not in menu:
        way_out = close_match(value, menu) if isinstance(value, str) else ""
        raise ConfigError(Fault(argument, f"must be one of {', '.join(menu)}", value, way_out))
