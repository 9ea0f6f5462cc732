"""What a figure means: which way is better, its unit, what to call it.

A *metric* is a figure of a network on a split of the data: its task names them (top1, loss, perplexity, ...), the first
one selects. The figures below are of the network itself, whatever its task. Nobody else keeps a list of names.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

MAX, MIN = "max", "min"
DIRECTIONS = (MAX, MIN)

FRACTION, COUNT, BYTES, MILLISECONDS, NUMBER = "fraction", "count", "bytes", "ms", ""
"""Units. A fraction in [0, 1] is shown in percent, a count in thousands and millions, a number as it is."""

LOSS = "loss"
"""Every task has it, the smaller the better: what training lowers, on a split."""


@dataclass(frozen=True)
class Metric:
    """direction: `MAX` or `MIN`, what is better. label: for an axis; "" is the metric's name. counts_bits: whether it
    depends on how many bits a network's numbers have."""

    direction: str
    unit: str = NUMBER
    label: str = ""
    counts_bits: bool = False

    @property
    def maximise(self) -> bool:
        return self.direction == MAX

    @property
    def is_fraction(self) -> bool:
        return self.unit == FRACTION

    @property
    def is_large(self) -> bool:
        """Whether it is told in thousands and millions."""
        return self.unit in (COUNT, BYTES)


LATENCY, LATENCY_SPREAD, LATENCY_BUSY = "latency_ms", "latency_iqr_ms", "latency_busy"
"""A measured latency, its interquartile range over the passes, and 1 where the machine had other work meanwhile."""

FOOTPRINT: Mapping[str, Metric] = {
    "macs": Metric(MIN, COUNT, "multiply-accumulates of one sample"),
    "bops": Metric(MIN, COUNT, "bit operations of one sample", counts_bits=True),
    "parameters": Metric(MIN, COUNT, "parameters that are not zero"),
    "size_bytes": Metric(MIN, BYTES, "size in bytes", counts_bits=True),
    "compressed_size_bytes": Metric(MIN, BYTES, "compressed size in bytes", counts_bits=True),
    LATENCY: Metric(MIN, MILLISECONDS, "latency of one sample in ms"),
}
"""What a trained trial costs: `raydistill.training.footprint` says how each is counted or measured."""

OF_NETWORK: Mapping[str, Metric] = {
    "sparsity": Metric(MAX, FRACTION, "sparsity (zeros among the weights)"),
    **FOOTPRINT,
}


@dataclass(frozen=True)
class NetworkFigure:
    """A figure of the network of one's own: a sweep file that optimises or bounds it names it as ``pkg.mod:FIGURE``.

    name: an identifier, for tables, constraints and MLflow. measure: (model, example_input) to a finite number, called
    once a trial, after its last epoch: the model as it would be deployed (a copy without its dead filters and channels,
    in eval mode, on the CPU), and its positional inputs for one sample.
    """

    name: str
    metric: Metric
    measure: Callable[[object, tuple[object, ...]], float]


def selecting(metrics: Mapping[str, object]) -> str:
    """The name of the metric that selects: the first."""
    return next(iter(metrics))


def shown(metric: Metric | None, value: float) -> str:
    """A value with the digits that mean something: ``78.47 %`` or ``0.9312``."""
    return f"{100 * value:.2f} %" if metric is not None and metric.is_fraction else f"{value:.4g}"
