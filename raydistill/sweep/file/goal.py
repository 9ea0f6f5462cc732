"""A goal in place of a space: ``macs <= 0.5x``, ``top1_drop <= 0.005``, ``latency_ms <= 3``.

From bounds follows what is optimised, what is pruned and which network is wanted in the end. What costs less only where
whole structures are gone (MACs, latency, bytes of dense tensors) is pruned by structures, everything else by single
weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from raydistill.errors import ABSENT, ConfigError, Fault
from raydistill.metrics import LATENCY, OF_NETWORK, Metric, selecting
from raydistill.search.constraints import Constraint, parse_constraints

SPARSITY = "sparsity"
ALIAS = "goal"
"""Of the network that was asked for, in the model registry."""
BY_STRUCTURES = frozenset({"macs", LATENCY, "size_bytes"})


@dataclass(frozen=True)
class Goal:
    """bounds: that the network has to keep. figure: of the network, what is optimised beside the metric that selects.
    best: of all that keep the bounds, the best in this is wanted."""

    bounds: tuple[Constraint, ...]
    figure: str
    best: str

    @property
    def by_structures(self) -> bool:
        return self.figure in BY_STRUCTURES

    def objectives(self, metrics: Mapping[str, Metric]) -> dict[str, str]:
        first = selecting(metrics)
        return {first: metrics[first].direction, self.figure: OF_NETWORK[self.figure].direction}


def parse_goal(node: object, where: str, metrics: Mapping[str, Metric]) -> Goal:
    """Read a bound, or a list of them. metrics: the task's.

    Raises:
        ConfigError: there is none, it is malformed, or it asks for a network that is larger.
    """
    said = [node] if isinstance(node, str) else node
    if not isinstance(said, list) or not said:
        way_out = "as in 'macs <= 0.5x' or ['top1_drop <= 0.005', 'size_bytes <= 0.3x']"
        raise ConfigError(Fault(where, "must be a bound, or a list of bounds", node, way_out))
    bounds = parse_constraints(said, where, metrics)
    for bound in bounds:
        if bound.of_network and bound.comparison.startswith("<") == OF_NETWORK[bound.figure].maximise:
            rule = f"bounds {bound.figure} from the side where nothing has to be pruned"
            raise ConfigError(Fault(where, rule, str(bound), f"as in {bound.figure} {_other(bound.comparison)} ..."))
    figures = list(dict.fromkeys(bound.figure for bound in bounds if bound.of_network))
    if len(figures) > 1:
        rule = "bounds more than one figure of the network"
        raise ConfigError(
            Fault(where, rule, ABSENT, f"keep one of {', '.join(figures)}, bound others in 'constraints'")
        )
    best = selecting(metrics) if figures else SPARSITY
    return Goal(bounds, figures[0] if figures else SPARSITY, best)


def _other(comparison: str) -> str:
    return comparison.translate(str.maketrans("<>", "><"))
