"""Parts of a pruner as a user would write them: a ranking, a rate, a granularity, a scope; and some that are wrong."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from raydistill.compression.granularity import Granularity
from raydistill.compression.rankings import Ranking
from raydistill.compression.rates import Curve, PolicyTime, Rate
from raydistill.compression.scopes import Scope


def in_order(groups: Tensor, evidence: Tensor | None) -> Tensor:
    return torch.arange(float(groups.shape[0]))


def two_steps(initial: float, final: float) -> Rate:
    def level(when: PolicyTime) -> float:
        return final if when.progress > 0.5 else final / 2

    return level


class Pairs(Granularity):
    """Two elements that lie beside each other."""

    def groups(self, weight: Tensor) -> Tensor:
        return weight.reshape(-1, 2)

    def expand(self, keep: Tensor, weight: Tensor) -> Tensor:
        return keep.repeat_interleave(2).reshape(weight.shape)


def but_the_smallest(
    scores: Mapping[str, Tensor], shapes: Mapping[str, tuple[int, ...]], level: float
) -> dict[str, Tensor]:
    smallest = min(scores, key=lambda name: scores[name].numel())
    return {
        name: (score.argsort().argsort() >= int(level * score.numel())).float()
        if name != smallest
        else torch.ones_like(score)
        for name, score in scores.items()
    }


ORDER = Ranking("order", in_order)
STEPS = Curve("steps", two_steps)
PAIRS = Pairs("Pairs", None, (2,))
SPARING = Scope("sparing", but_the_smallest)

ONE_FOR_ALL = Ranking("one", lambda groups, evidence: groups.sum())
DIVIDES = Ranking("divides", lambda groups, evidence: 1 / len(evidence or ()))  # type: ignore[arg-type]
WANTS_LUCK = Ranking("luck", in_order, evidence="luck")
WANTS_FILTERS = Ranking("filters", in_order, evidence="apoz")
TOO_HIGH = Curve("high", lambda initial, final: lambda when: 1.5 * when.progress)
NO_RATE = Curve("none", lambda initial, final: final)  # type: ignore[arg-type, return-value]
SHUFFLED = type("Shuffled", (Pairs,), {"groups": lambda self, weight: weight.reshape(-1, 2).flip(1, 0)})(
    "Shuffled", None, (2,)
)
LOSES = type("Loses", (Pairs,), {"groups": lambda self, weight: weight[:1].reshape(-1, 2)})("Loses", None, (2,))
HALVES = Scope("halves", lambda scores, shapes, level: {name: score / 2 for name, score in scores.items()})
FORGETS = Scope("forgets", lambda scores, shapes, level: dict(list(scores.items())[:1]))
