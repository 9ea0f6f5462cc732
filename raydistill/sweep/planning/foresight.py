"""What a trial's network will cost, before it is trained: its schedule's masks on the weights that it starts from.

Searchers and rungs weigh trials by figures of the network that training does not change. ``planned_macs`` is what the
deployed network is bound for; of latency, which would have to be measured, its multiply-accumulates tell the order.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import nn

from raydistill.compression.deployment import deploy
from raydistill.compression.one_shot import pruned_at_once
from raydistill.errors import RaydistillError
from raydistill.metrics import FOOTPRINT, LATENCY
from raydistill.schedule import ScheduleSpec
from raydistill.search.decisions import PLANNED, planned_name
from raydistill.sweep.file.load import Sweep
from raydistill.training.footprint import figures_of


def wants_foresight(sweep: Sweep) -> bool:
    """Whether a figure of the network other than its sparsity is optimised or bounded."""
    names = {o.name for o in sweep.objectives} | {constraint.figure for constraint in sweep.constraints}
    return bool(names & FOOTPRINT.keys())


def foreseen(schedule: ScheduleSpec | None, model: nn.Module, example: Sequence[object]) -> dict[str, float]:
    """``planned_macs`` and the like, by the names of `raydistill.metrics.FOOTPRINT`; none where they cannot be told.

    model: what the trial starts from; it stays as it is.
    """
    if schedule is None:
        return {}
    try:
        pruned = pruned_at_once(schedule, model, example)
        deploy(pruned, example)
        figures = figures_of(pruned, tuple(example))
    except RaydistillError:  # what cannot be traced or thinned is told where the trial ends
        return {}
    figures[LATENCY] = figures["macs"]
    return {planned_name(name): value for name, value in figures.items()}


def known_at_the_end(sparsity: float, footprint: Mapping[str, float]) -> dict[str, float]:
    """The same names with what is true, once a trial has been trained to its end."""
    if not footprint:
        return {}
    return {PLANNED: sparsity, **{planned_name(name): value for name, value in footprint.items()}}
