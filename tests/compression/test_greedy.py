from __future__ import annotations

from collections.abc import Mapping

import pytest
import torch
from torch import nn

from raydistill.compression.greedy import greedy_filter_pruning
from raydistill.compression.summaries.compute import total_macs
from raydistill.errors import ConfigError
from raydistill.tasks.classification.metrics import METRICS

TOP1 = METRICS["top1"]

EXAMPLE = (torch.zeros(1, 3, 8, 8),)


class Chain(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 10, 3, padding=1)
        self.second = nn.Conv2d(10, 10, 3, padding=1)
        self.fc = nn.Linear(10, 4)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        hidden = torch.relu(self.second(torch.relu(self.first(images))))
        return self.fc(hidden.mean((2, 3)))


def macs(model: nn.Module) -> int:
    return total_macs(model, EXAMPLE)


def wide_second(model: nn.Module) -> Mapping[str, float]:
    """top1 falls with every filter that `second` loses; those of `first` only cost loss."""
    return {"top1": model.second.weight.shape[0] / 10, "loss": float(10 - model.first.weight.shape[0])}


@pytest.mark.slow
def test_the_layer_that_is_missed_least_is_shortened_until_the_target_is_reached() -> None:
    torch.manual_seed(0)
    model = Chain()
    norms = model.first.weight.abs().sum((1, 2, 3))
    steps = list(greedy_filter_pruning(model, wide_second, EXAMPLE, macs, TOP1, 0.51, step=0.2))
    assert {step.weight for step in steps} == {"first.weight"}
    assert [step.removed for step in steps] == [2, 1, 1, 1]  # 20 % of 10, then of 8, 7 and 6, floored, one at least
    dense = 64 * (3 * 10 * 9 + 10 * 10 * 9) + 40
    left = [8, 7, 6, 5]
    assert [step.macs for step in steps] == [64 * 9 * (3 * n + 10 * n) + 40 for n in left]
    assert steps[-1].density == pytest.approx(steps[-1].macs / dense)
    assert steps[-1].density <= 0.51 < steps[-2].density
    kept = norms.argsort(descending=True)[:8].sort().values
    assert torch.equal(steps[0].model.first.weight, model.first.weight[kept])
    assert model.first.weight.shape[0] == 10, "the caller's model is untouched"


@pytest.mark.slow
def test_equal_top1_is_decided_by_the_loss_and_fine_tuning_comes_first() -> None:
    tuned: list[int] = []

    def evaluate(model: nn.Module) -> Mapping[str, float]:
        return {"top1": 0.5, "loss": float(model.first.weight.shape[0]) + 0.1 * float(model.fc.bias.detach().mean())}

    def fine_tune(model: nn.Module) -> None:
        tuned.append(1)
        nn.init.constant_(model.fc.bias, 7.0)

    (step, *_) = greedy_filter_pruning(
        Chain(),
        evaluate,
        EXAMPLE,
        macs,
        TOP1,
        0.9,
        step=0.3,
        weights=["first.weight", "second.weight"],
        fine_tune=fine_tune,
    )
    assert step.weight == "first.weight"
    assert len(tuned) == 2
    assert step.metrics["loss"] == pytest.approx(7 + 0.7)


@pytest.mark.slow
def test_a_target_that_cannot_be_reached_is_one_line() -> None:
    with pytest.raises(ConfigError, match="target_density: cannot be reached: no layer can lose filters"):
        list(greedy_filter_pruning(Chain(), wide_second, EXAMPLE, macs, TOP1, 0.01, step=0.5))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"target_density": 1.0}, "target_density: must be a fraction above 0 and below 1"),
        ({"step": 0.0}, "step: must be a fraction above 0 and below 1"),
        ({"weights": ["frist.weight"]}, "weights: the model has no such convolution weight, got 'frist.weight'; did"),
        ({"weights": ["fc.weight"]}, "weights: the model has no such convolution weight"),
    ],
)
def test_wrong_arguments_are_one_line(change: dict, says: str) -> None:
    arguments = {"target_density": 0.5, **change}
    with pytest.raises(ConfigError) as caught:
        next(greedy_filter_pruning(Chain(), wide_second, EXAMPLE, macs, TOP1, **arguments))
    assert str(caught.value).startswith(says)
