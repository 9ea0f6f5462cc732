"""Greedy filter pruning of a checkpoint: every step is a checkpoint that replaces the one before."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from torch import nn

from raydistill.analysis.network import Network
from raydistill.compression.greedy import GreedyStep, greedy_filter_pruning
from raydistill.compression.structure import structure_state
from raydistill.compression.summaries.compute import total_macs
from raydistill.metrics import selecting
from raydistill.tasks import VALIDATION, Loading, Task
from raydistill.training.checkpoint import without_training, write_checkpoint
from raydistill.training.config import RunConfig
from raydistill.training.fine_tune import fine_tune


def prune_greedily(
    network: Network,
    task: Task,
    config: RunConfig,
    loading: Loading,
    path: Path,
    target_density: float,
    step: float,
    fine_tune_epochs: int = 0,
) -> Iterator[GreedyStep]:
    """See `raydistill.compression.greedy`; each step is yielded when its checkpoint is written.

    task: as the network wants it. config: how candidates are tuned, for `fine_tune_epochs`; 0: not at all.
    """
    model = network.model.to(loading.device)
    feed = task.feed(VALIDATION, loading)
    example = tuple(value.to(loading.device) for value in task.example_input())

    def metrics(candidate: nn.Module) -> Mapping[str, float]:
        return task.evaluate(candidate, feed, loading)

    def tune(candidate: nn.Module) -> None:
        fine_tune(candidate, config, task, loading.device, fine_tune_epochs)

    path.parent.mkdir(parents=True, exist_ok=True)
    kept = without_training(network.content)
    for found in greedy_filter_pruning(
        model,
        metrics,
        example,
        lambda candidate: total_macs(candidate, example),
        task.metrics[selecting(task.metrics)],
        target_density,
        step,
        fine_tune=tune if fine_tune_epochs else None,
    ):
        state: dict[str, object] = {"model": found.model.state_dict(), "optimizer": {}, "scheduler": {"masks": {}}}
        write_checkpoint(path, {**kept, **state, "structure": structure_state((*network.structure, *found.structure))})
        yield found
