"""What a sweep's constraints leave of the figures that its searcher weighs, and what a trial's network will come to."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

from raydistill.metrics import LATENCY, OF_NETWORK
from raydistill.records import BASELINE, Scalar, TrialRecord
from raydistill.search import Objective
from raydistill.search.constraints import Constraint, against_dense
from raydistill.search.decisions import planned_name
from raydistill.search.searchers import Aim
from raydistill.sweep.baseline import dense_network
from raydistill.sweep.planning.foresight import foreseen
from raydistill.sweep.session import Session

SPARSITY = "sparsity"
MACS = "macs"
"""In place of a latency, which would have to be measured, it tells what each layer brings."""

Foreseen = Callable[[Mapping[str, Scalar]], float]


def aim_of(objectives: Sequence[Objective], constraints: Sequence[Constraint], baseline: TrialRecord) -> Aim:
    """What the constraints leave of the metric and of the figure that are weighed. constraints: with bounds that are
    numbers; what bounds anything else, or from the other side, steers nothing."""
    metric = next(o for o in objectives if not o.of_network)
    figure = next(o for o in objectives if o.of_network)
    dense = {o.name: o.value(baseline) * (1.0 if o.maximise else -1.0) for o in (metric, figure)}
    least = {metric.name: -math.inf, figure.name: -math.inf}
    against = against_dense({metric.name: OF_NETWORK[SPARSITY] if metric.maximise else OF_NETWORK[MACS]})
    for bound in constraints:
        below = bound.comparison.startswith("<")
        for one in (metric, figure):
            if bound.figure == one.name and below != one.maximise:
                least[one.name] = max(least[one.name], bound.bound * (1.0 if one.maximise else -1.0))
        if bound.figure in against and below:
            least[metric.name] = max(least[metric.name], dense[metric.name] - bound.bound)
    kept = {name: value if math.isfinite(dense[name]) else -math.inf for name, value in least.items()}
    whole = dense[figure.name] if math.isfinite(dense[figure.name]) else 0.0
    return Aim(kept[metric.name], kept[figure.name], whole)


def bounded_beside(constraints: Sequence[Constraint], figure: str) -> dict[str, float]:
    """The figures of the network, other than `figure`, that are bounded from the side where something has to be pruned,
    and the least that each may be, the larger, the better. constraints: with bounds that are numbers."""
    found: dict[str, float] = {}
    for bound in constraints:
        if not bound.of_network or bound.figure == figure or not math.isfinite(bound.bound):
            continue
        maximise = OF_NETWORK[bound.figure].maximise
        if bound.comparison.startswith("<") != maximise:
            least = bound.bound * (1.0 if maximise else -1.0)
            found[bound.figure] = max(found.get(bound.figure, -math.inf), least)
    return found


def counted_by(figure: str) -> str:
    return MACS if figure == LATENCY else figure


def unit_of(figure: str, baseline: TrialRecord) -> float:
    """A latency is taken to go with the multiply-accumulates."""
    if figure != LATENCY or baseline.last is None:
        return 1.0
    each = baseline.last.value(LATENCY) / baseline.last.value(MACS)
    return each if math.isfinite(each) else 1.0


class Foresight:
    """A trial's values to the figures of the network that it is bound for; of those asked for again it knows them."""

    def __init__(self, session: Session) -> None:
        self._draw, self._example = session.plan.draw, session.task.example_input()
        checkpoint = str(session.ledger.records[BASELINE].checkpoint)
        self._start = dense_network(session.store, checkpoint, session.sweep.sections.model.arch)
        self._known: dict[tuple[Scalar, ...], dict[str, float]] = {}

    def of(self, figure: str, unit: float) -> Foreseen:
        """The larger the better; NaN where it cannot be told. unit: see `unit_of`."""

        def ahead(values: Mapping[str, Scalar]) -> float:
            if figure == SPARSITY:
                return unit * self._draw(0, values).planned_sparsity
            return unit * self._figures(values).get(planned_name(figure), math.nan)

        return ahead

    def _figures(self, values: Mapping[str, Scalar]) -> dict[str, float]:
        key = tuple(values[path] for path in sorted(values))
        if key not in self._known:
            self._known[key] = foreseen(self._draw(0, values).run.schedule, self._start, self._example)
        return self._known[key]
