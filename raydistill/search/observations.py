"""What searchers learn from: the trials so far, each at every stage that decides something."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from raydistill.records import Scalar


@dataclass
class Observation:
    """One trial. points: (epochs done -> what is compared, the larger the better), at rungs and at its latest epoch.

    ended: it will train no more. A trial without points is known by its values only: it runs.
    """

    trial: int
    values: Mapping[str, Scalar]
    points: dict[int, tuple[float, ...]] = field(default_factory=dict)
    ended: bool = False

    def at(self, epochs: int) -> tuple[float, ...] | None:
        """The earliest point from `epochs` on; None where it never came that far."""
        stages = [stage for stage in self.points if stage >= epochs]
        return self.points[min(stages)] if stages else None


def comparable(
    observations: Sequence[Observation], stages: Sequence[int], minimum: int
) -> list[tuple[Observation, np.ndarray]]:
    """The trials that reached the latest of `stages` that at least `minimum` trials reached, and their points there.

    A figure after five epochs cannot be held against one after sixty. So a model is made of one stage only, the latest
    with enough trials (BOHB: Falkner, Klein, Hutter 2018, arXiv 1807.01774). Empty when no stage has `minimum`.
    """
    for stage in sorted(stages, reverse=True):
        reached = [(o, np.array(point)) for o in observations if (point := o.at(stage)) is not None]
        reached = [(o, point) for o, point in reached if np.isfinite(point).all()]
        if len(reached) >= minimum:
            return reached
    return []
