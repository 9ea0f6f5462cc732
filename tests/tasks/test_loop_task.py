"""A task for a loop of one's own: a finished network is judged in eval mode, by the split that is asked for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import pytest
import torch
from torch import nn

from raydistill.metrics import Metric
from raydistill.tasks import Loading, LoopTask

CPU = torch.device("cpu")


class Heights(LoopTask):
    metrics: ClassVar = {"off": Metric("min"), "loss": Metric("min")}

    def example_input(self, rows: int = 1) -> tuple[torch.Tensor, ...]:
        return (torch.zeros(rows, 3), torch.ones(rows))

    def figures(self, network: nn.Module, split: str, device: torch.device) -> Mapping[str, float]:
        if network.training or torch.is_grad_enabled():
            raise RuntimeError("judged as if it were trained")
        if split == "train":
            raise KeyError(split)
        return {"off": {"validation": 1.0, "test": 2.0}[split], "loss": float(device.type == "cpu")}


@pytest.mark.parametrize("training", [True, False])
def test_it_is_judged_by_the_split_of_its_feed(training: bool) -> None:
    task, network = Heights(), nn.Dropout().train(training)
    for split, off in (("validation", 1.0), ("test", 2.0)):
        loading = Loading(CPU, 8)
        assert task.evaluate(network, task.feed(split, loading), loading) == {"off": off, "loss": 1.0}
        assert network.training is training
    with pytest.raises(KeyError):
        task.evaluate(network, task.feed("train", loading), loading)
    assert network.training is training


def test_its_feed_shows_what_the_network_takes_and_no_more() -> None:
    task = Heights()
    feed = task.feed("train", Loading(CPU, 64))
    assert (feed.samples, feed.batches, feed.rows(0)) == (1, 1, (1, 1))
    (batch,) = feed.epoch(3)
    assert [tensor.shape for tensor in task.inputs(batch)] == [(2, 3), (2,)]
    with pytest.raises(NotImplementedError, match="computes the loss"):
        task.loss(nn.Identity(), batch)
