from __future__ import annotations

import collections
import enum
import io
import os
import pickle
import sys
import types
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from raydistill import models
from raydistill.compression.thinning import thin
from raydistill.datasets import DatasetConfig, load
from raydistill.errors import CheckpointError, ConfigError
from raydistill.tasks.classification import Classification
from raydistill.tensor_file import StandIn
from raydistill.training import RunConfig, evaluate_checkpoint, fit, load_model, read_checkpoint
from raydistill.training.distiller_checkpoint import (
    _numpy_scalar,
    is_distiller_checkpoint,
    optimizer_state,
    read_any,
    read_distiller_checkpoint,
)

DISTILLER = "distiller", "distiller.thinning", "distiller.quantization", "distiller.quantization.range_linear"


@pytest.fixture
def distiller() -> Iterator[types.SimpleNamespace]:
    """Modules under Distiller's names while a file is written; `gone()` takes them away again."""
    modules = {name: types.ModuleType(name) for name in DISTILLER}
    recipe = collections.namedtuple("ThinningRecipe", ["modules", "parameters"])
    recipe.__module__ = "distiller.thinning"
    modules["distiller.thinning"].ThinningRecipe = recipe  # type: ignore[attr-defined]
    linear = modules["distiller.quantization.range_linear"]
    quantizer = type("PostTrainLinearQuantizer", (), {"__module__": linear.__name__})
    mode = enum.Enum("ClipMode", ["NONE", "AVG"], module=linear.__name__)  # type: ignore[misc]
    linear.PostTrainLinearQuantizer, linear.ClipMode = quantizer, mode  # type: ignore[attr-defined]
    sys.modules.update(modules)

    def gone() -> None:
        for name in DISTILLER:
            sys.modules.pop(name, None)

    yield types.SimpleNamespace(Recipe=recipe, Quantizer=quantizer, ClipMode=mode, gone=gone)
    gone()


class Command:
    """A pickle of it runs a command when it is loaded."""

    def __init__(self, marker: Path) -> None:
        self._marker = marker

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self._marker}",)


def trained(arch: str = "simplenet_cifar", seed: int = 0) -> tuple[nn.Module, torch.optim.SGD]:
    """A model after two steps of SGD, so that the optimizer has momentum."""
    torch.manual_seed(seed)
    model = models.create(arch, 10)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-4)
    for _ in range(2):
        optimizer.zero_grad()
        model(torch.randn(4, 3, 32, 32)).square().mean().backward()
        optimizer.step()
    return model, optimizer


def content_of(model: nn.Module, optimizer: torch.optim.SGD, masks: dict, prefix: str = "module.") -> dict[str, Any]:
    """What Distiller's save_checkpoint puts into a file; DataParallel's prefix on every name."""
    state = collections.OrderedDict((prefix + name, value) for name, value in model.state_dict().items())
    state._metadata = collections.OrderedDict({"": {"version": 1}})  # type: ignore[attr-defined]
    every = {prefix + name: masks.get(name) for name, _ in model.named_parameters()}
    return {
        "epoch": 3,
        "arch": "simplenet_cifar",
        "state_dict": state,
        "optimizer_state_dict": optimizer.state_dict(),
        "optimizer_type": type(optimizer),
        "compression_sched": {"masks_dict": every},
        "extras": {"best_top1": np.float64(71.5), "current_top1": np.float32(70.25), "best_epoch": np.int64(2)},
    }


def halved(model: nn.Module, name: str = "fc1.weight") -> dict[str, torch.Tensor]:
    weight = dict(model.named_parameters())[name].detach()
    return {name: (weight.abs() > weight.abs().median()).float()}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "checkpoint.pth.tar"


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "before torch 1.6"])
def test_everything_in_a_file_comes_back_as_plain_data(distiller: Any, file: Path, zipped: bool) -> None:
    model, optimizer = trained()
    masks = halved(model)
    content = content_of(model, optimizer, masks)
    content["thinning_recipes"] = [
        distiller.Recipe(
            modules={"module.conv1": {"out_channels": 3}, "module.bn1": {"running_mean": (0, torch.tensor([0, 2]))}},
            parameters={"module.conv1.weight": [(0, torch.tensor([0, 2])), (1, torch.tensor([1]), (6, 3), (6, 2))]},
        )
    ]
    content["quantizer_metadata"] = {"type": distiller.Quantizer, "params": {"clip": distiller.ClipMode.AVG, "bits": 8}}
    torch.save(content, file, _use_new_zipfile_serialization=zipped)
    distiller.gone()

    assert is_distiller_checkpoint(file)
    read = read_distiller_checkpoint(file)
    assert (read.arch, read.epoch, read.optimizer_type) == ("simplenet_cifar", 3, "torch.optim.sgd.SGD")
    assert list(read.weights) == list(model.state_dict())
    assert all(torch.equal(read.weights[name], value) for name, value in model.state_dict().items())
    assert list(read.masks) == ["fc1.weight"]
    assert torch.equal(read.masks["fc1.weight"], masks["fc1.weight"])
    assert read.optimizer is not None
    assert read.optimizer["param_groups"][0]["lr"] == 0.1
    assert torch.equal(
        read.optimizer["state"][0]["momentum_buffer"], optimizer.state_dict()["state"][0]["momentum_buffer"]
    )
    (recipe,) = read.thinning_recipes
    assert recipe["modules"]["conv1"] == {"out_channels": 3}
    dimension, kept = recipe["modules"]["bn1"]["running_mean"]
    assert (dimension, kept.tolist()) == (0, [0, 2])
    assert [entry[2:] for entry in recipe["parameters"]["conv1.weight"]] == [(), ((6, 3), (6, 2))]
    linear = "distiller.quantization.range_linear"
    assert read.quantizer == {
        "type": f"{linear}.PostTrainLinearQuantizer",
        "params": {"clip": {"class": f"{linear}.ClipMode", "arguments": [2]}, "bits": 8},
    }
    assert read.extras == {"best_top1": 71.5, "current_top1": 70.25, "best_epoch": 2}
    assert [type(value) for value in read.extras.values()] == [float, float, int]
    assert not any(name.split(".")[0] == "distiller" for name in sys.modules)


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "before torch 1.6"])
@pytest.mark.parametrize("place", ["extras", "state_dict", "compression_sched"])
def test_a_file_that_would_run_a_command_does_not(file: Path, tmp_path: Path, zipped: bool, place: str) -> None:
    model, optimizer = trained()
    content = content_of(model, optimizer, {})
    marker = tmp_path / "ran"
    content[place]["module.extra"] = Command(marker)
    torch.save(content, file, _use_new_zipfile_serialization=zipped)
    for read in (read_distiller_checkpoint, read_any):
        with pytest.raises(CheckpointError, match=r"names 'posix.system', which may run code") as caught:
            read(file)
        assert "\n" not in str(caught.value)
    assert not marker.exists()
    torch.load(file, weights_only=False)  # it is a trap: loaded as Distiller itself loaded files, the command runs
    assert marker.exists()


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "before torch 1.6"])
def test_what_goes_by_distillers_name_is_not_run_even_where_it_is_installed(
    distiller: Any, file: Path, zipped: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[Any] = []

    def run(*args: Any) -> str:
        calls.append(args)
        return "ran"

    run.__module__, run.__qualname__ = "distiller.thinning", "run"
    monkeypatch.setattr(sys.modules["distiller.thinning"], "run", run, raising=False)

    class Call:
        def __reduce__(self) -> Any:
            return run, ("rm", 1), {"some": "state"}

    torch.save(
        {"state_dict": {"w": torch.ones(1)}, "extras": {"x": Call()}}, file, _use_new_zipfile_serialization=zipped
    )
    calls.clear()
    read = read_distiller_checkpoint(file)
    assert calls == []
    assert read.extras == {"x": {"class": "distiller.thinning.run", "arguments": ["rm", 1], "state": {"some": "state"}}}


@pytest.mark.parametrize(
    "name",
    ["builtins.eval", "builtins.getattr", "torch.hub.load", "torch.storage._load_from_bytes", "functools.partial",
     "numpy.load", "distillery.run", "operator.attrgetter"],
)  # fmt: skip
def test_only_names_that_are_needed_have_stand_ins(file: Path, name: str) -> None:
    module, _, attribute = name.rpartition(".")
    names = f"c{module}\n{attribute}\n".encode()
    buffer = io.BytesIO()
    torch.save({"state_dict": {}, "epoch": 0}, buffer, _use_new_zipfile_serialization=False)
    raw = buffer.getvalue()
    at = raw.rindex(b"epoch") + len(b"epochq\x02")
    assert raw[at : at + 2] == b"K\x00"
    file.write_bytes(raw[:at] + names + raw[at + 2 :])
    assert is_distiller_checkpoint(file)
    with pytest.raises(CheckpointError) as caught:
        read_distiller_checkpoint(file)
    assert attribute in str(caught.value)
    assert "may run code" in str(caught.value)


@pytest.mark.slow
def test_damaged_and_foreign_files_are_one_line(file: Path) -> None:
    model, optimizer = trained()
    with pytest.raises(CheckpointError, match="no such checkpoint"):
        read_any(file)
    for content in (b"", b"garbage", pickle.dumps({"state_dict": {}})):
        file.write_bytes(content)
        assert not is_distiller_checkpoint(file) or content.startswith(b"\x80")
        with pytest.raises(CheckpointError, match="is damaged, or no checkpoint that can be loaded without running"):
            read_any(file)
    for zipped in (True, False):
        torch.save(content_of(model, optimizer, {}), file, _use_new_zipfile_serialization=zipped)
        raw = file.read_bytes()
        for cut in (100, len(raw) // 2, len(raw) - 100):
            file.write_bytes(raw[:cut])
            with pytest.raises(CheckpointError) as caught:
                read_any(file)
            assert "\n" not in str(caught.value)
    torch.save({"state_dict": [1, 2], "arch": "a"}, file)
    with pytest.raises(CheckpointError, match="is not a checkpoint of Distiller"):
        read_any(file)
    loop: list = []
    loop.append(loop)
    torch.save({"state_dict": {}, "arch": "a", "extras": {"x": loop}}, file)
    with pytest.raises(
        CheckpointError, match=r"holds what no checkpoint of Distiller does \(an object that holds itself\)"
    ):
        read_any(file)


@pytest.mark.slow
def test_older_files_miss_what_came_later(file: Path) -> None:
    model, _ = trained("resnet20_cifar")
    weights = {f"module.{name}": value for name, value in model.state_dict().items() if "num_batches" not in name}
    torch.save({"epoch": 7, "state_dict": weights, "best_top1": 90.5}, file, _use_new_zipfile_serialization=False)
    read = read_distiller_checkpoint(file)
    assert (read.arch, read.optimizer, read.masks, read.thinning_recipes) == (None, None, {}, ())
    assert read.extras == {"best_top1": 90.5}
    again = models.create("resnet20_cifar", 10)
    again.load_state_dict(read_any(file)["model"])
    assert int(again.get_buffer("bn1.num_batches_tracked")) == 0
    assert torch.equal(again.get_parameter("fc.weight"), model.get_parameter("fc.weight"))


def test_data_parallel_inside_a_model(file: Path) -> None:
    weights = {"features.module.0.weight": torch.ones(2, 3, 1, 1), "classifier.weight": torch.ones(4, 2)}
    torch.save({"state_dict": weights, "compression_sched": {"masks_dict": dict.fromkeys(weights)}}, file)
    assert list(read_distiller_checkpoint(file).weights) == ["features.0.weight", "classifier.weight"]
    assert read_any(file)["num_classes"] == 4


def test_momentum_goes_to_its_weights_whatever_their_order(file: Path) -> None:
    model, optimizer = trained()
    content = content_of(model, optimizer, {})
    # before torch 1.5 the keys of the state were addresses
    old = content["optimizer_state_dict"]
    addresses = [140_000_000 + 8 * index for index in range(len(old["param_groups"][0]["params"]))]
    content["optimizer_state_dict"] = {
        "state": {addresses[index]: entry for index, entry in old["state"].items()},
        "param_groups": [{**old["param_groups"][0], "params": addresses}],
    }
    torch.save(content, file)
    names = [name for name, _ in model.named_parameters()][::-1]
    state, odd = optimizer_state(read_any(file), names, "f")
    assert state is not None
    assert odd == ""
    fresh = torch.optim.SGD([model.get_parameter(name) for name in names], lr=1.0)
    fresh.load_state_dict(state)
    assert fresh.param_groups[0]["momentum"] == 0.9
    for parameter in model.parameters():
        assert torch.equal(fresh.state[parameter]["momentum_buffer"], optimizer.state[parameter]["momentum_buffer"])


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (
            {"optimizer_type": torch.optim.Adam},
            "was trained with another optimizer than SGD, got 'torch.optim.adam.Adam'",
        ),
        ({"optimizer_state_dict": None}, "has no optimizer to go on with"),
        ({"optimizer_state_dict": {"state": {}, "param_groups": []}}, "has an optimizer of other parameters"),
        (
            {"quantizer_metadata": {"type": "Q", "params": {}}},
            "was quantized by Distiller, and holds no float weights, got 'Q'",
        ),
        ({"compression_sched": {"masks_dict": {"fc9": torch.ones(2)}}}, "has a mask of no weight ('fc9'), got (2,)"),
    ],
)
def test_what_a_run_cannot_go_on_from(file: Path, change: dict, says: str) -> None:
    model, optimizer = trained()
    torch.save({**content_of(model, optimizer, {}), **change}, file)
    with pytest.raises(CheckpointError) as caught:
        optimizer_state(read_any(file), [name for name, _ in model.named_parameters()], str(file))
    assert says in str(caught.value)


@pytest.fixture(scope="module")
def dataset() -> Any:
    return load(DatasetConfig("digits"))


@pytest.fixture
def config(tmp_path: Path) -> RunConfig:
    return RunConfig(
        "simplenet_cifar", DatasetConfig("digits"), epochs=1, lr=0.05, out_dir=str(tmp_path / "run"),
        deterministic=True, threads=1, tensorboard=False, device="cpu",
    )  # fmt: skip


@pytest.mark.slow
def test_a_run_starts_from_a_file_of_distiller_whatever_it_is_called(
    config: RunConfig, dataset: Any, tmp_path: Path
) -> None:
    model, optimizer = trained()
    masks = halved(model)
    file = tmp_path / "checkpoint.pt"  # raydistill's own name
    torch.save(content_of(model, optimizer, masks), file)  # the weights in it are not masked
    metrics = list(fit(replace(config, init_from=str(file), epochs=2), task=Classification(dataset)))
    assert [m.epoch for m in metrics] == [0, 1]
    zeros = 1 - float(masks["fc1.weight"].mean())
    assert [m.layer_sparsity["fc1.weight"] for m in metrics] == pytest.approx([zeros] * 2, abs=1e-4)
    written = read_checkpoint(Path(config.out_dir or "") / "checkpoint.pt")
    assert torch.equal(written["model"]["fc1.weight"] == 0, masks["fc1.weight"] == 0)
    assert written["model"]["fc2.weight"].count_nonzero() == written["model"]["fc2.weight"].numel()
    # a resumed run has the same masks, and its identity is that of the file's weights
    (more,) = list(fit(replace(config, init_from=str(file), epochs=3), task=Classification(dataset)))
    assert more.layer_sparsity["fc1.weight"] == pytest.approx(zeros, abs=1e-4)


@pytest.mark.slow
def test_a_run_goes_on_from_a_file_of_distiller(config: RunConfig, dataset: Any, file: Path) -> None:
    model, optimizer = trained()
    torch.save(content_of(model, optimizer, halved(model)), file)
    metrics = list(fit(replace(config, continue_from=str(file), epochs=6), task=Classification(dataset)))
    assert [m.epoch for m in metrics] == [4, 5]  # the file's last epoch is 3
    assert metrics[0].learning_rate == pytest.approx(0.1)  # of the file's optimizer
    assert metrics[1].layer_sparsity["fc1.weight"] == pytest.approx(0.5, abs=1e-3)


@pytest.mark.slow
def test_a_file_of_distiller_is_evaluated(dataset: Any, file: Path) -> None:
    model, optimizer = trained()
    torch.save(content_of(model, optimizer, {}), file)
    result = evaluate_checkpoint(file, Classification(dataset), "validation", "cpu")
    assert result.samples == len(dataset.validation_index)
    assert 0 <= result.metrics["top1"] < 1


@pytest.mark.slow
def test_weights_of_another_architecture_are_refused(config: RunConfig, dataset: Any, file: Path) -> None:
    model, optimizer = trained()
    torch.save(content_of(model, optimizer, {}), file)
    with pytest.raises(CheckpointError, match=r"checkpoint.pth.tar: has .*architecture"):
        next(fit(replace(config, arch="resnet20_cifar", init_from=str(file)), task=Classification(dataset)))


@pytest.mark.slow
def test_a_thinned_network_comes_back_in_its_own_shapes(
    distiller: Any, config: RunConfig, dataset: Any, file: Path
) -> None:
    model, _ = trained()
    mask = torch.ones_like(model.get_parameter("conv1.weight"))
    mask[::2] = 0
    thin(model, {"conv1.weight": mask}, torch.randn(1, 3, 32, 32))
    assert model.get_parameter("conv1.weight").shape[0] == 3
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    masks = {"conv2.weight": (torch.arange(16 * 3 * 25) % 2).float().reshape(16, 3, 5, 5)}
    content = content_of(model, optimizer, masks)
    content["thinning_recipes"] = [distiller.Recipe({"module.conv1": {"out_channels": 3}}, {})]
    torch.save(content, file)
    distiller.gone()
    for source in ({"init_from": str(file)}, {"continue_from": str(file), "epochs": 5}):
        run = replace(config, **source, out_dir=str(file.parent / next(iter(source))))
        list(fit(run, task=Classification(dataset)))
        written = read_checkpoint(Path(run.out_dir or "") / "checkpoint.pt")
        assert written["model"]["conv1.weight"].shape == (3, 3, 5, 5)
        assert torch.equal(written["model"]["conv2.weight"] == 0, masks["conv2.weight"] == 0)


def test_both_kinds_of_start_are_not_taken_at_once(config: RunConfig) -> None:
    with pytest.raises(ConfigError, match="cannot stand beside continue_from"):
        next(fit(replace(config, init_from="a", continue_from="b")))


@pytest.mark.slow
def test_a_quantized_network_comes_back_with_the_floats_it_was_trained_in(file: Path) -> None:
    """Names as Distiller's quantization-aware training leaves them."""
    model, optimizer = trained()
    masks = halved(model)
    content = content_of(model, optimizer, {})
    state = collections.OrderedDict()
    for name, value in model.state_dict().items():
        layer, _, attribute = name.rpartition(".")
        state[f"module.{layer}.float_{attribute}"] = value
        state[name] = value.round()
        state |= {f"{name}_scale": torch.ones(1), f"{name}_zero_point": torch.zeros(1)}
    state["module.relu1.fake_q.tracked_min"] = torch.zeros(1)
    state["module.relu2.clip_val"] = torch.ones(1)
    state["module.inputs_quant.scale"] = torch.ones(1)
    content["compression_sched"] = {"masks_dict": {"module.fc1.float_weight": masks["fc1.weight"]}}
    torch.save({**content, "state_dict": state, "quantizer_metadata": {"type": "Q", "params": {}}}, file)
    read = load_model(file)
    for name, value in model.state_dict().items():
        expected = value * masks[name] if name in masks else value
        assert torch.equal(read.state_dict()[name], expected)


@pytest.mark.parametrize(
    ("kind", "state", "data", "expected"),
    [
        ("f8", (3, "<"), np.array([1.5], "<f8").tobytes(), 1.5),
        ("f8", (3, ">"), np.array([1.5], ">f8").tobytes(), 1.5),
        ("i4", (3, ">"), np.array([7], ">i4").tobytes(), 7),
        ("b1", None, b"\x01", True),
    ],
)
def test_a_number_of_numpys_in_either_order_of_bytes(kind: str, state: object, data: bytes, expected: object) -> None:
    dtype = StandIn(kind, False, True)
    dtype.state = state
    assert _numpy_scalar(StandIn(dtype, data)) == expected
