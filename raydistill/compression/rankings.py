"""Which first: a score for every weight of a parameter; the smallest scores are pruned first.

A ranking maps a tensor of any shape to a tensor of the same shape.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

Ranking = Callable[[Tensor], Tensor]


def magnitude(weight: Tensor) -> Tensor:
    """Absolute value (Han et al. 2015, arXiv 1506.02626)."""
    return weight.detach().abs()
