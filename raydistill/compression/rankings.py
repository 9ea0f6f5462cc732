"""Which first: a score for every group of a weight; the groups with the smallest scores are pruned first.

A ranking maps (groups, evidence) to scores of shape (groups,). `groups` is the weight as (groups, elements), see
`granularity`. `evidence` is what some rankings need beside the weight, gathered during training (see `evidence`):

    none         nothing
    gradients    the loss's mean gradient, as (groups, elements)
    movement     the sum over steps of -weight * gradient, as (groups, elements)
    fisher       the mean over minibatches of the gradient squared, as (groups, elements)
    apoz, mean   one statistic a filter of the activations that follow it, as (groups,)
    bn_scale     the scale of the batch norm that follows, as (groups,)

A `Ranking` of one's own is named in a schedule as ``pkg.mod:RANKING``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from raydistill.errors import short

_OF_ELEMENTS = ("gradients", "movement", "fisher")
_OF_FILTERS = ("apoz", "mean", "bn_scale")


@dataclass(frozen=True)
class Ranking:
    """A named score. evidence: what it needs beside the weight. filters_only: it knows whole filters only."""

    name: str
    score: Callable[[Tensor, Tensor | None], Tensor]
    evidence: str = "none"
    filters_only: bool = False

    def fault(self) -> str:
        """What keeps a ranking of one's own from being used, as three groups of two show it; "" if nothing does."""
        kinds = ("none", *_OF_ELEMENTS, *_OF_FILTERS)
        if self.evidence not in kinds:
            return f"has evidence {short(self.evidence)}, it must be one of {', '.join(kinds)}"
        if self.evidence in _OF_FILTERS and not self.filters_only:
            return f"has evidence {self.evidence}, which knows whole filters: it must have filters_only=True"
        groups = torch.tensor([[0.5, -1.0], [2.0, 0.25], [-0.125, 0.75]])
        evidence = {"none": None, **dict.fromkeys(_OF_FILTERS, groups[:, 0])}.get(self.evidence, groups)
        try:
            with torch.no_grad(), torch.random.fork_rng(devices=[]):
                scores = self.score(groups, evidence)
        except Exception as error:
            return f"fails on 3 groups of 2 weights ({type(error).__name__}: {error})"
        if not isinstance(scores, Tensor) or scores.shape != (3,):
            given = tuple(scores.shape) if isinstance(scores, Tensor) else type(scores).__name__
            return f"must give one score a group, a tensor (groups,): of 3 groups it gives {given}"
        return ""


def l1(groups: Tensor, evidence: Tensor | None = None) -> Tensor:
    """Mean absolute value of a group (Li et al. 2017, arXiv 1608.08710; Han et al. 2015 for single weights).

    The mean, not the sum: groups of different sizes stay comparable where one threshold serves several weights.
    """
    if groups.shape[1] == 1:  # single weights: no reduction, the fast path of fine pruning
        return groups.detach().abs().reshape(-1)
    return torch.linalg.vector_norm(groups.detach(), 1, dim=1) / groups.shape[1]


def l2(groups: Tensor, evidence: Tensor | None = None) -> Tensor:
    """Euclidean norm of a group over its size."""
    return torch.linalg.vector_norm(groups.detach(), 2, dim=1) / groups.shape[1]


def l1_norm(groups: Tensor, evidence: Tensor | None = None) -> Tensor:
    """Sum of absolute values of a group; larger groups score higher."""
    return torch.linalg.vector_norm(groups.detach(), 1, dim=1)


def l2_squared(groups: Tensor, evidence: Tensor | None = None) -> Tensor:
    """Sum of squares of a group; larger groups score higher."""
    return groups.detach().square().sum(dim=1)


def taylor(groups: Tensor, gradients: Tensor | None) -> Tensor:
    """First-order Taylor estimate of what removing a group does to the loss (Molchanov et al. 2017, arXiv 1611.06440):
    the absolute value of the sum of weight times gradient over the group."""
    assert gradients is not None
    return (groups.detach() * gradients).sum(dim=1).abs()


def snip(groups: Tensor, gradients: Tensor | None) -> Tensor:
    """Connection sensitivity (Lee et al. 2019, arXiv 1810.02340): the sum of |weight * gradient| over the group."""
    assert gradients is not None
    return (groups.detach() * gradients).abs().sum(dim=1)


def lamp(groups: Tensor, evidence: Tensor | None = None) -> Tensor:
    """A group's square over the squares of all groups of its weight that are no smaller, itself among them: comparable
    between layers, where one threshold serves several (Lee et al. 2021, arXiv 2010.07611; here also for groups)."""
    return share_of_no_smaller(groups.detach().double().square().sum(dim=1))


def share_of_no_smaller(scores: Tensor) -> Tensor:
    """Each score over the sum of those that are no smaller, itself among them, in float64."""
    scores = scores.double()
    order = scores.argsort(stable=True)
    rest = scores[order].flip(0).cumsum(0).flip(0)
    shares = torch.empty_like(scores)
    shares[order] = scores[order] / rest.clamp(min=torch.finfo(torch.float64).tiny)
    return shares


def obd(groups: Tensor, fisher: Tensor | None) -> Tensor:
    """What removing a group costs by the diagonal of the loss's Hessian (LeCun et al. 1990, Optimal Brain Damage): half
    the sum of h * weight^2, with the empirical Fisher information for h (Theis et al. 2018, arXiv 1801.05787)."""
    assert fisher is not None
    return (groups.detach().square() * fisher).sum(dim=1) / 2.0


def movement(groups: Tensor, moved: Tensor | None) -> Tensor:
    """Weights that training moves away from zero score high (Sanh et al. 2020, arXiv 2005.07683)."""
    assert moved is not None
    return moved.mean(dim=1)


def geometric_median(groups: Tensor, evidence: Tensor | None = None) -> Tensor:
    """Sum of Euclidean distances to all other filters: those nearest to the geometric median are the most replaceable
    (He et al. 2019, arXiv 1811.00250). Filters of zeros go first, and no distance to them counts."""
    flat = groups.detach().float()
    present = flat.any(1)
    scores = torch.zeros(len(flat), device=flat.device)
    scores[present] = torch.cdist(flat[present], flat[present]).sum(1)
    return scores.to(groups.dtype)


def random(groups: Tensor, evidence: Tensor | None = None) -> Tensor:
    """A uniform draw from torch's global CPU generator."""
    return torch.rand(groups.shape[0]).to(groups)


def apoz(groups: Tensor, zeros: Tensor | None) -> Tensor:
    """Filters whose activations are zero most often go first (Hu et al. 2016, arXiv 1607.03250)."""
    assert zeros is not None
    return -zeros


def given(groups: Tensor, evidence: Tensor | None) -> Tensor:
    """The evidence itself is the score: mean activation, or |batch-norm scale| (Liu et al. 2017, arXiv 1708.06519)."""
    assert evidence is not None
    return evidence


L1 = Ranking("l1", l1)
L2 = Ranking("l2", l2)
L1_NORM = Ranking("l1_norm", l1_norm)
L2_SQUARED = Ranking("l2_squared", l2_squared)
TAYLOR = Ranking("taylor", taylor, "gradients")
SNIP = Ranking("snip", snip, "gradients")
LAMP = Ranking("lamp", lamp)
OBD = Ranking("obd", obd, "fisher")
MOVEMENT = Ranking("movement", movement, "movement")
GEOMETRIC_MEDIAN = Ranking("geometric_median", geometric_median, filters_only=True)
RANDOM = Ranking("random", random)
APOZ = Ranking("apoz", apoz, "apoz", filters_only=True)
MEAN_ACTIVATION = Ranking("mean_activation", given, "mean", filters_only=True)
BN_SCALE = Ranking("bn_scale", given, "bn_scale", filters_only=True)

MENU: dict[str, Ranking] = {
    "magnitude": L1,
    **{
        ranking.name: ranking
        for ranking in (
            L1,
            L2,
            L1_NORM,
            L2_SQUARED,
            LAMP,
            TAYLOR,
            SNIP,
            OBD,
            MOVEMENT,
            GEOMETRIC_MEDIAN,
            RANDOM,
            APOZ,
            MEAN_ACTIVATION,
            BN_SCALE,
        )
    },
}
