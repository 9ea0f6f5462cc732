"""A schedule that rounds the trained network at its end."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from raydistill.compression import CompressionScheduler, build
from raydistill.compression.copying import copy_of
from raydistill.compression.policies import PostTrainingControls
from raydistill.compression.post_training import calibrate, post_train
from raydistill.compression.quantizers import quantization_of
from raydistill.compression.quantizers.post_train import PostTrainLinearQuantizer
from raydistill.compression.structure import replay, structure_from, structure_state
from raydistill.errors import ConfigError
from raydistill.schedule import parse_schedule
from tests.compression.test_post_training import DATA, network

ARGUMENTS = {"bits_parameters": 4, "per_channel_wts": True}


def schedule(controls: dict[str, Any] | None = None, epochs: tuple[int, ...] = (1,), **more: Any) -> dict[str, Any]:
    return {
        "version": 1,
        "pruners": {"all": {"class": "RankedPruner", "weights": ["1.conv.weight"], "final_sparsity": 0.5}},
        "quantizers": {"ints": {"class": "PostTrainLinearQuantizer", **ARGUMENTS, **more}},
        "policies": [
            {"pruner": {"instance_name": "all"}, "epochs": [0]},
            {"quantizer": {"instance_name": "ints", "args": controls or {}}, "epochs": list(epochs)},
        ],
    }


def built(model: nn.Module, mapping: dict[str, Any]) -> CompressionScheduler:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    return build(parse_schedule(mapping, "s"), model, optimizer, DATA[0], calibration=lambda: DATA)


def run(model: nn.Module, scheduler: CompressionScheduler, epochs: int = 2) -> None:
    for epoch in range(epochs):
        scheduler.on_epoch_begin(epoch)
        scheduler.before_validation(epoch)
        scheduler.on_epoch_end(epoch, top1=0.5)


@pytest.mark.slow
def test_it_is_what_quantizing_the_pruned_network_afterwards_is() -> None:
    model = network()
    scheduler = built(model, schedule())
    scheduler.on_epoch_begin(0)
    scheduler.before_validation(0)
    assert quantization_of(model) is None  # not before its epoch
    scheduler.on_epoch_end(0, top1=0.5)
    other = copy_of(model)
    known = calibrate(other, DATA[0], lambda: DATA)
    post_train(other, PostTrainLinearQuantizer("ints", **ARGUMENTS), DATA[0], known)

    scheduler.on_epoch_begin(1)
    scheduler.before_validation(1)
    scheduler.on_epoch_end(1, top1=0.5)
    torch.testing.assert_close(model(*DATA[1]), other(*DATA[1]), rtol=0, atol=0)
    weight: Tensor = model.get_parameter("1.conv.weight")
    assert int((weight == 0).sum()) == weight.numel() // 2  # masks are in force on the folded weight


@pytest.mark.slow
def test_what_it_did_can_be_made_again_of_a_checkpoint() -> None:
    model = network()
    scheduler = built(model, schedule({"equalize": True, "adaround": 2, "bias_correction": True}))
    run(model, scheduler)
    changes = structure_from(structure_state(scheduler.structure))
    assert [change.NAME for change in changes] == ["folded", "quantized"]
    again = replay(network(), changes)
    again.load_state_dict(model.state_dict())
    torch.testing.assert_close(again.eval()(*DATA[2]), model(*DATA[2]), rtol=0, atol=0)


@pytest.mark.slow
def test_only_as_many_batches_are_looked_at_as_are_asked_for() -> None:
    far = [(DATA[0][0] * 50,)]
    narrow, wide = network(), network()
    for model, most in ((narrow, 3), (wide, 4)):
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        spec = parse_schedule(schedule({"evidence_minibatches": most}), "s")
        run(model, build(spec, model, optimizer, DATA[0], calibration=lambda: [*DATA, *far]))
    outputs = {name: float(model(*far[0]).detach().abs().max()) for name, model in (("narrow", narrow), ("wide", wide))}
    assert outputs["wide"] > 5 * outputs["narrow"]  # who has not seen large inputs clips them


@pytest.mark.slow
def test_statistics_that_are_named_need_no_data() -> None:
    from raydistill.compression.quantizers.statistics import as_mapping

    known = {name: as_mapping(records) for name, records in calibrate(network(), DATA[0], lambda: DATA).items()}
    model = network()
    spec = parse_schedule(schedule(epochs=(0,), model_activation_stats=known), "s")
    scheduler = build(spec, model, torch.optim.SGD(model.parameters(), lr=0.1), DATA[0])
    run(model, scheduler, 1)
    assert quantization_of(model) is not None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"overrides": {"con": {"bits_weights": 8}}}, "overrides.con: matches no layer and no call"),
        ({"bits_parameters": None, "bits_activations": None}, "nothing would be quantized"),
        ({"model_activation_stats": {"conv9": {"output": {}}}}, "model_activation_stats"),
        ({"bits_parameters": 0}, "bits_weights: must be"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_trained(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        built(network(), schedule(**changes))


@pytest.mark.slow
def test_a_network_is_rounded_once() -> None:
    with pytest.raises(ConfigError, match=r"policies\[1\]: PostTrainLinearQuantizer rounds a network once.*2 epochs"):
        built(network(), schedule(epochs=(0, 1)))
    model = network()
    run(model, built(model, schedule()))
    with pytest.raises(ConfigError, match="ints: the network is quantized already"):
        built(model, schedule())


def test_a_loop_that_says_nothing_of_validation_is_told() -> None:
    model = network()
    scheduler = built(model, schedule(epochs=(0,)))
    scheduler.on_epoch_begin(0)
    with pytest.raises(ConfigError, match=r"ints: .*call scheduler.before_validation\(epoch\) there"):
        scheduler.on_epoch_end(0, top1=0.5)


def test_a_network_without_calibration_data_is_told() -> None:
    model = network()
    spec = parse_schedule(schedule(epochs=(0,)), "s")
    scheduler = build(spec, model, torch.optim.SGD(model.parameters(), lr=0.1), DATA[0])
    with pytest.raises(ConfigError, match="PostTrainLinearQuantizer needs calibration data"):
        scheduler.before_validation(0)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("evidence_minibatches", 0, "a whole number from 1 up"),
        ("adaround", -1, "a whole number from 0 up"),
        ("gptq", "yes", "true or false"),
        ("gptq_damping", 0.0, "above 0"),
    ],
)
def test_its_arguments_are_checked(name: str, value: object, message: str) -> None:
    with pytest.raises(ConfigError, match=f"{name}: must be {message}"):
        PostTrainingControls(**{name: value})  # type: ignore[arg-type]
