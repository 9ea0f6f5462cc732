"""Each layer's damage, measured on the dense baseline before the first trial, for searchers that want it.

A layer is pruned by itself in one shot, as the sweep's schedule would prune it, and a part of the validation split is
evaluated; nothing is trained. What that brings in the figure of the network that the sweep optimises is measured along
with it. The journal keeps both: a resumed sweep draws the same trials.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

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
from raydistill.metrics import LATENCY, LOSS, OF_NETWORK
from raydistill.records import BASELINE, Scalar, TrialRecord
from raydistill.schedule import ScheduleSpec, naming_weights, of_weight, parse_schedule
from raydistill.search import Objective
from raydistill.search.constraints import Constraint, against_dense
from raydistill.search.decisions import planned_name
from raydistill.search.searchers import Aim
from raydistill.search.searchers.additive import is_level
from raydistill.storage import Store
from raydistill.sweep.planning.foresight import foreseen
from raydistill.sweep.planning.resources import baseline_share
from raydistill.sweep.session import Session
from raydistill.tasks import VALIDATION, Feed, Loading, Task
from raydistill.training import load_model
from raydistill.training.footprint import figures_of
from raydistill.training.loop import device_of

LEVELS = (0.9, 0.7, 0.95, 0.8, 0.5, 0.99, 0.85, 0.6)
"""In the order of what they tell: where time is short, the last ones are left out."""

SPARSITY = "sparsity"
MACS = "macs"
"""In place of a latency, which would have to be measured, it tells what each layer brings."""

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
    the network, in its unit."""

    curves: Curves
    sizes: dict[str, float]


def ensure_curves(session: Session) -> None:
    """Tell the searcher the layers' curves, measured now or before an interruption. The baseline is there.

    Raises:
        RaydistillError: they cannot be measured or kept.
    """
    plan, ledger, share = session.plan, session.ledger, session.share
    arguments = {str(d.weight): str(d.argument) for d in plan.space.dimensions if is_level(d)}
    if not plan.searcher.wants_curves or not arguments:
        return
    baseline, objectives = ledger.records[BASELINE], session.sweep.objectives
    figure = figure_of(objectives)
    if ledger.curves is None:
        session.observer.step(f"measuring what each of {len(arguments)} layers loses when it is pruned by itself")
        alone = baseline_share(share, session.nodes)
        measure = ray.remote(num_cpus=alone.cpu, num_gpus=alone.gpu)(_measured)
        where = (str(baseline.checkpoint), session.store, session.shared, alone.device, alone.threads)
        counted = MACS if figure == LATENCY else figure
        found = measure.remote(*where, session.sweep.sections.model.arch, session.sweep.schedule, arguments, counted)
        damage: Damage = ray.get(found)
        ledger.measured(damage.curves, damage.sizes)
    sizes = ledger.sizes or {name: float(math.prod(shape)) for name, shape in plan.weights}
    unit = _unit(figure, baseline) * (1.0 if all(o.maximise for o in objectives if o.name == figure) else -1.0)
    sizes = {name: size * unit for name, size in sizes.items()}
    constraints = [constraint.against(baseline) for constraint in session.sweep.constraints]
    aim = replace(aim_of(objectives, constraints, baseline), foreseen=_foreseen(session, figure, unit))
    session.plan = replace(plan, searcher=plan.searcher.with_curves(ledger.curves or {}, sizes, aim))


def figure_of(objectives: Sequence[Objective]) -> str:
    """The figure of the network that is optimised; for one of the user's own, which training alone tells, sparsity."""
    return next((o.name for o in objectives if o.of_network and o.name in OF_NETWORK), SPARSITY)


def part_of_validation(task: Task, device: torch.device) -> tuple[Feed, Loading]:
    """What judges a network that is only pruned, and how it is read."""
    whole = task.feed(VALIDATION, Loading(device, 1024))
    loading = Loading(device, 1024, fraction=min(1.0, _SAMPLES / max(1, whole.samples)))
    return task.feed(VALIDATION, loading), loading


def _foreseen(session: Session, figure: str, unit: float) -> Callable[[Mapping[str, Scalar]], float]:
    """A trial's values to the figure of the network that it is bound for, the larger the better; NaN where it cannot be
    told. unit: see `_unit`."""
    draw, example = session.plan.draw, session.task.example_input()
    with session.store.lent(str(session.ledger.records[BASELINE].checkpoint)) as path:
        start = load_model(path, session.sweep.sections.model.arch)

    def of(values: Mapping[str, Scalar]) -> float:
        plan = draw(0, values)
        if figure == SPARSITY:
            return unit * plan.planned_sparsity
        return unit * foreseen(plan.run.schedule, start, example).get(planned_name(figure), math.nan)

    return of


def _unit(figure: str, baseline: TrialRecord) -> float:
    """A latency is taken to go with the multiply-accumulates."""
    if figure != LATENCY or baseline.last is None:
        return 1.0
    each = baseline.last.value(LATENCY) / baseline.last.value(MACS)
    return each if math.isfinite(each) else 1.0


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


def _measured(
    checkpoint: str,
    store: Store,
    shared: list[object],
    device: str,
    threads: int | None,
    arch: str,
    schedule: ScheduleSpec,
    arguments: Mapping[str, str],
    figure: str,
) -> Damage:
    """In a process of its own: level by level over all layers, as far as the time reaches. arguments: by weight, that
    of its pruner which is a level."""
    torch.set_num_threads(threads or torch.get_num_threads())
    with store.lent(checkpoint) as path:
        model = load_model(path, arch)
    schedule = naming_weights(schedule, names_of(model))

    def alone(weight: str, level: float) -> ScheduleSpec:
        return by_itself(schedule, weight, arguments[weight], level)

    return damage_of(model, ray.get(shared[0]), alone, list(arguments), figure, device)


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
) -> Damage:
    """How much the loss on a part of the validation split rises with each weight pruned by itself, and what that
    changes in a figure of the network.

    time_s: no new level is begun after it, but for the first ones. The model is as before afterwards.
    """
    target = device_of(device)
    model = model.to(target).eval()
    example = task.example_input()
    feed, loading = part_of_validation(task, target)
    dense, costs = task.evaluate(model, feed, loading)[LOSS], _figure(model, example, figure)
    begun = time.monotonic()
    rises: dict[tuple[str, float], float] = {}
    sizes: dict[str, float] = {}
    for number, level in enumerate(LEVELS):
        if number >= _AT_LEAST and time.monotonic() - begun > time_s:
            break
        for name in names:
            with _pruned(model, alone(name, level), example):
                rises[name, level] = task.evaluate(model, feed, loading)[LOSS] - dense
                if number + 1 == _AT_LEAST and (figure == SPARSITY or time.monotonic() - begun < 2 * time_s):
                    sizes[name] = (_figure(model, example, figure) - costs) / level
    if len(sizes) < len(names):
        rows = {f"{row.name}.weight": -float(row.macs) for row in compute_table(model, example)}
        sizes = {name: rows.get(name, 0.0) for name in names}
    return Damage(_curves(rises), sizes)


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


def _figure(model: nn.Module, example: Sequence[object], figure: str) -> float:
    """Of the network as it would be deployed; of what cannot be thinned, as it is."""
    if figure == SPARSITY:
        return sparsity(model)[0]
    copied = copy_of(model).cpu()
    try:
        deploy(copied, example)
    except RaydistillError:
        copied = copy_of(model).cpu()
    return figures_of(copied, tuple(example))[figure]


def _curves(rises: Mapping[tuple[str, float], float]) -> Curves:
    """A loss that is no number any more is as bad as the worst that is one."""
    finite = [rise for rise in rises.values() if math.isfinite(rise)]
    worst = max(finite, default=0.0)
    found: Curves = {}
    for (weight, level), rise in sorted(rises.items()):
        found.setdefault(weight, []).append((level, rise if math.isfinite(rise) else worst))
    return found
