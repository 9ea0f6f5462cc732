"""Training loops for several workers: each trains on its share of every batch's rows; and some that go wrong."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, DistributedSampler, TensorDataset

from raydistill.tasks import TRAIN, VALIDATION, Loading
from raydistill.training import Trial
from tests.training.own_loops import points

BATCHES = 8
Said = Callable[[Trial, Mapping[str, float]], Any]


def _epochs(
    trial: Trial, batches: int = BATCHES, said: Said = lambda trial, found: found, exchange: bool = True
) -> Iterator[Any]:
    model = trial.network()
    optimizer = torch.optim.Adam(model.parameters(), lr=trial.args.get("lr", 0.02))
    scheduler = trial.begin(model, optimizer)
    replica = trial.replica(model)
    trial.state.setdefault("seen", 0)
    x, y = points("train")
    for epoch in trial.epochs_left():
        scheduler.on_epoch_begin(epoch)
        order = torch.randperm(128)
        for index in range(batches):
            rows = order[16 * (index % 8) : 16 * (index % 8) + 16][trial.rank :: trial.workers]
            scheduler.on_minibatch_begin(epoch, index, batches)
            loss = nn.functional.mse_loss(replica(x[rows]), y[rows])
            loss = scheduler.before_backward(epoch, index, batches, loss)
            optimizer.zero_grad()
            loss.backward()
            if exchange:
                replica.exchange()
            scheduler.before_parameter_optimization(epoch, index, batches)
            optimizer.step()
            scheduler.on_minibatch_end(epoch, index, batches)
            trial.state["seen"] += 16
        found = said(trial, trial.task.figures(model, "validation", trial.device))  # type: ignore[attr-defined]
        scheduler.on_epoch_end(epoch, **(found or {}))
        yield found


def shares(trial: Trial) -> Iterator[Any]:
    yield from _epochs(trial)


def first_judges(trial: Trial) -> Iterator[Any]:
    yield from _epochs(trial, said=lambda trial, found: found if trial.rank == 0 else None)


def each_judges_otherwise(trial: Trial) -> Iterator[Any]:
    """Worker 1's figures are those of worker 0 and one more."""
    yield from _epochs(trial, said=lambda trial, found: {name: value + trial.rank for name, value in found.items()})


def dies_once(trial: Trial) -> Iterator[Any]:
    """The last worker's process is killed in the second epoch of a pruned trial, the first time."""
    for found in _epochs(trial):
        mark = Path(trial.args["mark"])
        if len(trial.history) == 1 and trial.rank == trial.workers - 1 and not trial.is_dense and not mark.exists():
            mark.touch()
            os.kill(os.getpid(), 9)
        yield found


def one_batch_more(trial: Trial) -> Iterator[Any]:
    yield from _epochs(trial, BATCHES + (trial.rank == 1))


def ends_early(trial: Trial) -> Iterator[Any]:
    """Worker 1 does."""
    for epoch, found in enumerate(_epochs(trial)):
        yield found
        if trial.rank == 1 and epoch == 1:
            return


def yields_twice(trial: Trial) -> Iterator[Any]:
    """Worker 1 does, in the first epoch."""
    for epoch, found in enumerate(_epochs(trial)):
        yield found
        if trial.rank == 1 and epoch == 0:
            yield found


def yields_once_more(trial: Trial) -> Iterator[Any]:
    """Worker 1 does, at the end."""
    for found in _epochs(trial):
        yield found
    if trial.rank == 1:
        yield found


def each_for_itself(trial: Trial) -> Iterator[Any]:
    yield from _epochs(trial, exchange=False)


def other_names(trial: Trial) -> Iterator[Any]:
    """What worker 1 validates has another name in on_epoch_end."""
    yield from _epochs(trial, said=lambda trial, found: found if trial.rank == 0 else {"mae": 0.0})


def raises(trial: Trial) -> Iterator[Any]:
    """Worker 1 does, in the second epoch."""
    for found in _epochs(trial):
        yield found
        if trial.rank == 1:
            raise ZeroDivisionError("of worker 1")


def with_torchs_own(trial: Trial) -> Iterator[Any]:
    """DistributedDataParallel and DistributedSampler, as they stand in torch's own tutorials."""
    model: nn.Module = trial.network()
    if trial.workers > 1:
        model = DistributedDataParallel(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02)
    scheduler = trial.begin(model, optimizer)
    data = TensorDataset(*points("train"))
    sampler = DistributedSampler(data, trial.workers, trial.rank, shuffle=False)
    loader = DataLoader(data, 16 // trial.workers, sampler=sampler)
    for epoch in trial.epochs_left():
        scheduler.on_epoch_begin(epoch)
        for index, (x, y) in enumerate(loader):
            scheduler.on_minibatch_begin(epoch, index, len(loader))
            loss = scheduler.before_backward(epoch, index, len(loader), nn.functional.mse_loss(model(x), y))
            optimizer.zero_grad()
            loss.backward()
            scheduler.before_parameter_optimization(epoch, index, len(loader))
            optimizer.step()
            scheduler.on_minibatch_end(epoch, index, len(loader))
        found = trial.task.figures(model, "validation", trial.device)  # type: ignore[attr-defined]
        scheduler.on_epoch_end(epoch, **found)
        yield found


def with_the_tasks_feeds(trial: Trial) -> Iterator[Any]:
    """On any task: what `fit` itself would have learned."""
    model = trial.network().to(memory_format=torch.channels_last)
    optimizer = trial.optimizer(model)
    scheduler = trial.begin(model, optimizer)
    replica = trial.replica(model)
    loading = Loading(trial.device, trial.batch_size, trial.seed, trial.config.effective_train_size, ranks=trial.ranks)
    judging = Loading(trial.device, 1024, trial.seed, ranks=trial.ranks)
    feed, validation = trial.task.feed(TRAIN, loading), trial.task.feed(VALIDATION, judging)
    for epoch in trial.epochs_left():
        scheduler.on_epoch_begin(epoch)
        model.train()
        for index, batch in enumerate(feed.epoch(epoch)):
            scheduler.on_minibatch_begin(epoch, index, feed.batches)
            loss = scheduler.before_backward(epoch, index, feed.batches, trial.task.loss(replica, batch))
            optimizer.zero_grad()
            own, whole = feed.rows(index)
            (loss * (own * trial.workers / whole)).backward()
            replica.exchange()
            scheduler.before_parameter_optimization(epoch, index, feed.batches)
            optimizer.step()
            scheduler.on_minibatch_end(epoch, index, feed.batches)
        found = dict(trial.task.evaluate(model, validation, judging))
        scheduler.on_epoch_end(epoch, **found)
        yield found


def nobody_judges(trial: Trial) -> Iterator[Any]:
    for _ in _epochs(trial):
        yield None
