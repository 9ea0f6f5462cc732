"""What thinning did, for a caller to print."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from raydistill.compression.structure import Thinned


@dataclass(frozen=True)
class Kept:
    """Zeroed structures of one weight that stay: `count` of its filters (rows) or channels (columns), and why."""

    weight: str
    structure: str
    count: int
    reason: str

    def __str__(self) -> str:
        what = self.structure if self.count != 1 else self.structure[:-1]
        return f"{self.weight}: {self.count} zero {what} kept ({self.reason})"


@dataclass(frozen=True)
class ThinningReport:
    """What `thin` removed and what it kept.

    parameters_before, parameters_after: numbers of elements of all parameters.
    removed: for each conv or linear layer that lost filters (rows), how many.
    kept: zeroed structures that stay, by weight and reason.
    drift: the largest change of an output in eval mode, relative to the largest output; rounding only where `exact`.
    changes: which rows and columns stayed, to be made again to a fresh model, in this order
        (`raydistill.compression.structure`).
    inside: what went inside blocks (heads of attention, units of recurrent layers), a line each.
    """

    parameters_before: int
    parameters_after: int
    removed: Mapping[str, int]
    kept: tuple[Kept, ...]
    drift: float
    changes: tuple[Thinned, ...]
    inside: tuple[str, ...] = ()

    def __str__(self) -> str:
        share = 100.0 * (1.0 - self.parameters_after / max(1, self.parameters_before))
        first = (
            f"{sum(self.removed.values())} filters of {len(self.removed)} layers removed, {self.parameters_before:,} "
            f"parameters to {self.parameters_after:,} (-{share:.1f} %), outputs moved by {self.drift:.1e}"
        )
        return "\n".join((first, *self.inside, *map(str, self.kept)))
