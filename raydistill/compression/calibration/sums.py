"""What a layer reads of calibration data, added up: the square of each input, or the products of each two.

Shapes: G groups of a layer's rows that read different inputs (1, but for grouped convolutions and packed attention), C
inputs of a row: what is added (G, samples, C), squares (G, C), products (G, C, C).
"""

from __future__ import annotations

import torch
from torch import Tensor

SQUARES, PRODUCTS = "squares", "products"

DAMPING = 0.01
"""Of the mean of the diagonal of H, which is added to it (Frantar et al. 2022, arXiv 2210.17323, section 3.3)."""


class Sums:
    """Those of one layer. kind: `SQUARES` or `PRODUCTS`. samples: that were added. total: None before the first.

    One call's are worked out in the precision of what is read, at least float32, and added up in float64.
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.samples = 0
        self.total: Tensor | None = None

    def add(self, read: Tensor) -> None:
        read = read if read.dtype == torch.float64 else read.float()
        own = read.square().sum(1) if self.kind == SQUARES else read.transpose(1, 2) @ read
        self.total = own.double() if self.total is None else self.total.add_(own)
        self.samples += read.shape[1]

    @property
    def squares(self) -> Tensor:
        """The squares alone, (G, C)."""
        assert self.total is not None, "asked before anything was added"
        return self.total if self.kind == SQUARES else self.total.diagonal(dim1=1, dim2=2)


def inverse_factor(hessian: Tensor, damping: float = DAMPING) -> Tensor:
    """The upper Cholesky factor of the inverse of a damped H, (C, C); where that fails, of one that is damped more.

    An input that is always zero stands by itself, as if it were read as often as the others on average.
    """
    diagonal = hessian.diagonal().clone()
    unread = diagonal == 0
    mean = float(diagonal[~unread].mean()) if bool((~unread).any()) else 1.0
    while True:
        damped = hessian + torch.diag(torch.where(unread, torch.full_like(diagonal, mean), damping * mean))
        lower, failed = torch.linalg.cholesky_ex(damped)
        if not int(failed):
            upper, failed = torch.linalg.cholesky_ex(torch.cholesky_inverse(lower), upper=True)
            if not int(failed):
                return upper
        damping *= 10.0
