"""Every format on the menu: what is written gives the masked network's outputs, weighs what is said, and is refused in
one line where it is damaged."""

from __future__ import annotations

import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from raydistill.errors import ConfigError, RaydistillError
from raydistill.export import MENU, Deployed, Manifest, asked_for, deployed, load, write_artifact
from raydistill.export.formats.packages import has
from raydistill.training import load_model
from raydistill.training.footprint import footprint

pytestmark = pytest.mark.slow  # exporters take seconds
HERE = [name for name in MENU if name != "pt2e" and (name != "openvino" or has("openvino"))]  # pt2e: quantized ones


@dataclass(frozen=True)
class Written:
    checkpoint: Path
    folder: Path
    network: Deployed
    manifest: Manifest


@pytest.fixture(scope="module")
def written(resnet: Path, tmp_path_factory: pytest.TempPathFactory) -> Written:
    folder, network = tmp_path_factory.mktemp("artifacts") / "resnet", deployed(resnet)
    manifest = write_artifact(network, asked_for(HERE, "formats"), folder, source={}, latency=False)
    return Written(resnet, folder, network, manifest)


@pytest.mark.parametrize("name", HERE)
@torch.no_grad()
def test_batches_of_any_size_get_the_masked_networks_answers(written: Written, name: str) -> None:
    masked, run = load_model(written.checkpoint), load(written.folder, name)
    for rows in (1, 2, 5):
        images = torch.randn(rows, 3, 32, 32)
        expected = masked(images)
        np.testing.assert_allclose(run((images,)), expected, atol=1e-4 * float(expected.abs().max()))


def test_what_has_to_be_known_to_read_a_file_is_named(written: Written) -> None:
    import onnx

    (opset,) = (said.version for said in onnx.load(written.folder / "model.onnx").opset_import if not said.domain)
    assert written.manifest.versions == {"torch": torch.__version__, "opset": str(opset)}


def tensors_in(written: Written, name: str) -> list[Tensor | np.ndarray]:
    """The weights of a file, read by the format's own library."""
    folder = written.folder
    if name == "onnx":
        import onnx

        return [onnx.numpy_helper.to_array(one) for one in onnx.load(folder / "model.onnx").graph.initializer]
    if name == "pt2":
        return list(torch.export.load(folder / "model.pt2").state_dict.values())
    if name == "safetensors":
        from safetensors.torch import load_file

        return list(load_file(folder / "model.safetensors").values())
    if name == "checkpoint":
        model = load_model(folder / "checkpoint.pt")
        return [*model.parameters(), *model.buffers()]
    return []


@pytest.mark.parametrize("name", ["onnx", "pt2", "safetensors", "checkpoint"])
def test_it_weighs_what_a_sweep_would_say(written: Written, name: str, task: object) -> None:
    said = footprint(written.checkpoint, task)  # type: ignore[arg-type]
    floats = [tensor for tensor in tensors_in(written, name) if "float" in str(tensor.dtype)]
    assert sum(tensor.nbytes for tensor in floats) == said["size_bytes"] == written.manifest.network["size_bytes"]
    masked = load_model(written.checkpoint)
    dense = sum(tensor.nbytes for tensor in masked.state_dict().values())
    assert said["size_bytes"] < 0.6 * dense  # it was thinned


def test_openvino_weighs_it_too(written: Written) -> None:
    if "openvino" not in HERE:
        pytest.skip("openvino is not installed")
    size = (written.folder / "model.bin").stat().st_size
    assert abs(size - written.manifest.network["size_bytes"]) < 4096  # shapes and axes are constants there, too


def test_the_lines_that_use_it_run_as_they_stand(written: Written) -> None:
    code = ["import numpy, torch", "torch.manual_seed(0)", "given = torch.randn(3, 3, 32, 32)"]
    for name in HERE:
        as_array = MENU[name].RUNTIME != "torch"
        code += [f"images = given.numpy() if {as_array} else given", *MENU[name].use(written.manifest)]
        code += [f"numpy.save(out + '/{name}', torch.as_tensor(logits).detach().numpy())"]
    out = written.folder.parent / "answers"
    out.mkdir()
    source = "\n".join([f"out = {str(out)!r}", *code])
    subprocess.run([sys.executable, "-c", source], cwd=written.folder, check=True, capture_output=True)
    torch.manual_seed(0)
    given = torch.randn(3, 3, 32, 32)
    with torch.no_grad():
        expected = load_model(written.checkpoint)(given)
    for name in HERE:
        found = np.load(out / f"{name}.npy")
        np.testing.assert_allclose(found, expected, atol=1e-4 * float(expected.abs().max()), err_msg=name)


@pytest.mark.parametrize("name", HERE)
@pytest.mark.parametrize("damage", ["cut", "gone", "other"])
def test_a_damaged_file_is_one_line(written: Written, tmp_path: Path, name: str, damage: str) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(written.folder, folder)
    (first, *_) = [file.name for file in written.manifest.files if file.format == name]
    content = (folder / first).read_bytes()
    if damage == "gone":
        (folder / first).unlink()
    else:
        (folder / first).write_bytes(content[: len(content) // 2] if damage == "cut" else b"something else")
    with pytest.raises(RaydistillError) as caught:
        load(folder, name)
    assert "\n" not in str(caught.value)
    assert first in str(caught.value)


def test_names_that_are_none_are_said_together() -> None:
    with pytest.raises(ConfigError) as caught:
        asked_for(["onxx", "onnx", "pt"], "--format")
    assert [str(fault) for fault in caught.value.faults] == [
        "--format: no such format, got 'onxx'; did you mean 'onnx'?",
        "--format: no such format, got 'pt'; did you mean 'pt2'?",
    ]
    with pytest.raises(ConfigError, match="needs one format at least"):
        asked_for([], "--format")
