"""Each layer's damage, measured on the dense baseline before the first trial, for searchers that want it.

A layer is pruned by itself in one shot, as the sweep's schedule would prune it, and a part of the validation split is
evaluated; nothing is trained. What that brings in the figure of the network that the sweep optimises, and in others
that it bounds, is measured along with it, and allocations by rule are worked out for a searcher that wants them. The
journal keeps all of it: a resumed sweep draws the same trials.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import ray
import torch
from torch import nn

from raydistill.compression.copying import copy_of
from raydistill.compression.deployment import deploy
from raydistill.compression.names import names_of
from raydistill.compression.one_shot import prune_at_once
from raydistill.compression.sparsity import sparsity
from raydistill.compression.summaries import compute_table
from raydistill.errors import RaydistillError
from raydistill.metrics import LOSS, OF_NETWORK
from raydistill.records import BASELINE
from raydistill.schedule import ScheduleSpec, naming_weights, of_weight, parse_schedule
from raydistill.search import Objective
from raydistill.search.constraints import figure_value
from raydistill.search.searchers.base import Bound
from raydistill.search.searchers.damages import is_level
from raydistill.storage import Store
from raydistill.sweep.baseline import dense_network
from raydistill.sweep.bounds import SPARSITY, Foreseen, Foresight, aim_of, bounded_beside, counted_by, unit_of
from raydistill.sweep.planning.checks import has_curves
from raydistill.sweep.planning.resources import baseline_share
from raydistill.sweep.rules import allocations_of
from raydistill.sweep.session import Session
from raydistill.tasks import VALIDATION, Feed, Loading, Task
from raydistill.training.footprint import figures_of
from raydistill.training.loop import device_of

LEVELS = (0.9, 0.7, 0.95, 0.8, 0.5, 0.99, 0.85, 0.6)
"""In the order of what they tell: where time is short, the last ones are left out."""

_SAMPLES = 2048
_TIME_S = 60.0
_AT_LEAST = 2

Curves = dict[str, list[tuple[float, float]]]
"""By weight: (level, how much the loss rises)."""

Alone = Callable[[str, float], ScheduleSpec]
"""A weight and a level to the schedule that prunes that weight alone, to that level."""


@dataclass(frozen=True)
class Damage:
    """curves: what each weight's pruning costs. sizes: by weight, by how much a level of 1 would change the figure of
    the network, in its unit. beside: the same of other figures, by name. allocations: see `Allocations`."""

    curves: Curves
    sizes: dict[str, float]
    beside: dict[str, dict[str, float]] = field(default_factory=dict)
    allocations: dict[str, list[dict[str, float]]] = field(default_factory=dict)


def ensure_curves(session: Session) -> None:
    """Tell the searcher the layers' curves, measured now or before an interruption. The baseline is there.

    Raises:
        RaydistillError: they cannot be measured or kept.
    """
    plan, ledger, share = session.plan, session.ledger, session.share
    arguments = {str(d.weight): str(d.argument) for d in plan.space.dimensions if is_level(d)}
    takes = plan.searcher.takes_curves and has_curves(session.sweep, plan.space)
    if not (plan.searcher.wants_curves or takes) or not arguments:
        return
    baseline, objectives = ledger.records[BASELINE], session.sweep.objectives
    figure = figure_of(objectives)
    constraints = [constraint.against(baseline) for constraint in session.sweep.constraints]
    beside = bounded_beside(constraints, figure)
    if ledger.curves is None:
        session.observer.step(f"measuring what each of {len(arguments)} layers loses when it is pruned by itself")
        alone = baseline_share(share, session.nodes)
        measure = ray.remote(num_cpus=alone.cpu, num_gpus=alone.gpu)(_measured)
        where = (str(baseline.checkpoint), session.store, session.shared, alone.device, alone.threads)
        counted = [counted_by(each) for each in (figure, *beside)]
        schedule, rules = session.sweep.schedule, plan.searcher.wants_allocations
        found = measure.remote(*where, session.sweep.sections.model.arch, schedule, arguments, counted, rules)
        damage: Damage = ray.get(found)
        ledger.measured(damage.curves, damage.sizes, damage.beside, damage.allocations)
    numbers = {name: float(math.prod(shape)) for name, shape in plan.weights}
    foresight = Foresight(session)

    def told(figure: str, maximise: bool, measured: Mapping[str, float] | None) -> tuple[dict[str, float], Foreseen]:
        unit = unit_of(figure, baseline) * (1.0 if maximise else -1.0)
        if not measured:  # not by an earlier version, or bounded since: by the number of weights
            whole = 1.0 if figure == SPARSITY else figure_value(figure, baseline, baseline)
            return {name: whole * each / sum(numbers.values()) for name, each in numbers.items()}, foresight.of(
                figure, unit
            )
        return {name: size * unit for name, size in measured.items()}, foresight.of(figure, unit)

    sizes, ahead = told(figure, all(o.maximise for o in objectives if o.name == figure), ledger.sizes)
    aim = replace(aim_of(objectives, constraints, baseline), foreseen=ahead)
    for name, least in beside.items():
        sign = 1.0 if OF_NETWORK[name].maximise else -1.0
        dense = sign * figure_value(name, baseline, baseline)
        if math.isfinite(dense):
            bound = Bound(least, dense, *told(name, sign > 0.0, ledger.beside.get(counted_by(name))))
            aim = replace(aim, beside=(*aim.beside, bound))
    searcher = plan.searcher.with_curves(ledger.curves or {}, sizes, aim)
    session.plan = replace(plan, searcher=searcher.with_allocations(ledger.allocations))


def figure_of(objectives: Sequence[Objective]) -> str:
    """The figure of the network that is optimised; for one of the user's own, which training alone tells, sparsity."""
    return next((o.name for o in objectives if o.of_network and o.name in OF_NETWORK), SPARSITY)


def part_of_validation(task: Task, device: torch.device) -> tuple[Feed, Loading]:
    """What judges a network that is only pruned, and how it is read."""
    whole = task.feed(VALIDATION, Loading(device, 1024))
    loading = Loading(device, 1024, fraction=min(1.0, _SAMPLES / max(1, whole.samples)))
    return task.feed(VALIDATION, loading), loading


def _measured(
    checkpoint: str,
    store: Store,
    shared: list[object],
    device: str,
    threads: int | None,
    arch: str,
    schedule: ScheduleSpec,
    arguments: Mapping[str, str],
    figures: Sequence[str],
    rules: bool = False,
) -> Damage:
    """In a process of its own: level by level over all layers, as far as the time reaches. arguments: by weight, that
    of its pruner which is a level. figures: the one that is optimised, then those that are bounded beside it. rules:
    whether allocations by rule are wanted."""
    torch.set_num_threads(threads or torch.get_num_threads())
    model = dense_network(store, checkpoint, arch)
    schedule = naming_weights(schedule, names_of(model))

    def alone(weight: str, level: float) -> ScheduleSpec:
        return by_itself(schedule, weight, arguments[weight], level)

    task = ray.get(shared[0])
    found = damage_of(model, task, alone, list(arguments), figures[0], device, beside=figures[1:])
    return replace(found, allocations=allocations_of(model, task, list(arguments), figures[0])) if rules else found


def by_itself(schedule: ScheduleSpec, weight: str, argument: str, level: float) -> ScheduleSpec:
    """What prunes one weight to a level as the schedule would, or by single weights where no pruner lists it."""
    said = of_weight(schedule.mapping, weight, argument, level)
    if said is None:
        pruner = {"class": "AutomatedGradualPruner", "weights": [weight]}
        levels = {"initial_sparsity": 0.0, "final_sparsity": level}
        policy = {"pruner": {"instance_name": "alone"}, "starting_epoch": 0, "ending_epoch": 1, "frequency": 1}
        said = {"version": 1, "pruners": {"alone": {**pruner, **levels}}, "policies": [policy]}
    return parse_schedule(said, schedule.source)


def damage_of(
    model: nn.Module,
    task: Task,
    alone: Alone,
    names: Sequence[str],
    figure: str = SPARSITY,
    device: str = "auto",
    time_s: float = _TIME_S,
    beside: Sequence[str] = (),
) -> Damage:
    """How much the loss on a part of the validation split rises with each weight pruned by itself, and what that
    changes in a figure of the network, and in others beside it.

    time_s: no new level is begun after it, but for the first ones. The model is as before afterwards.
    """
    target = device_of(device)
    model = model.to(target).eval()
    example = task.example_input()
    feed, loading = part_of_validation(task, target)
    figures = (figure, *beside)
    quick = set(figures) == {SPARSITY}
    dense, costs = task.evaluate(model, feed, loading)[LOSS], _figures(model, example, figures)
    begun = time.monotonic()
    rises: dict[tuple[str, float], float] = {}
    sizes: dict[str, dict[str, float]] = {each: {} for each in figures}
    for number, level in enumerate(LEVELS):
        if number >= _AT_LEAST and time.monotonic() - begun > time_s:
            break
        for name in names:
            with _pruned(model, alone(name, level), example):
                rises[name, level] = task.evaluate(model, feed, loading)[LOSS] - dense
                if number + 1 == _AT_LEAST and (quick or time.monotonic() - begun < 2 * time_s):
                    for each, value in _figures(model, example, figures).items():
                        sizes[each][name] = (value - costs[each]) / level
    if len(sizes[figure]) < len(names):
        rows = {f"{row.name}.weight": -float(row.macs) for row in compute_table(model, example)}
        sizes = {each: {name: rows.get(name, 0.0) for name in names} for each in figures if each != SPARSITY or quick}
    own = sizes.pop(figure, {})
    return Damage(_curves(rises), own, sizes)


@contextmanager
def _pruned(model: nn.Module, schedule: ScheduleSpec, example: Sequence[object]) -> Iterator[None]:
    kept = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    try:
        prune_at_once(schedule, model, example)
        yield
    finally:
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                parameter.copy_(kept[name])


def _figures(model: nn.Module, example: Sequence[object], figures: Sequence[str]) -> dict[str, float]:
    """Of the network as it would be deployed; of what cannot be thinned, as it is."""
    zeros = {SPARSITY: sparsity(model)[0]} if SPARSITY in figures else {}
    if set(figures) == {SPARSITY}:
        return zeros
    copied = copy_of(model).cpu()
    try:
        deploy(copied, example)
    except RaydistillError:
        copied = copy_of(model).cpu()
    found = figures_of(copied, tuple(example))
    return {each: zeros[each] if each in zeros else found[each] for each in figures}


def _curves(rises: Mapping[tuple[str, float], float]) -> Curves:
    """A loss that is no number any more is as bad as the worst that is one."""
    finite = [rise for rise in rises.values() if math.isfinite(rise)]
    worst = max(finite, default=0.0)
    found: Curves = {}
    for (weight, level), rise in sorted(rises.items()):
        found.setdefault(weight, []).append((level, rise if math.isfinite(rise) else worst))
    return found
