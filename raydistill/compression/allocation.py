"""How far each layer is pruned for a total, by rules that train nothing: levels by weight, for rising totals.

    uniform      one level for all
    erk          a layer keeps the more, the smaller it is: its density goes with the sum of its sides over their
                 product (Erdos-Renyi-Kernel: Evci et al. 2020, "Rigging the Lottery", arXiv 1911.11134, section 3)
    lamp         one threshold over LAMP scores (Lee et al. 2021, arXiv 2010.07611)
    magnitude    one threshold over the weights' magnitudes
    fisher       one threshold over what each weight costs by the diagonal of the Fisher information

Rules that compare weights give what a threshold over all of them would leave in each. A level is a fraction in [0, 1];
`totals` are fractions of all weights together.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from raydistill.compression.rankings import lamp, obd

Levels = dict[str, float]

TOTALS = tuple(1.0 - 0.9 * (0.01 / 0.9) ** (i / 15) for i in range(16))
"""From 10 to 99 %, the density's logarithm spread evenly."""

_HALVINGS = 60


def uniform(shapes: Mapping[str, Sequence[int]], totals: Sequence[float] = TOTALS) -> list[Levels]:
    return [dict.fromkeys(shapes, float(total)) for total in totals]


def erk(shapes: Mapping[str, Sequence[int]], totals: Sequence[float] = TOTALS) -> list[Levels]:
    """Where a layer would keep more than all, it is dense and the others make up for it."""
    wished = {name: sum(shape) / math.prod(shape) for name, shape in shapes.items()}
    sizes = {name: math.prod(shape) for name, shape in shapes.items()}
    whole = sum(sizes.values())
    found = []
    for total in totals:
        low, high = 0.0, 1.0 / min(wished.values())  # at the upper end all are dense
        for _ in range(_HALVINGS):
            middle = (low + high) / 2
            kept = sum(min(1.0, middle * wish) * sizes[name] for name, wish in wished.items())
            low, high = (middle, high) if kept < (1.0 - total) * whole else (low, middle)
        found.append({name: 1.0 - min(1.0, low * wish) for name, wish in wished.items()})
    return found


def by_scores(scores: Mapping[str, Tensor], totals: Sequence[float] = TOTALS) -> list[Levels]:
    """What one threshold over all scores leaves. scores: by weight, of any shape; the smallest go first."""
    sizes = torch.tensor([score.numel() for score in scores.values()])
    pooled = torch.cat([score.detach().flatten() for score in scores.values()])
    owners = torch.repeat_interleave(torch.arange(len(sizes)), sizes)[pooled.argsort(stable=True).cpu()]
    found = []
    for total in totals:
        gone = torch.bincount(owners[: round(total * len(owners))], minlength=len(sizes))
        found.append(dict(zip(scores, (gone / sizes).tolist(), strict=True)))
    return found


def by_rules(
    weights: Mapping[str, Tensor], fisher: Mapping[str, Tensor] | None, totals: Sequence[float] = TOTALS
) -> dict[str, list[Levels]]:
    """Every rule's levels. fisher: the gradient's mean square, of each weight's shape; None leaves it out."""
    shapes = {name: tuple(weight.shape) for name, weight in weights.items()}
    found = {"lamp": by_scores({name: _one_by_one(lamp, weight) for name, weight in weights.items()}, totals)}
    if fisher is not None:
        costs = {
            name: obd(weight.detach().reshape(-1, 1), fisher[name].reshape(-1, 1)) for name, weight in weights.items()
        }
        found["fisher"] = by_scores(costs, totals)
    found["magnitude"] = by_scores({name: weight.abs() for name, weight in weights.items()}, totals)
    return found | {"erk": erk(shapes, totals), "uniform": uniform(shapes, totals)}


def _one_by_one(ranking: Callable[[Tensor], Tensor], weight: Tensor) -> Tensor:
    return ranking(weight.detach().reshape(-1, 1))
