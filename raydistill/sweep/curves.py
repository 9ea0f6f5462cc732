"""Each layer's damage, measured on the dense baseline before the first trial, for searchers that want it.

A layer is pruned by itself in one shot, as its pruner would choose the structures, and a part of the validation split
is evaluated; nothing is trained. The journal keeps the curves: a resumed sweep draws the same trials.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace

import ray
import torch

from raydistill.compression.build import rehearsed
from raydistill.compression.names import names_of
from raydistill.compression.pruners.base import ComposedPruner
from raydistill.compression.scheduler import CompressionScheduler
from raydistill.compression.sensitivity import SENSES, Point, analyse
from raydistill.compression.summaries import compute_table
from raydistill.errors import ConfigError
from raydistill.metrics import LOSS
from raydistill.records import BASELINE
from raydistill.schedule import naming_weights
from raydistill.search.searchers.additive import is_level
from raydistill.storage import Store
from raydistill.sweep.planning.resources import baseline_share
from raydistill.sweep.session import Session
from raydistill.tasks import VALIDATION, Loading, Task
from raydistill.training import load_model
from raydistill.training.loop import device_of

LEVELS = (0.9, 0.7, 0.95, 0.8, 0.5, 0.99, 0.85, 0.6)
"""In the order of what they tell: where time is short, the last ones are left out."""

_SAMPLES = 2048
_TIME_S = 60.0
_AT_LEAST = 2

Measured = dict[str, list[tuple[float, float]]]
"""By weight: (level, how much the loss rises)."""


def ensure_curves(session: Session) -> None:
    """Tell the searcher the layers' curves, measured now or before an interruption. The baseline is there.

    Raises:
        RaydistillError: they cannot be measured or kept.
    """
    plan, ledger, share = session.plan, session.ledger, session.share
    wanted = [str(d.weight) for d in plan.space.dimensions if is_level(d)]
    if not plan.searcher.wants_curves or not wanted:
        return
    checkpoint, arch = str(ledger.records[BASELINE].checkpoint), session.sweep.sections.model.arch
    with session.store.lent(checkpoint) as path:
        model = load_model(path, arch)
    example = session.task.example_input()
    if ledger.curves is None:
        session.observer.step(f"measuring what each of {len(wanted)} layers loses when it is pruned by itself")
        schedule = naming_weights(session.sweep.schedule, names_of(model))
        senses = rehearsed(schedule, model, example, _senses)
        alone = baseline_share(share, session.nodes)
        measure = ray.remote(num_cpus=alone.cpu, num_gpus=alone.gpu)(_measured)
        by_weight = {name: senses.get(name, "element") for name in wanted}
        where = (checkpoint, session.store, session.shared, alone.device, alone.threads)
        ledger.measured(ray.get(measure.remote(*where, arch, by_weight)))
    sizes = {name: float(math.prod(shape)) for name, shape in plan.weights}
    if any(o.of_network and o.name in ("macs", "bops", "latency_ms") for o in session.sweep.objectives):
        rows = {f"{row.name}.weight": float(row.macs) for row in compute_table(model, example)}
        sizes = {name: rows.get(name, 0.0) for name in sizes}
    searcher = plan.searcher.with_curves(ledger.curves or {}, sizes)
    session.plan = replace(plan, searcher=searcher)


def _senses(scheduler: CompressionScheduler) -> dict[str, str]:
    """By weight: what its pruner takes out, as `sensitivity` calls it."""
    names = {granularity: sense for sense, granularity in SENSES.items()}
    pruners = [getattr(scheduled.policy, "pruner", None) for scheduled in scheduler.scheduled]
    return {
        weight: names.get(pruner.granularity, "element")
        for pruner in pruners
        if isinstance(pruner, ComposedPruner)
        for weight in pruner.weights
    }


def _measured(
    checkpoint: str,
    store: Store,
    shared: list[object],
    device: str,
    threads: int | None,
    arch: str,
    senses: Mapping[str, str],
) -> Measured:
    """In a process of its own: level by level over all layers, as far as the time reaches."""
    torch.set_num_threads(threads or torch.get_num_threads())
    with store.lent(checkpoint) as path:
        model = load_model(path, arch)
    return damage_curves(model, ray.get(shared[0]), senses, device)


def damage_curves(
    model: torch.nn.Module, task: Task, senses: Mapping[str, str], device: str = "auto", time_s: float = _TIME_S
) -> Measured:
    """How much the loss on a part of the validation split rises with each weight pruned by itself.

    senses: by weight, what is pruned of it (see `compression.sensitivity`). time_s: no new level is begun after it, but
    for the first ones.
    """
    target = device_of(device)
    model = model.to(target).eval()
    whole = task.feed(VALIDATION, Loading(target, 1024))
    loading = Loading(target, 1024, fraction=min(1.0, _SAMPLES / max(1, whole.samples)))
    feed = task.feed(VALIDATION, loading)
    dense = task.evaluate(model, feed, loading)
    begun = time.monotonic()
    points: list[Point] = []
    for number, level in enumerate(LEVELS):
        if number >= _AT_LEAST and time.monotonic() - begun > time_s:
            break
        for sense in sorted(set(senses.values())):
            names = [name for name, its in senses.items() if its == sense]
            points += _of_level(model, lambda network: task.evaluate(network, feed, loading), level, sense, names)
    return _curves(points, dense[LOSS])


def _of_level(model: torch.nn.Module, evaluate, level: float, sense: str, names: Sequence[str]) -> list[Point]:  # type: ignore[no-untyped-def]
    """A layer that has no such structures is pruned by single weights."""
    try:
        return list(analyse(model, evaluate, [level], sense, names))
    except ConfigError:
        return list(analyse(model, evaluate, [level], "element", names))


def _curves(points: Sequence[Point], dense: float) -> Measured:
    """A loss that is no number any more is as bad as the worst that is one."""
    rises = {(point.weight, point.level): point.metrics[LOSS] - dense for point in points}
    finite = [rise for rise in rises.values() if math.isfinite(rise)]
    worst = max(finite, default=0.0)
    found: Measured = {}
    for (weight, level), rise in sorted(rises.items()):
        found.setdefault(weight, []).append((level, rise if math.isfinite(rise) else worst))
    return found
