"""Training loops as users write them: a generator, a function that reports, and some that go wrong."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import torch
from torch import nn

from raydistill.metrics import Metric
from raydistill.tasks import TRAIN, VALIDATION, Loading, LoopTask
from raydistill.training import Trial


class Points(LoopTask):
    """Where does a point lie on a line? The loop knows the points, the sweep only how a network is judged."""

    metrics: ClassVar = {"mae": Metric("min"), "loss": Metric("min")}
    name = "points"

    def example_input(self, rows: int = 1) -> tuple[torch.Tensor, ...]:
        return (torch.zeros(rows, 6),)

    def figures(self, network: nn.Module, split: str, device: torch.device) -> Mapping[str, float]:
        x, y = points(split)
        output = network(x.to(device))
        off = (output["logits"] if isinstance(output, dict) else output).cpu() - y
        return {"mae": float(off.abs().mean()), "loss": float(off.square().mean())}


def points(split: str) -> tuple[torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed({"train": 0, "validation": 1, "test": 2}[split])
    x = torch.randn(128, 6, generator=draw)
    return x, x @ torch.arange(6.0)[:, None]


def train(trial: Trial) -> Iterator[Mapping[str, float]]:
    """Eight batches an epoch, in an order that torch's generator draws."""
    model = trial.network()
    optimizer = torch.optim.Adam(model.parameters(), lr=trial.args.get("lr", 0.02))
    scheduler = trial.begin(model, optimizer)
    trial.state.setdefault("seen", 0)
    x, y = points("train")
    for epoch in trial.epochs_left():
        scheduler.on_epoch_begin(epoch)
        order = torch.randperm(128)
        for index in range(8):
            rows = order[16 * index : 16 * index + 16]
            scheduler.on_minibatch_begin(epoch, index, 8)
            loss = nn.functional.mse_loss(model(x[rows]), y[rows])
            loss = scheduler.before_backward(epoch, index, 8, loss)
            optimizer.zero_grad()
            loss.backward()
            scheduler.before_parameter_optimization(epoch, index, 8)
            optimizer.step()
            scheduler.on_minibatch_end(epoch, index, 8)
            trial.state["seen"] += 16
        found = trial.task.figures(model, "validation", trial.device)  # type: ignore[attr-defined]
        scheduler.on_epoch_end(epoch, **found)
        yield found


def report(trial: Trial) -> None:
    """The same as one that calls back."""
    for found in train(trial):
        trial.report(found)


def as_the_engine_does(trial: Trial) -> Iterator[Mapping[str, float]]:
    """On any task, with its own feeds: what `fit` itself would have learned."""
    model = trial.network().to(memory_format=torch.channels_last)
    optimizer = trial.optimizer(model)
    scheduler = trial.begin(model, optimizer)
    loading = Loading(trial.device, trial.batch_size, trial.seed, trial.config.effective_train_size)
    feed = trial.task.feed(TRAIN, loading)
    judging = Loading(trial.device, 1024, trial.seed)
    validation = trial.task.feed(VALIDATION, judging)
    for epoch in trial.epochs_left():
        scheduler.on_epoch_begin(epoch)
        model.train()
        total, count = 0.0, feed.batches
        for index, batch in enumerate(feed.epoch(epoch)):
            scheduler.on_minibatch_begin(epoch, index, count)
            loss = scheduler.before_backward(epoch, index, count, trial.task.loss(model, batch))
            optimizer.zero_grad()
            loss.backward()
            scheduler.before_parameter_optimization(epoch, index, count)
            optimizer.step()
            scheduler.on_minibatch_end(epoch, index, count)
            total += float(loss.detach()) * feed.rows(index)[0]
        found = dict(trial.task.evaluate(model, validation, judging))
        scheduler.on_epoch_end(epoch, **found)
        yield {**found, "train_loss": total / feed.samples}


def dies_once(trial: Trial) -> Iterator[Mapping[str, float]]:
    """Its process is killed in the second epoch of a pruned trial, the first time."""
    for found in train(trial):
        if len(trial.history) == 1 and not trial.is_dense and not (trial.folder / "killed").exists():
            (trial.folder / "killed").touch()
            os.kill(os.getpid(), 9)
        yield found


def without_begin(trial: Trial) -> Iterator[Mapping[str, float]]:
    yield {"mae": 1.0, "loss": 1.0}


def other_metrics(trial: Trial) -> Iterator[Any]:
    model = trial.network()
    trial.begin(model, torch.optim.SGD(model.parameters(), lr=0.1))
    yield trial.args["yields"]


def ends_early(trial: Trial) -> Iterator[Mapping[str, float]]:
    for found in train(trial):
        yield found
        return


def raises(trial: Trial) -> None:
    for found in train(trial):
        trial.report(found)
        raise ZeroDivisionError("in the second epoch")


def of_two(trial: Trial, other: int) -> None:
    """It wants more than a trial."""
