"""LR schedulers are stepped by the epochs of the run."""

from __future__ import annotations

import json

import pytest
import torch
from torch.optim import lr_scheduler

from raydistill.compression.policies.lr import LRPolicy
from raydistill.compression.rates import PolicyTime
from raydistill.errors import ConfigError


def optimizer() -> torch.optim.SGD:
    return torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=1.0)


def time(epoch: int) -> PolicyTime:
    return PolicyTime(epoch, 24, 40, 1)


def test_a_milestone_is_an_epoch_of_the_run_not_of_the_policy() -> None:
    of = optimizer()
    policy = LRPolicy(lr_scheduler.MultiStepLR(of, [30], gamma=0.1))
    rates = {}
    for epoch in range(24, 34):
        policy.on_epoch_end(time(epoch), {})
        rates[epoch + 1] = of.param_groups[0]["lr"]
    assert {epoch for epoch, rate in rates.items() if rate == 1.0} == {25, 26, 27, 28, 29}
    assert all(rate == pytest.approx(0.1) for epoch, rate in rates.items() if epoch >= 30)


@pytest.mark.parametrize(
    ("mode", "metrics", "falls"),
    [
        ("min", [{"f1": 0.1, "loss": 1.0}, {"f1": 0.9, "loss": 2.0}], True),
        ("min", [{"f1": 0.9, "loss": 2.0}, {"f1": 0.1, "loss": 1.0}], False),
        ("max", [{"f1": 0.1, "loss": 1.0}, {"f1": 0.9, "loss": 2.0}], False),
        ("max", [{"loss": 1.0, "f1": 0.9, "f2": 0.1}, {"loss": 0.5, "f1": 0.1, "f2": 0.9}], True),
    ],
)
def test_a_plateau_is_of_the_loss_or_of_the_metric_that_selects(
    mode: str, metrics: list[dict[str, float]], falls: bool
) -> None:
    of = optimizer()
    policy = LRPolicy(lr_scheduler.ReduceLROnPlateau(of, mode=mode, patience=0, factor=0.5))  # type: ignore[arg-type]
    for epoch, figures in enumerate(metrics, start=24):
        policy.on_epoch_end(time(epoch), figures)
    assert of.param_groups[0]["lr"] == (0.5 if falls else 1.0)


def test_a_plateau_without_its_figure_is_one_line() -> None:
    policy = LRPolicy(lr_scheduler.ReduceLROnPlateau(optimizer()))
    with pytest.raises(ConfigError, match=r"needs the validation loss, got .*; pass loss="):
        policy.on_epoch_end(time(24), {"top1": 0.5})


def test_a_saved_state_is_plain_and_goes_on_where_it_was() -> None:
    made = [LRPolicy(lr_scheduler.CosineAnnealingWarmRestarts(optimizer(), 5)) for _ in range(2)]
    for epoch in range(24, 28):
        made[0].on_epoch_end(time(epoch), {})
    state = made[0].state_dict()
    made[1].load_state_dict(json.loads(json.dumps(state)))
    assert made[1].state_dict() == state
    assert made[1].lr_scheduler.last_epoch == 28
