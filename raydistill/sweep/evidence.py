"""Evidence before epochs: a searcher's candidates are pruned at once and evaluated; nothing is trained.

Batch norms take their statistics from a few minibatches of training data anew. The journal keeps what was found: a
resumed sweep chooses the same ones.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import ray
import torch
from torch import nn

from raydistill.compression.layer_kinds import kind_of
from raydistill.compression.one_shot import pruned_at_once
from raydistill.metrics import LOSS
from raydistill.records import BASELINE
from raydistill.schedule import ScheduleSpec
from raydistill.storage import Store
from raydistill.sweep.baseline import dense_network
from raydistill.sweep.curves import part_of_validation
from raydistill.sweep.planning.resources import baseline_share
from raydistill.sweep.session import Session
from raydistill.tasks import TRAIN, Loading, Task
from raydistill.training.loop import device_of

_MINIBATCHES, _ROWS = 8, 256


def ensure_evidence(session: Session) -> None:
    """Tell the searcher what its candidates lose, found now or before an interruption. The curves are there.

    Raises:
        RaydistillError: they cannot be evaluated, or it cannot be kept.
    """
    plan, ledger = session.plan, session.ledger
    if not plan.searcher.pool:
        return
    if ledger.evidence is None:
        session.observer.step(f"pruning the network at once in {plan.searcher.pool} ways, to begin with the best")
        schedules = [plan.draw(0, values).run.schedule for values in plan.searcher.candidates()]
        alone = baseline_share(session.share, session.nodes)
        judge = ray.remote(num_cpus=alone.cpu, num_gpus=alone.gpu)(_judged)
        where = (str(ledger.records[BASELINE].checkpoint), session.store, session.shared, alone.device, alone.threads)
        ledger.judged(ray.get(judge.remote(*where, session.sweep.sections.model.arch, schedules)))
    session.plan = replace(plan, searcher=plan.searcher.with_evidence(ledger.evidence or []))


def _judged(
    checkpoint: str,
    store: Store,
    shared: list[object],
    device: str,
    threads: int | None,
    arch: str,
    schedules: Sequence[ScheduleSpec | None],
) -> list[float]:
    """In a process of its own."""
    torch.set_num_threads(threads or torch.get_num_threads())
    model = dense_network(store, checkpoint, arch)
    return losses_of(model, ray.get(shared[0]), schedules, device)


def losses_of(
    model: nn.Module, task: Task, schedules: Sequence[ScheduleSpec | None], device: str = "auto"
) -> list[float]:
    """The loss on a part of the validation split of the network that each schedule comes to at once. The model is as
    before afterwards."""
    target = device_of(device)
    model = model.to(target).eval()
    feed, loading = part_of_validation(task, target)
    networks = (model if schedule is None else pruned(schedule, model, task, target) for schedule in schedules)
    return [float(task.evaluate(network, feed, loading)[LOSS]) for network in networks]


def pruned(schedule: ScheduleSpec, model: nn.Module, task: Task, device: torch.device) -> nn.Module:
    """What a schedule comes to at once, in eval mode: a copy, whose batch norms are recalibrated. Without that a deep
    network gives nothing but chance at levels that a few steps of training would win back."""
    found = pruned_at_once(schedule, model, task.example_input())
    if any(kind_of(module).batch_norm for module in found.modules()):
        recalibrate(found, task, device)
    return found.eval()


@torch.no_grad()
def recalibrate(model: nn.Module, task: Task, device: torch.device) -> None:
    """Batch norms' statistics from a few minibatches of training data, nothing of what they were. The model is in eval
    mode afterwards."""
    feed = task.feed(TRAIN, Loading(device, _ROWS))
    momenta: dict[Any, float | None] = {}
    for norm in (module for module in model.modules() if kind_of(module).batch_norm):
        momenta[norm] = norm.momentum  # type: ignore[assignment]
        norm.reset_running_stats()  # type: ignore[operator]
        norm.momentum = None  # type: ignore[assignment]
    model.train()
    for batch in itertools.islice(feed.epoch(0), _MINIBATCHES):
        model(*task.inputs(batch))
    for norm, momentum in momenta.items():
        norm.momentum = momentum
    model.eval()
