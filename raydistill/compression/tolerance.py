"""What a search may try for each weight, read off the sensitivity curves.

Han et al. 2015 (arXiv 1506.02626, section 3.1 and figure 6) choose each layer's threshold from the curve of accuracy
against sparsity of that layer alone. Here the curve gives bounds and three start points instead of one threshold.

A weight *bears* level s for a drop d if the metric that selects (top1, say) is at most d worse than the dense network's
at every measured level up to s;
between the last level that holds and the first that does not, the line between the two is followed.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from raydistill.compression.sensitivity import Point
from raydistill.errors import ABSENT, ConfigError, Fault
from raydistill.metrics import Metric

SMALL = 0.2
"""The drop that counts as none, as a share of the largest one; of a fraction of few samples its standard error, where
that is larger."""
MOST = 0.995
"""No weight is pruned further: AGP has to leave something to train."""
LEAST = 0.05
"""A weight that does not bear this much stays dense."""
START_POINTS = ("conservative", "middle", "aggressive")


@dataclass(frozen=True)
class Tolerance:
    """Fractions of one weight, in [0, 1], two decimals (`upper` three). measured: the highest level measured.

    unhurt: borne for a drop that counts as none. borne: for the largest drop. lower, upper: bounds for a search.
    An insensitive weight never dropped so far: `borne` is `measured`, and where it would break is not known.
    """

    weight: str
    measured: float
    unhurt: float
    borne: float
    lower: float
    upper: float

    @property
    def dense(self) -> bool:
        """Whether it drops at once, so that it is better left alone."""
        return self.upper < LEAST

    @property
    def insensitive(self) -> bool:
        return self.borne >= self.measured

    def start_point(self, name: str) -> float:
        """middle: borne. conservative: half-way from lower to unhurt. aggressive: half-way from borne to upper."""
        wanted = {
            "conservative": (self.lower + self.unhurt) / 2,
            "middle": self.borne,
            "aggressive": (self.borne + self.upper) / 2,
        }[name]
        return round(min(max(wanted, self.lower), self.upper), 3)


def no_drop(max_drop: float, metric: Metric, dense: float, samples: int) -> float:
    """The drop of a metric that counts as none on so many samples. dense: the dense network's."""
    if not metric.is_fraction:
        return SMALL * max_drop
    return min(max_drop, max(SMALL * max_drop, math.sqrt(dense * (1 - dense) / samples)))


def tolerances(
    points: Iterable[Point], name: str, metric: Metric, max_drop: float, samples: int
) -> tuple[Tolerance, ...]:
    """One for each weight, in the points' order. name: of the metric that selects. max_drop: how much worse it may get;
    of a fraction, in (0, 1). samples: evaluated on.

    lower is half of what a weight bears unhurt: pruned together, weights bear less than each by itself. upper is
    1 - (1 - borne)^2: the curve is without retraining, which brings back what is lost (ibid., figure 5), the more the
    more there was to spare. A weight that never drops gets the same rule from the highest level measured.

    Raises:
        ConfigError: max_drop is out of range, a weight lacks level 0 or has no other.
    """
    if not 0.0 < max_drop < (1.0 if metric.is_fraction else math.inf):
        rule = "must be above 0 and below 1, a fraction of all samples" if metric.is_fraction else "must be above 0"
        raise ConfigError(Fault("max drop", rule, max_drop, f"as in 0.1, ten points of {name}"))
    curves: dict[str, list[tuple[float, float]]] = {}
    for point in points:
        curves.setdefault(point.weight, []).append((point.level, point.metrics[name]))
    return tuple(_tolerance(weight, sorted(curve), metric, max_drop, samples) for weight, curve in curves.items())


def _tolerance(
    weight: str, curve: Sequence[tuple[float, float]], metric: Metric, max_drop: float, samples: int
) -> Tolerance:
    if curve[0][0] != 0.0 or len(curve) < 2:
        rule = f"{weight} needs a level of 0 and at least one above it"
        raise ConfigError(Fault("sense range", rule, ABSENT, "start at 0, as in 0 0.95 0.05"))
    small = no_drop(max_drop, metric, curve[0][1], samples)
    if not metric.maximise:
        curve = [(level, -value) for level, value in curve]
    unhurt, borne = _borne(curve, small), _borne(curve, max_drop)
    upper = min(MOST, math.floor(1000 * (1 - (1 - borne) ** 2)) / 1000)
    return Tolerance(
        weight,
        measured=curve[-1][0],
        unhurt=math.floor(100 * unhurt + 1e-9) / 100,
        borne=borne if borne == curve[-1][0] else math.floor(100 * borne + 1e-9) / 100,
        lower=math.floor(50 * unhurt + 1e-9) / 100,
        upper=upper,
    )


def _borne(curve: Sequence[tuple[float, float]], drop: float) -> float:
    least = curve[0][1] - drop
    for (before, value_before), (level, value) in itertools.pairwise(curve):
        if value < least - 1e-12:
            return before + (level - before) * (value_before - least) / (value_before - value)
    return curve[-1][0]
