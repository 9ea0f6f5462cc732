"""Weights are pruned in turn, and those of the row that come after make good what each added to the output.

Frantar and Alistarh 2023 (SparseGPT, arXiv 2301.00774). With H the sum of x x^T over what a layer reads, leaving out
weight j of a row costs w_j^2 / (H^-1)_jj, and costs the least when the weights behind it change by -w_j / (H^-1)_jj
times row j of H^-1 over what is left (equations 2 and 3). All rows go in one order of columns, so one Cholesky factor
of H^-1 serves all steps (section 3.2, algorithm 1); which weights of a block of columns go is decided when it is
reached (section 3.3). Shapes: a weight (rows, columns), H (columns, columns).
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from raydistill.compression.calibration import DAMPING, PRODUCTS, inverse_factor
from raydistill.compression.masks import largest_of_each_group, mask_of_smallest
from raydistill.compression.pruners.arguments import checked_number
from raydistill.compression.pruners.one_shot import OneShotPruner, Settled
from raydistill.errors import ConfigError, Fault

_LARGEST, _SMALLEST, _PARTS = 128, 16, 8
"""Columns whose mask is decided together: 128 as in the paper, but an eighth of a narrow layer's."""
_GONE, _UNREAD = -2.0, -1.0
"""Scores of what is pruned already and of what is never read: those go first."""


def sparse_gpt(
    rows: Tensor,
    hessian: Tensor,
    count: int,
    pattern: tuple[int, int] | None = None,
    damping: float = DAMPING,
    block: int | None = None,
    before: Tensor | None = None,
    mask: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """The mask (1 keeps) and the weights that go with it, both (rows, columns), zero where the mask is.

    count: pruned in all, as many in each block as it has columns; of no use where there is a pattern (n, m): then n of
    every m adjacent columns stay. block: columns whose mask is decided together, when the first of them is reached;
    None: an eighth of them, from 16 to 128. before: the mask so far, whose zeros stay. mask: decided already; all that
    is asked for are the weights.
    """
    left = rows.detach().to(torch.promote_types(rows.dtype, torch.float32)).clone()
    if before is not None:
        left = left.masked_fill(before == 0, 0.0)
    factor = inverse_factor(hessian.double(), damping).to(left.dtype)
    unread = hessian.diagonal() == 0
    columns = left.shape[1]
    size = block or min(_LARGEST, max(_SMALLEST, columns // _PARTS))
    size = size if pattern is None else max(1, size // pattern[1]) * pattern[1]
    keep = torch.ones_like(left) if mask is None else mask.to(left.dtype)
    gone = 0
    for start in range(0, columns, size):
        end = min(start + size, columns)
        inside = slice(start, end)
        if mask is None and pattern is None:
            due = round(count * end / columns) - gone
            scores = _scores(left, factor, unread, before, inside)
            keep[:, inside] = mask_of_smallest(scores, max(due, 0))
            gone += int((keep[:, inside] == 0).sum())
        errors = torch.zeros_like(left[:, inside])
        for j in range(start, end):
            if mask is None and pattern is not None and (j - start) % pattern[1] == 0:
                group = slice(j, j + pattern[1])
                keep[:, group] = largest_of_each_group(_scores(left, factor, unread, before, group), *pattern)
            off = left[:, j] * (1.0 - keep[:, j]) / factor[j, j]
            left[:, j:end] -= off.unsqueeze(1) * factor[j, j:end]
            errors[:, j - start] = off
        left[:, end:] -= errors @ factor[inside, end:]
    if before is not None:
        keep = keep * (before != 0)
    return keep, left * keep


def _scores(left: Tensor, factor: Tensor, unread: Tensor, before: Tensor | None, columns: slice) -> Tensor:
    """What leaving out each weight of these columns costs; the factor's diagonal squared is that of H^-1 over what is
    left."""
    scores = (left[:, columns] / factor.diagonal()[columns]).square()
    scores = scores.masked_fill(unread[columns], _UNREAD)
    return scores if before is None else scores.masked_fill(before[:, columns] == 0, _GONE)


class SparseGPTPruner(OneShotPruner):
    """Prunes a layer's weights in turn and lets the others make good what its output loses.

    levels: weight to sparsity. In place of it weights with final_sparsity, one for all of them, or with n and m: n of
    every m adjacent inputs stay (of a convolution, channels at one kernel position). damping: added to H's diagonal, a
    part of its mean. block: columns whose mask is decided together; left out, an eighth of all, from 16 to 128.
    allocation, outlier, spread: as `WandaPruner` has them.
    """

    def __init__(
        self,
        name: str,
        levels: dict[str, float] | None = None,
        weights: list[str] | None = None,
        final_sparsity: float | None = None,
        n: int | None = None,
        m: int | None = None,
        damping: float = DAMPING,
        block: int | None = None,
        allocation: str = "uniform",
        outlier: float = 5.0,
        spread: float = 0.08,
    ) -> None:
        super().__init__(name, PRODUCTS, levels, weights, final_sparsity, n, m, allocation, outlier, spread)
        self.damping = checked_number("damping", damping, 0.0, 1.0)
        if self.damping == 0.0:
            raise ConfigError(Fault("damping", "must be above 0", damping, "such as 0.01"))
        if block is not None and (isinstance(block, bool) or not isinstance(block, int) or block < 1):
            raise ConfigError(Fault("block", "must be a whole number from 1 up", block, "such as 128"))
        self.block = block

    def with_levels(self, levels: Mapping[str, float]) -> SparseGPTPruner:
        said = {key: getattr(self, key) for key in ("damping", "block", "allocation", "outlier", "spread")}
        return SparseGPTPruner(self.name, dict(levels), **said)

    def settle(self, rows: Tensor, sums: Tensor, count: int, before: Tensor | None) -> Settled:
        groups, each = len(sums), rows.shape[0] // len(sums)
        masks, values = [], []
        for i, hessian in enumerate(sums):
            part = slice(i * each, (i + 1) * each)
            due = count * (i + 1) // groups - count * i // groups
            own = None if before is None else before[part]
            mask, found = sparse_gpt(rows[part], hessian, due, self.pattern, self.damping, self.block, own)
            masks.append(mask)
            values.append(found)
        return Settled(torch.cat(masks), torch.cat(values))
