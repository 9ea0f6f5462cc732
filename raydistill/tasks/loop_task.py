"""A task for a training loop of one's own, which has its own batches and its own loss."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn

from raydistill.tasks.base import Batch, Feed, Loading, Network, Task


class LoopTask(Task):
    """What a sweep has to know besides the loop: `metrics`, `example_input`, and how a finished network is judged."""

    @abstractmethod
    def figures(self, network: nn.Module, split: str, device: torch.device) -> Mapping[str, float]:
        """The metrics of a network in eval mode: on ``test`` for the front, on ``validation`` for a given baseline."""

    def feed(self, split: str, loading: Loading) -> Feed:
        return _OneExample(self, split)

    def loss(self, network: Network, batch: Batch) -> Tensor:
        raise NotImplementedError("a loop of one's own computes the loss")

    @torch.no_grad()
    def evaluate(self, network: nn.Module, feed: Feed, loading: Loading) -> Mapping[str, float]:
        assert isinstance(feed, _OneExample)
        training = network.training
        try:
            return self.figures(network.eval(), feed.split, loading.device)
        finally:
            network.train(training)


class _OneExample:
    """The name of a split, and inputs that show what the network takes."""

    samples = 1
    batches = 1

    def __init__(self, task: Task, split: str) -> None:
        self.split = split
        self._task = task

    def rows(self, index: int) -> tuple[int, int]:
        del index
        return 1, 1

    def epoch(self, epoch: int) -> Iterator[Batch]:
        del epoch
        yield (*self._task.example_input(2), None)
