"""Weights and inputs together say what a weight matters, and nothing is learned (Sun et al. 2023, arXiv 2306.11695).

Shapes: a weight as (rows, columns), its scores too; squares (groups of rows, columns), the sums over the calibration
data of what each column is multiplied by, squared.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from raydistill.compression.calibration import SQUARES
from raydistill.compression.masks import largest_of_each_group, mask_of_smallest
from raydistill.compression.pruners.one_shot import OneShotPruner, Settled
from raydistill.errors import ConfigError, Fault, close_match

_COMPARED = ("row", "layer")
_GONE = -1.0
"""The score of what is pruned already: below any other."""


def wanda_scores(rows: Tensor, squares: Tensor) -> Tensor:
    """|W_ij| * ||X_j||_2 (equation 1), in float64; shape of the weight. Each group of rows has squares of its own."""
    norms = squares.double().sqrt().repeat_interleave(rows.shape[0] // squares.shape[0], dim=0)
    return rows.detach().double().abs() * norms


def smallest_of_each_row(scores: Tensor, count: int) -> Tensor:
    """The mask (1 keeps) that prunes `count` in all, of each row equally many: where these do not divide, one more in
    the rows whose next score is the smallest. Ties go in the order of the columns."""
    each, more = divmod(count, len(scores))
    order = scores.sort(dim=1, stable=True)
    mask = torch.ones_like(scores)
    mask.scatter_(1, order.indices[:, :each], 0.0)
    if more:
        further = order.values[:, each].sort(stable=True).indices[:more]
        mask[further, order.indices[further, each]] = 0.0
    return mask


class WandaPruner(OneShotPruner):
    """Prunes the weights with the smallest |weight| * norm of what it is multiplied by; the others stay as they are.

    levels: weight to sparsity. In place of it weights with final_sparsity, one for all of them, or with n
    and m: n of every m adjacent inputs stay (of a convolution, channels at one kernel position). compare:
    weights of a ``row``, which all have that sparsity then (section 3), or of the whole ``layer``. allocation:
    ``uniform``: levels as they are said; ``owl``: around them, by outliers (Yin et al. 2023, arXiv 2310.05175): a block
    of layers with more scores above `outlier` times their mean is pruned less, by up to `spread`.
    """

    def __init__(
        self,
        name: str,
        levels: dict[str, float] | None = None,
        weights: list[str] | None = None,
        final_sparsity: float | None = None,
        n: int | None = None,
        m: int | None = None,
        compare: str = "row",
        allocation: str = "uniform",
        outlier: float = 5.0,
        spread: float = 0.08,
    ) -> None:
        super().__init__(name, SQUARES, levels, weights, final_sparsity, n, m, allocation, outlier, spread)
        if compare not in _COMPARED:
            way_out = close_match(compare, _COMPARED) if isinstance(compare, str) else ""
            raise ConfigError(Fault("compare", f"must be one of {', '.join(_COMPARED)}", compare, way_out))
        if compare == "layer" and self.pattern is not None:
            raise ConfigError(Fault("compare", "cannot stand beside n and m, which compare m inputs", compare))
        self.compare = compare

    def with_levels(self, levels: Mapping[str, float]) -> WandaPruner:
        said = {key: getattr(self, key) for key in ("compare", "allocation", "outlier", "spread")}
        return WandaPruner(self.name, dict(levels), **said)

    def settle(self, rows: Tensor, sums: Tensor, count: int, before: Tensor | None) -> Settled:
        scores = wanda_scores(rows, sums)
        if before is not None:
            scores = scores.masked_fill(before == 0, _GONE)
        if self.pattern is not None:
            return Settled(largest_of_each_group(scores, *self.pattern))
        return Settled((mask_of_smallest if self.compare == "layer" else smallest_of_each_row)(scores, count))
