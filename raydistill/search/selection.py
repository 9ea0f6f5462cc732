"""Which `keep` of n points are best when there are several objectives: by Pareto rank, then by spread inside a rank.

Points are (n, m) float, the larger the better in every column, all finite. The answer is a mask (n,), `keep` times
true.

Schmucker, Donini, Zafar, Salinas, Archambeau 2021, "Multi-objective Asynchronous Successive Halving" (arXiv
2106.12639).
"""

from __future__ import annotations

import moocore
import numpy as np

SPREADS = ("epsilon_net", "crowding", "hypervolume")
_MARGIN = 0.1
"""How far below the worst point, in shares of the range, the reference lies: so that extremes count a little."""


def best(points: np.ndarray, keep: int, spread: str = "epsilon_net") -> np.ndarray:
    """Mask of the `keep` best. Ranks are taken whole; of the one that does not fit, those that cover it best.

    Equal points share a rank; the earlier (lower index) is taken first.
    """
    count = len(points)
    chosen: np.ndarray = np.zeros(count, dtype=bool)
    if keep >= count:
        return ~chosen
    rank = ranks(points)
    for level in range(int(rank.max()) + 1):
        members = np.flatnonzero(rank == level)
        left = keep - int(chosen.sum())
        if left <= 0:
            break
        chosen[members if len(members) <= left else members[_spread(points[members], left, spread)]] = True
    return chosen


def ranks(points: np.ndarray) -> np.ndarray:
    """(n,) int, 0 for the non-dominated: non-dominated sorting after Deb et al. 2002 (NSGA-II)."""
    if points.shape[1] == 1:  # moocore 0.3 ranks a single column wrongly; there a rank is the place among the values
        return np.unique(-points[:, 0], return_inverse=True)[1]
    return np.asarray(moocore.pareto_rank(points, maximise=True))


def _spread(points: np.ndarray, keep: int, spread: str) -> np.ndarray:
    low, high = points.min(axis=0), points.max(axis=0)
    unit = (points - low) / np.where(high > low, high - low, 1.0)
    return {"epsilon_net": _epsilon_net, "crowding": _crowding, "hypervolume": _hypervolume}[spread](unit, keep)


def _epsilon_net(unit: np.ndarray, keep: int) -> np.ndarray:
    """Indices of an epsilon-net, greedily: the knee (largest sum), then ever the point farthest from those taken."""
    taken = [int(np.argmax(unit.sum(axis=1).round(12)))]
    distance = np.linalg.norm(unit - unit[taken[0]], axis=1)
    while len(taken) < keep:
        distance[taken] = -1.0  # of equal points the second is still to be taken, at distance 0
        taken.append(int(np.argmax(distance.round(12))))  # rounded: equal distances must tie whatever the scale
        distance = np.minimum(distance, np.linalg.norm(unit - unit[taken[-1]], axis=1))
    return np.array(taken)


def _crowding(unit: np.ndarray, keep: int) -> np.ndarray:
    """Indices with the largest crowding distance (Deb et al. 2002): the extremes, then the loneliest.

    Of equal points all but the first come last. A column that does not vary has no extremes.
    """
    distance = np.full(len(unit), -1.0)
    first = np.sort(np.unique(unit, axis=0, return_index=True)[1])
    distance[first] = 0.0
    for column in unit.T:
        order = first[np.argsort(column[first], kind="stable")]
        if column[order[-1]] > column[order[0]]:
            distance[order[1:-1]] += column[order[2:]] - column[order[:-2]]
            distance[order[[0, -1]]] = np.inf
    return np.argsort(-distance.round(12), kind="stable")[:keep]


def _hypervolume(unit: np.ndarray, keep: int) -> np.ndarray:
    """Indices left when the point that adds least hypervolume is dropped, again and again (SMS-EMOA, Beume 2007)."""
    left = np.arange(len(unit))
    reference = np.full(unit.shape[1], -_MARGIN)
    while len(left) > keep:
        if unit.shape[1] == 1:
            left = left[np.sort(np.argsort(-unit[left, 0], kind="stable")[:keep])]
            break
        adds = np.asarray(moocore.hv_contributions(unit[left], ref=reference, maximise=True))
        drop = len(adds) - 1 - int(np.argmin(adds[::-1].round(12)))  # of equals the latest goes
        left = np.delete(left, drop)
    return left
