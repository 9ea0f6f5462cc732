"""Quantized networks in every format: whole numbers in the file, the quantized network's outputs, as many bytes."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
import zipfile
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.profiler import ProfilerActivity, profile

import raydistill
from raydistill.compression.post_training import calibrate, post_train
from raydistill.compression.quantizers.post_train import PostTrainLinearQuantizer
from raydistill.compression.structure import Quantized, structure_state
from raydistill.errors import ConfigError
from raydistill.export import MENU, asked_for, deployed, load, write_artifact
from raydistill.export.artifact import may_differ
from raydistill.export.formats.packages import has
from raydistill.export.manifest import Manifest
from raydistill.training import load_model
from tests.export.conftest import keep
from tests.export.tokens import Tokens

pytestmark = pytest.mark.slow  # exporters take seconds
NEEDS = {"openvino": "openvino", "pt2e": "torchao"}
HERE = [name for name in MENU if name not in NEEDS or has(NEEDS[name])]
with_torchao = pytest.mark.skipif("pt2e" not in HERE, reason="torchao is not installed")


@pytest.fixture(scope="module")
def written(rounded: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Manifest]:
    folder = tmp_path_factory.mktemp("artifacts") / "rounded"
    return folder, write_artifact(deployed(rounded), asked_for(HERE, "formats"), folder, source={}, latency=False)


def test_no_format_is_left_out(written: tuple[Path, Manifest]) -> None:
    _, manifest = written
    assert manifest.left_out == {}
    assert manifest.rounded
    assert "weights lie on their grids" in " ".join(manifest.changes)


@pytest.mark.parametrize("name", HERE)
@torch.no_grad()
def test_batches_of_any_size_get_the_quantized_networks_answers(
    written: tuple[Path, Manifest], rounded: Path, name: str
) -> None:
    folder, manifest = written
    model, run = load_model(rounded), load(folder, name)
    for rows in (1, 5):
        images = torch.randn(rows, 3, 32, 32)
        assert float((run((images,)) - model(images)).abs().max()) <= may_differ(manifest)


def test_onnx_holds_integers_that_onnxruntime_computes_with(written: tuple[Path, Manifest], tmp_path: Path) -> None:
    import onnx
    import onnxruntime

    folder, _ = written
    model = onnx.load(folder / "model.onnx")
    held = [onnx.numpy_helper.to_array(one) for one in model.graph.initializer]
    assert sum(array.size for array in held if array.dtype == np.int8) > 0.9 * sum(array.size for array in held)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    onnxruntime.InferenceSession(folder / "model.onnx", options, providers=["CPUExecutionProvider"])
    nodes = Counter(node.op_type for node in onnx.load(tmp_path / "optimized.onnx").graph.node)
    assert nodes["Conv"] == 0
    assert nodes["QLinearConv"] == 21
    assert nodes["QLinearAdd"] == 9


@torch.no_grad()
def test_a_file_may_be_twice_as_far_off_as_the_network_is_from_itself(
    written: tuple[Path, Manifest], rounded: Path
) -> None:
    _, manifest = written
    network = deployed(rounded)
    (images,) = network.inputs
    exact = copy.deepcopy(network.model).double()(images.double())
    off = float((exact - network.outputs).abs().max())
    assert 0 < off < 0.05 * manifest.largest_output
    assert manifest.moved_by_rounding == pytest.approx(off, rel=1e-3)
    assert may_differ(manifest) == pytest.approx(0.05 * manifest.largest_output)
    assert may_differ(replace(manifest, moved_by_rounding=manifest.largest_output)) == 2 * manifest.largest_output


@with_torchao
def test_pt2e_is_computed_in_integer_kernels(written: tuple[Path, Manifest]) -> None:
    run = load(written[0], "pt2e")
    for rows in (1, 5, 3):  # each size has kernels of its own
        images = torch.randn(rows, 3, 32, 32)
        run((images,))
        with profile(activities=[ProfilerActivity.CPU]) as profiled:
            run((images,))
        kernels = Counter({event.key: event.count for event in profiled.key_averages()})
        assert kernels["onednn::qconv_pointwise"] == 21
        assert kernels["onednn::qlinear_pointwise"] == 1
        assert kernels["aten::convolution"] == kernels["aten::addmm"] == kernels["mkldnn::_convolution_pointwise"] == 0


@with_torchao
def test_pt2e_of_tokens_takes_batches_of_any_size(tmp_path: Path) -> None:
    """torchao's patterns of three-dimensional linear layers fail where the size of the batch is left open."""
    arch, model, images = "tests.export.tokens:Tokens", Tokens().eval(), torch.randn(16, 3, 32, 32)
    quantizer = PostTrainLinearQuantizer("q", per_channel_wts=True)
    report = post_train(model, quantizer, (images,), calibrate(model, (images,), lambda: iter([(images,)]), quantizer))
    said = {"structure": structure_state([report.folded, Quantized(report.plan)]), "model": model.state_dict()}
    path = keep(tmp_path / "checkpoint.pt", "simplenet_cifar", 0.0, run={"arch": arch, "model_args": {}}, **said)
    network = deployed(path, arch=arch)
    manifest = write_artifact(network, asked_for(["pt2e"], "f"), tmp_path / "a", source={}, latency=False, arch=arch)
    run = load(tmp_path / "a", "pt2e", arch=arch)
    for rows in (1, 2, 7):
        with torch.no_grad():
            expected = model(images[:rows])
        assert float((run((images[:rows],)) - expected).abs().max()) <= may_differ(manifest)


@with_torchao
def test_the_lines_that_use_pt2e_run_as_they_stand(written: tuple[Path, Manifest], rounded: Path) -> None:
    folder, manifest = written
    code = ["import torch", "torch.manual_seed(0)", "images = torch.randn(3, 3, 32, 32)", *MENU["pt2e"].use(manifest)]
    code += ["print(logits.tolist())"]
    ended = subprocess.run([sys.executable, "-c", "\n".join(code)], cwd=folder, check=True, capture_output=True)
    torch.manual_seed(0)
    with torch.no_grad():
        expected = load_model(rounded)(torch.randn(3, 3, 32, 32))
    found = torch.tensor(json.loads(ended.stdout))
    assert float((found - expected).abs().max()) <= may_differ(manifest)


def test_no_file_names_places_of_this_machine(written: tuple[Path, Manifest]) -> None:
    folder, _ = written
    places = [str(Path(module.__file__).parent).encode() for module in (torch, raydistill) if module.__file__]
    assert len(places) == 2
    held = [(folder / "model.onnx").read_bytes()]
    for file in folder.glob("*.pt2"):
        with zipfile.ZipFile(file) as archive:
            held += [archive.read(member) for member in archive.namelist()]
    assert len(held) > 10
    assert not [place for place in places for content in held if place in content]


def test_archives_hold_the_shapes_of_sample_inputs_and_no_samples(written: tuple[Path, Manifest]) -> None:
    folder, _ = written
    for file in folder.glob("*.pt2"):
        (images,), named = torch.export.load(file).example_inputs
        assert (tuple(images.shape), images.dtype, named) == ((2, 3, 32, 32), torch.float32, {})
        with zipfile.ZipFile(file) as archive:
            assert sum(one.file_size for one in archive.infolist() if "sample_inputs" in one.filename) < 4096


def test_weights_take_the_bytes_that_a_sweep_would_say(written: tuple[Path, Manifest]) -> None:
    from safetensors.torch import load_file

    folder, manifest = written
    for file, figure in (("model.safetensors", "size_bytes"), ("model.bitmask.safetensors", "compressed_size_bytes")):
        held = sum(tensor.nbytes for tensor in load_file(folder / file).values())
        assert abs(held - manifest.network[figure]) <= 0.02 * held  # each row of a bitmask begins a byte
    whole = load_file(folder / "model.safetensors")
    assert sum(tensor.nbytes for tensor in whole.values()) == manifest.network["size_bytes"] + _counters(whole)


def _counters(held: dict[str, torch.Tensor]) -> int:
    """What a checkpoint keeps beside parameters and buffers: nothing, once batch norms are folded."""
    return sum(tensor.nbytes for name, tensor in held.items() if name.endswith("num_batches_tracked"))


def test_pt2_holds_no_floats_beside_the_numbers(written: tuple[Path, Manifest]) -> None:
    program = torch.export.load(written[0] / "model.pt2")
    sizes = Counter[str]()
    for tensor in (*program.state_dict.values(), *program.constants.values()):
        sizes["float" if tensor.is_floating_point() else "whole"] += tensor.nbytes
    assert sizes["float"] < 0.1 * sizes["whole"]


@with_torchao
def test_a_float_network_has_no_pt2e(resnet: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="pt2e: is for quantized networks, and this one is not"):
        MENU["pt2e"].write(deployed(resnet), tmp_path)


def test_pt2e_without_torchao_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("raydistill.export.formats.packages.has", lambda package: package != "torchao")
    with pytest.raises(ConfigError, match=r"formats pt2e: needs the package torchao.*pip install torchao"):
        asked_for(["pt2e"], "formats")
