"""When a scheduled quantizer rounds, and when its ranges follow."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from raydistill.compression import build, check, planned_sparsity
from raydistill.compression.quantizers import quantization_of
from raydistill.errors import ConfigError
from raydistill.schedule import ScheduleSpec, parse_schedule

INPUTS = torch.randn(8, 6, generator=torch.Generator().manual_seed(0))


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 7), nn.ReLU(), nn.Linear(7, 3))


def schedule(first: int = 0, last: int = 2, **arguments: Any) -> ScheduleSpec:
    said = {"class": "QuantAwareTrainRangeLinearQuantizer", "bits_weights": 4, "bits_activations": 4, **arguments}
    policy = {"quantizer": {"instance_name": "q"}, "starting_epoch": first, "ending_epoch": last, "frequency": 1}
    return parse_schedule({"quantizers": {"q": said}, "policies": [policy]}, "s.yaml")


def epoch(scheduler: Any, model: nn.Module, number: int) -> None:
    model.train()
    scheduler.on_epoch_begin(number)
    model(INPUTS * (number + 1))
    scheduler.on_epoch_end(number, metric=0.0, loss=0.0)
    model.eval()


def test_it_rounds_from_its_first_epoch_on_and_its_ranges_follow_in_its_own_epochs() -> None:
    model, floats = network(), network()
    scheduler = build(schedule(1, 3), model, torch.optim.SGD(model.parameters(), lr=0.1), (INPUTS,))
    held = quantization_of(model)
    assert held is not None
    steps, same = [], []
    for number in range(5):
        epoch(scheduler, model, number)
        steps.append([int(quantizer.steps) for quantizer in held.each_activation()])
        same.append(torch.equal(model(INPUTS), floats(INPUTS)))
    assert steps == [[0, 0], [1, 1], [2, 2], [2, 2], [2, 2]]
    assert same == [True, False, False, False, False]


def test_what_is_learned_goes_to_the_optimizer_before_the_rate_is_scheduled() -> None:
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=0.01)
    said = {
        "quantizers": {"q": {"class": "PACTQuantizer", "bits_activations": 4, "act_clip_decay": 0.5}},
        "lr_schedulers": {"lr": {"class": "StepLR", "step_size": 1, "gamma": 0.1}},
        "policies": [
            {"lr_scheduler": {"instance_name": "lr"}, "starting_epoch": 0, "ending_epoch": 9, "frequency": 1},
            {"quantizer": {"instance_name": "q"}, "starting_epoch": 0, "ending_epoch": 9, "frequency": 1},
        ],
    }
    scheduler = build(parse_schedule(said, "s.yaml"), model, optimizer, (INPUTS,))
    weights, clips = optimizer.param_groups
    assert (weights["weight_decay"], clips["weight_decay"]) == (0.01, 0.5)
    assert [tuple(p.shape) for p in clips["params"]] == [(1,)]
    scheduler.on_epoch_begin(0)
    model(INPUTS).sum().backward()
    optimizer.step()
    scheduler.on_epoch_end(0, metric=0.0, loss=0.0)
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([0.01, 0.01])


def test_a_check_leaves_no_trace() -> None:
    model = network()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    for _ in range(2):
        assert check(schedule(), model, (INPUTS,)) == ()
        assert planned_sparsity(schedule(), model, (INPUTS,))[0] == 0.0
    assert list(model.state_dict()) == list(before)
    assert not model._forward_hooks
    assert not model[0]._forward_pre_hooks
    assert torch.equal(model(INPUTS), network()(INPUTS))


def test_a_fault_elsewhere_leaves_the_network_as_it_was() -> None:
    said = dict(schedule().mapping)
    said["lr_schedulers"] = {"lr": {"class": "StepLR"}}
    model = network()
    with pytest.raises(ConfigError, match="step_size"):
        build(parse_schedule(said, "s.yaml"), model, torch.optim.SGD(model.parameters(), lr=0.1), (INPUTS,))
    assert quantization_of(model) is None


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"bits_weights": 0}, "bits_weights: must be a whole number from 2 to 32"),
        ({"bits_weights": True}, "bits_weights: must be a whole number"),
        ({"bits_activations": 33}, "bits_activations: must be a whole number from 2 to 32"),
        ({"mode": "SYMETRIC"}, "mode: must be one of SYMMETRIC, .*did you mean 'SYMMETRIC'"),
        ({"mode": {"weights": "SYMMETRIC"}}, "mode: must name one mode, or map weights and activations"),
        ({"ema_decay": 1.0}, "ema_decay: must be from 0 to 0.999999"),
        (
            {"overrides": {"0": {"bits_weigths": 2}}},
            "overrides.0.bits_weigths: unknown key; did you mean 'bits_weights'",
        ),
        ({"overrides": {"(": {"bits_weights": 2}}}, "is no regular expression"),
        ({"overrides": {"(a+)+": {"bits_weights": 2}}}, "may take for ever to match"),
        ({"overrides": {"conv9": {"bits_weights": 2}}}, "overrides.conv9: matches no layer and no call"),
        ({"overrides": [1]}, "overrides: must map names"),
    ],
)
def test_what_is_wrong_is_one_line(arguments: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says) as raised:
        check(schedule(**arguments), network(), (INPUTS,))
    assert all(str(fault).count("\n") == 0 for fault in raised.value.faults)


def test_without_an_example_of_the_input_it_says_so() -> None:
    with pytest.raises(ConfigError, match="needs an example of the network's input"):
        check(schedule(), network())
