"""The composition itself as a class of schedule files: rate x ranking x granularity x scope."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from raydistill.compression import rates, scopes
from raydistill.compression.granularity import ELEMENT, Granularity, granularity
from raydistill.compression.masks import largest_of_each_group
from raydistill.compression.pruners.arguments import (
    checked_leader,
    checked_pattern,
    checked_ranking,
    checked_rise,
    checked_weights,
    chosen,
    own_is_right,
)
from raydistill.compression.pruners.base import ComposedPruner, Moment
from raydistill.compression.rates import Curve, PolicyTime
from raydistill.compression.scopes import LAYER, Scope
from raydistill.errors import ConfigError, Fault


class RankedPruner(ComposedPruner):
    """Any rate with any ranking and granularity.

    initial_sparsity, final_sparsity: fractions in [0, 1). rate: cubic (AGP), linear, cosine, exponential, one_shot.
    ranking: magnitude (l1), l2, l1_norm, l2_squared, lamp, taylor, snip, obd, movement, geometric_median, random, apoz,
    mean_activation, bn_scale; see `rankings`.
    granularity: Element, Filters, Channels, Rows, Cols, 2D, 4D, Blocks (with block_shape); see `granularity`.
    scope: ``layer``: each weight to the level; ``global``: one threshold for all weights together, with at least one
    group left in each; ``erk``: levels by Erdos-Renyi-kernel density (Evci et al. 2020, arXiv 1911.11134, app. B),
    the level in total. Each may be one's own, as ``pkg.mod:NAME``: an object of class `Curve`, `Ranking`,
    `Granularity`, `Scope`. group_dependency: ``Leader``: the first weight decides for all (scope layer).
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
        curve = chosen("rate", rate, rates.MENU, Curve)
        own_is_right("rate", rate, curve.fault_between(initial, final) if ":" in rate else "")
        by = checked_ranking(ranking)
        over = chosen("scope", scope, scopes.MENU, Scope)
        own_is_right("scope", scope, over.fault() if ":" in scope else "")
        leader = checked_leader(group_dependency)
        if leader and over is not LAYER:
            raise ConfigError(Fault("scope", "must be layer where group_dependency is Leader", scope))
        names = checked_weights("weights", weights)
        super().__init__(
            name,
            dict.fromkeys(names, curve.rate(initial, final)),
            by,
            _granularity(granularity, block_shape),
            leader=leader,
        )
        self.scope = over
        self._rate = curve.rate(initial, final)

    def masks(self, weights: Mapping[str, Tensor], moment: Moment) -> dict[str, Tensor]:
        if self.scope is LAYER:
            return super().masks(weights, moment)
        scores = {name: self.scores(weight, moment.evidence.get(name)) for name, weight in weights.items()}
        shapes = {name: tuple(weight.shape) for name, weight in weights.items()}
        keeps = self.scope.keep(scores, shapes, self._rate(moment.when))
        return {name: self.granularity.expand(keeps[name], weight) for name, weight in weights.items()}


class NMPruner(ComposedPruner):
    """N:M semi-structured sparsity: of every `m` adjacent inputs the `n` largest stay (Mishra et al. 2021, arXiv
    2104.08378); 2:4 runs on sparse tensor cores. Inputs are dim 1: of a convolution, channels at one kernel position.
    """

    def __init__(self, name: str, weights: list[str], n: int = 2, m: int = 4, ranking: str = "magnitude") -> None:
        self._n, self._m = checked_pattern(n, m)
        by = checked_ranking(ranking)
        if by.filters_only:
            raise ConfigError(Fault("ranking", "must rank single weights", ranking, "such as magnitude"))
        level = rates.constant(1.0 - n / m)
        super().__init__(name, dict.fromkeys(checked_weights("weights", weights), level), by)

    def fault_of(self, weight_name: str, weight: Tensor) -> str:
        if weight.dim() < 2:
            return f"needs a weight of 2 or more dimensions, this one has {weight.dim()}"
        if weight.shape[1] % self._m:
            return f"m = {self._m} does not divide its {weight.shape[1]} inputs"
        return ""

    def _mask(self, name: str, weight: Tensor, when: PolicyTime, evidence: Tensor | None) -> Tensor:
        scores = self.scores(weight, evidence).reshape(weight.shape)
        return largest_of_each_group(scores.movedim(1, -1), self._n, self._m).movedim(-1, 1)


def _granularity(name: object, block_shape: object) -> Granularity:
    return ELEMENT if name == "Element" and block_shape is None else granularity("granularity", name, block_shape)
