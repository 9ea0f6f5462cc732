"""Figures of the network of one's own, ``pkg.mod:FIGURE`` in a sweep file, beside those of `metrics.OF_NETWORK`."""

from __future__ import annotations

from collections.abc import Mapping

from raydistill.errors import ABSENT, ConfigError, Fault
from raydistill.metrics import DIRECTIONS, OF_NETWORK, Metric, NetworkFigure
from raydistill.records import EpochMetrics
from raydistill.resolve import resolve_object

RELATIVE = ("_drop", "_rise")
"""Endings of what a trial has lost against the dense baseline: see `constraints.against_dense`."""

_OF_EPOCH = (*EpochMetrics.__dataclass_fields__, "planned_sparsity")


def own_figure(path: str, where: str, metrics: Mapping[str, Metric]) -> NetworkFigure:
    """The figure that a file names; nothing is called. where: its key path. metrics: the task's.

    Raises:
        ConfigError: it is no `NetworkFigure`, or its name is taken.
    """
    figure = resolve_object(path, {}, NetworkFigure, where, "figure")
    name, metric = figure.name, figure.metric
    if not isinstance(name, str) or not name.isidentifier() or name.endswith(RELATIVE):
        way_out = f"such as energy; {' and '.join(RELATIVE)} at its end mean something else"
        raise ConfigError(Fault(where, f"'{path}' must have an identifier for its name", name, way_out))
    if name in (*metrics, *OF_NETWORK, *_OF_EPOCH):
        raise ConfigError(Fault(where, f"'{path}' has a name that is taken", name, "give it another"))
    if not isinstance(metric, Metric) or metric.direction not in DIRECTIONS or not callable(figure.measure):
        rule = f"'{path}' must have a Metric and a function of (model, example_input)"
        raise ConfigError(Fault(where, rule, ABSENT, "NetworkFigure(name, Metric('min', 'mJ'), function)"))
    return figure
