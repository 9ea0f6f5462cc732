"""Pruners of structures under Distiller's names: each is one ranking, one granularity and a rate.

Arguments they share. group_type: see `granularity`; here, as in Distiller, ``Rows`` of a matrix are its inputs (dim 1),
because it thinks of the transposed matrix. desired_sparsity: fraction of groups in [0, 1). weights: parameter names.
group_dependency: ``Leader``: the first weight decides for all. kwargs: ``block_shape`` for group type Blocks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from raydistill.compression import rankings
from raydistill.compression.granularity import CHANNELS, Granularity, granularity
from raydistill.compression.masks import smallest_mask
from raydistill.compression.pruners.arguments import (
    checked_leader,
    checked_level,
    checked_number,
    checked_rise,
    checked_weights,
)
from raydistill.compression.pruners.base import ComposedPruner
from raydistill.compression.rankings import Ranking
from raydistill.compression.rates import PolicyTime, Rate, constant, cubic
from raydistill.errors import ConfigError, Fault, close_match

_NORM_TYPES = ("3D", "Filters", "Channels", "Rows", "Blocks")
_FILTER_TYPES = ("3D", "Filters")


def _structure(group_type: object, kwargs: object, allowed: tuple[str, ...]) -> Granularity:
    extra = {} if kwargs is None else kwargs
    if not isinstance(extra, Mapping):
        raise ConfigError(Fault("kwargs", "must be a mapping", kwargs, "such as {block_shape: [1, 8, 1, 1]}"))
    for key in extra:
        if key != "block_shape":
            raise ConfigError(Fault(f"kwargs.{key}", "unknown argument", extra[key], close_match(key, ["block_shape"])))
    if group_type == "Rows" and "Rows" in allowed:
        return CHANNELS
    any_groups = allowed is _NORM_TYPES
    return granularity("group_type", group_type, extra.get("block_shape"), lambda name: name in allowed, any_groups)


class _Structured(ComposedPruner):
    """Ranking and granularity at one level a policy."""

    ranking_used: Ranking
    group_types: tuple[str, ...] = _FILTER_TYPES

    def __init__(
        self,
        name: str,
        rate: Rate,
        group_type: str,
        weights: list[str],
        group_dependency: str | None,
        kwargs: Mapping[str, object] | None = None,
        group_size: int = 1,
        noise: float = 0.0,
    ) -> None:
        if isinstance(group_size, bool) or not isinstance(group_size, int) or group_size < 1:
            raise ConfigError(Fault("group_size", "must be a whole number from 1 up", group_size))
        super().__init__(
            name,
            dict.fromkeys(checked_weights("weights", weights), rate),
            self.ranking_used,
            _structure(group_type, kwargs, self.group_types),
            leader=checked_leader(group_dependency),
            group_size=group_size,
            noise=checked_number("noise", noise, 0.0, 1.0),
        )


class _Norm(_Structured):
    group_types = _NORM_TYPES

    def __init__(
        self,
        name: str,
        group_type: str,
        desired_sparsity: float,
        weights: list[str],
        group_dependency: str | None = None,
        kwargs: dict[str, object] | None = None,
        noise: float = 0.0,
        group_size: int = 1,
    ) -> None:
        rate = constant(checked_level("desired_sparsity", desired_sparsity))
        super().__init__(name, rate, group_type, weights, group_dependency, kwargs, group_size, noise)


class L1RankedStructureParameterPruner(_Norm):
    """Prunes the structures with the smallest mean absolute value (Li et al. 2017, arXiv 1608.08710)."""

    ranking_used = rankings.L1


class L2RankedStructureParameterPruner(_Norm):
    """Prunes the structures with the smallest Euclidean norm."""

    ranking_used = rankings.L2


class _NormAGP(_Structured):
    group_types = _NORM_TYPES

    def __init__(
        self,
        name: str,
        initial_sparsity: float,
        final_sparsity: float,
        group_type: str,
        weights: list[str],
        group_dependency: str | None = None,
        kwargs: dict[str, object] | None = None,
    ) -> None:
        rate = cubic(*checked_rise(initial_sparsity, final_sparsity))
        super().__init__(name, rate, group_type, weights, group_dependency, kwargs)


class L1RankedStructureParameterPruner_AGP(_NormAGP):
    """`L1RankedStructureParameterPruner` along AGP's cubic curve."""

    ranking_used = rankings.L1


class L2RankedStructureParameterPruner_AGP(_NormAGP):
    """`L2RankedStructureParameterPruner` along AGP's cubic curve."""

    ranking_used = rankings.L2


class RandomLevelStructureParameterPruner(_Structured):
    """Ranks structures by L1 norm, up to a level drawn anew, uniformly, for each weight at each decision.

    sparsity_range: [lowest, highest] level. Draws come from torch's global CPU generator.
    """

    ranking_used = rankings.L1
    group_types = _NORM_TYPES

    def __init__(
        self,
        name: str,
        group_type: str,
        sparsity_range: list[float],
        weights: list[str],
        group_dependency: str | None = None,
        kwargs: dict[str, object] | None = None,
    ) -> None:
        if not isinstance(sparsity_range, (list, tuple)) or len(sparsity_range) != 2:
            raise ConfigError(
                Fault("sparsity_range", "must be [lowest, highest]", sparsity_range, "such as [0.1, 0.2]")
            )
        self._low, self._high = (checked_level("sparsity_range", level) for level in sparsity_range)
        if self._high < self._low:
            raise ConfigError(Fault("sparsity_range", "has its ends swapped", sparsity_range, "lowest first"))
        super().__init__(name, constant(0.0), group_type, weights, group_dependency, kwargs)

    def level(self, weight_name: str, when: PolicyTime) -> float | None:
        return None

    def _keep(self, name: str, weight: Tensor, when: PolicyTime, evidence: Tensor | None) -> Tensor:
        level = self._low + (self._high - self._low) * float(torch.rand(()))
        return smallest_mask(self.scores(weight, evidence), level)


class _Filters(_Structured):
    def __init__(
        self,
        name: str,
        group_type: str,
        desired_sparsity: float,
        weights: list[str],
        group_dependency: str | None = None,
    ) -> None:
        rate = constant(checked_level("desired_sparsity", desired_sparsity))
        super().__init__(name, rate, group_type, weights, group_dependency)


class _FiltersAGP(_Structured):
    def __init__(
        self,
        name: str,
        initial_sparsity: float,
        final_sparsity: float,
        group_type: str,
        weights: list[str],
        group_dependency: str | None = None,
    ) -> None:
        rate = cubic(*checked_rise(initial_sparsity, final_sparsity))
        super().__init__(name, rate, group_type, weights, group_dependency)


class ActivationAPoZRankedFilterPruner(_Filters):
    """Prunes filters whose activations are zero most often (Hu et al. 2016, arXiv 1607.03250)."""

    ranking_used = rankings.APOZ


class ActivationAPoZRankedFilterPruner_AGP(_FiltersAGP):
    """`ActivationAPoZRankedFilterPruner` along AGP's cubic curve."""

    ranking_used = rankings.APOZ


class ActivationMeanRankedFilterPruner(_Filters):
    """Prunes filters with the smallest mean activation (Molchanov et al. 2017, arXiv 1611.06440)."""

    ranking_used = rankings.MEAN_ACTIVATION


class ActivationMeanRankedFilterPruner_AGP(_FiltersAGP):
    """`ActivationMeanRankedFilterPruner` along AGP's cubic curve."""

    ranking_used = rankings.MEAN_ACTIVATION


class GradientRankedFilterPruner(_Filters):
    """Prunes filters whose removal changes the loss least, to first order (Molchanov et al. 2017, arXiv 1611.06440)."""

    ranking_used = rankings.TAYLOR


class GradientRankedFilterPruner_AGP(_FiltersAGP):
    """`GradientRankedFilterPruner` along AGP's cubic curve."""

    ranking_used = rankings.TAYLOR


class RandomRankedFilterPruner(_Filters):
    """Prunes filters at random: the baseline for other rankings."""

    ranking_used = rankings.RANDOM


class RandomRankedFilterPruner_AGP(_FiltersAGP):
    """`RandomRankedFilterPruner` along AGP's cubic curve."""

    ranking_used = rankings.RANDOM


class _Bernoulli:
    """Each filter is dropped by itself with probability `level`; what stays is scaled up to keep the expected sum.

    DropFilter (Tian and Pan 2018, arXiv 1810.09849), after dropout. The mask is 0 or filters/kept. A draw that would
    drop every filter keeps one.
    """

    level: Callable[[str, PolicyTime], float | None]
    releases = True  # every draw stands for itself

    def _keep(self, name: str, weight: Tensor, when: PolicyTime, evidence: Tensor | None) -> Tensor:
        filters = weight.shape[0]
        keep = (torch.rand(filters) >= (self.level(name, when) or 0.0)).to(weight)
        if not bool(keep.any()):
            keep[int(torch.randint(filters, ()))] = 1
        return keep * (filters / keep.sum())


class BernoulliFilterPruner(_Bernoulli, _Filters):
    """DropFilter: filters are dropped by independent coin flips (see `_Bernoulli`)."""

    ranking_used = rankings.RANDOM


class BernoulliFilterPruner_AGP(_Bernoulli, _FiltersAGP):
    """`BernoulliFilterPruner` whose probability rises along AGP's cubic curve."""

    ranking_used = rankings.RANDOM
