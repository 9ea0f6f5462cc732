from __future__ import annotations

import copy
import io

import pytest
import torch
from torch import nn
from torch.nn import functional

from raydistill.compression import CompressionScheduler, build, sparsity
from raydistill.compression.masks import MaskSet
from raydistill.compression.policies import Policy
from raydistill.compression.scheduler import ScheduledPolicy
from raydistill.errors import CheckpointError
from raydistill.schedule import PolicySpec, parse_schedule


def agp(start: int = 1, end: int = 6, frequency: int = 2, extra: list | None = None) -> dict:
    return {
        "pruners": {
            "p": {
                "class": "AutomatedGradualPruner",
                "initial_sparsity": 0.2,
                "final_sparsity": 0.7,
                "weights": ["conv.weight", "fc.weight"],
            }
        },
        "lr_schedulers": {"lr": {"class": "StepLR", "step_size": 3, "gamma": 0.1}},
        "policies": [
            {"pruner": {"instance_name": "p"}, "starting_epoch": start, "ending_epoch": end, "frequency": frequency},
            *(extra or []),
        ],
    }


LR = {"lr_scheduler": {"instance_name": "lr"}, "starting_epoch": 0, "ending_epoch": 9, "frequency": 1}


def train(model: nn.Module, scheduler: CompressionScheduler, optimizer: torch.optim.Optimizer, epochs: range) -> None:
    generator = torch.Generator().manual_seed(7)
    for epoch in epochs:
        scheduler.on_epoch_begin(epoch)
        for minibatch in range(3):
            scheduler.on_minibatch_begin(epoch, minibatch, 3)
            images = torch.randn(8, 3, 6, 6, generator=generator)
            loss = functional.cross_entropy(model(images), torch.arange(8))
            loss = scheduler.before_backward(epoch, minibatch, 3, loss)
            optimizer.zero_grad()
            loss.backward()
            scheduler.before_parameter_optimization(epoch, minibatch, 3)
            optimizer.step()
            scheduler.on_minibatch_end(epoch, minibatch, 3)
        scheduler.on_epoch_end(epoch, loss=float(loss.detach()), top1=0.5)


def sgd(model: nn.Module) -> torch.optim.SGD:
    return torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-2)


@pytest.mark.slow
def test_pruned_weights_stay_zero_through_momentum_and_after_the_schedule(model: nn.Module) -> None:
    optimizer = sgd(model)
    scheduler = build(parse_schedule(agp(), "s"), model, optimizer)
    train(model, scheduler, optimizer, range(1))
    assert sparsity(model)[0] == 0.0
    reached = []
    for epoch in range(1, 10):
        train(model, scheduler, optimizer, range(epoch, epoch + 1))
        reached.append(sparsity(model)[1]["fc.weight"])
    # 0.2 -> 0.7 over scheduled epochs 1, 3, 5; 0.7 + (0.2 - 0.7) / 8 = 0.6375 floors to 25 of 40 at epoch 3
    assert reached == pytest.approx([0.2, 0.2, 0.625, 0.625, 0.7, 0.7, 0.7, 0.7, 0.7])


def test_the_six_callbacks_come_in_the_order_of_the_drawing_and_only_in_scheduled_epochs(model: nn.Module) -> None:
    seen = []

    class Spy(Policy):
        def on_epoch_begin(self, when):
            seen.append(("epoch_begin", when.epoch))

        def on_minibatch_begin(self, step):
            seen.append(("minibatch_begin", step.index))

        def before_backward(self, step, loss):
            seen.append(("before_backward", step.index))
            return loss * 2

        def before_parameter_optimization(self, step):
            seen.append(("before_optimization", model.fc.weight.grad is not None))

        def on_minibatch_end(self, step):
            seen.append(("minibatch_end", step.count))

        def on_epoch_end(self, when, metrics):
            seen.append(("epoch_end", sorted(metrics)))

    spec = PolicySpec(0, "pruner", "spy", {}, 1, 2, 1)
    scheduler = CompressionScheduler(model, [ScheduledPolicy(Spy(), spec)], MaskSet(model))
    train(model, scheduler, sgd(model), range(3))
    one = ["minibatch_begin", "before_backward", "before_optimization", "minibatch_end"]
    assert [name for name, _ in seen] == ["epoch_begin", *one * 3, "epoch_end"]
    assert seen[0] == ("epoch_begin", 1)
    assert seen[3] == ("before_optimization", True)
    assert seen[-1] == ("epoch_end", ["loss", "top1"])


def test_policies_of_one_epoch_act_in_file_order(model: nn.Module) -> None:
    mapping = agp(0, 1, 1)
    # a threshold decides anew, whatever was pruned; AGP after it would prune 70 %
    mapping["pruners"]["second"] = {"class": "MagnitudeParameterPruner", "thresholds": {"fc.weight": 0.01}}
    mapping["policies"].append({"pruner": {"instance_name": "second"}, "epochs": [0]})
    scheduler = build(parse_schedule(mapping, "s"), model, sgd(model))
    scheduler.on_epoch_begin(0)
    assert scheduler.masks.sparsity()["fc.weight"] == pytest.approx(0.7)  # what is zero already is below it too
    model.fc.weight.data.normal_()
    scheduler.on_epoch_begin(0)
    assert scheduler.masks.sparsity()["fc.weight"] == pytest.approx(0.7)


@pytest.mark.slow
def test_state_resumes_masks_and_learning_rate(model: nn.Module) -> None:
    mapping = agp(extra=[LR])
    twin = copy.deepcopy(model)
    optimizer = sgd(model)
    scheduler = build(parse_schedule(mapping, "s"), model, optimizer)
    train(model, scheduler, optimizer, range(4))

    buffer = io.BytesIO()
    torch.save({"s": scheduler.state_dict(), "m": model.state_dict(), "o": optimizer.state_dict()}, buffer)
    buffer.seek(0)
    state = torch.load(buffer, weights_only=True)
    other = sgd(twin)
    resumed = build(parse_schedule(mapping, "s"), twin, other)
    twin.load_state_dict(state["m"])
    other.load_state_dict(state["o"])
    resumed.load_state_dict(state["s"])

    train(model, scheduler, optimizer, range(4, 8))
    train(twin, resumed, other, range(4, 8))
    for (name, ours), (_, theirs) in zip(model.named_parameters(), twin.named_parameters(), strict=True):
        assert torch.equal(ours, theirs), name
    assert other.param_groups[0]["lr"] == optimizer.param_groups[0]["lr"] == pytest.approx(0.1 * 0.1**2)


def test_milestones_count_the_epochs_of_the_run(model: nn.Module) -> None:
    mapping = {
        "lr_schedulers": {"lr": {"class": "MultiStepLR", "milestones": [4], "gamma": 0.5}},
        "policies": [{"lr_scheduler": {"instance_name": "lr"}, "starting_epoch": 2, "ending_epoch": 9, "frequency": 1}],
    }
    optimizer = sgd(model)
    scheduler = build(parse_schedule(mapping, "s"), model, optimizer)
    rates = []
    for epoch in range(6):
        scheduler.on_epoch_begin(epoch)
        rates.append(optimizer.param_groups[0]["lr"])
        scheduler.on_epoch_end(epoch)
    assert rates == pytest.approx([0.1, 0.1, 0.1, 0.1, 0.05, 0.05])


@pytest.mark.parametrize(("mode", "metric"), [("min", "loss"), ("max", "top1")])
def test_plateau_is_stepped_with_the_validation_metric(model: nn.Module, mode: str, metric: str) -> None:
    mapping = {
        "lr_schedulers": {"lr": {"class": "ReduceLROnPlateau", "mode": mode, "patience": 0, "factor": 0.5}},
        "policies": [{"lr_scheduler": {"instance_name": "lr"}, "starting_epoch": 0, "ending_epoch": 9, "frequency": 1}],
    }
    optimizer = sgd(model)
    scheduler = build(parse_schedule(mapping, "s"), model, optimizer)
    for epoch in range(3):
        scheduler.on_epoch_end(epoch, **{metric: 1.0})
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.1 * 0.25)


def test_the_state_of_another_schedule_is_refused(model: nn.Module) -> None:
    state = build(parse_schedule(agp(), "s"), model, sgd(model)).state_dict()
    other = build(parse_schedule(agp(extra=[LR]), "s"), model, sgd(model))
    with pytest.raises(CheckpointError, match="has the state of 1 policies, the schedule has 2"):
        other.load_state_dict(state)
