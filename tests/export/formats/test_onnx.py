from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from raydistill.compression.deployment import deploy
from raydistill.compression.post_training import calibrate, post_train
from raydistill.compression.quantizers.post_train import PostTrainLinearQuantizer
from raydistill.errors import ConfigError
from raydistill.export import write_onnx

pytest.importorskip("onnx")
runtime = pytest.importorskip("onnxruntime")


def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 5)).eval()


@pytest.mark.slow
def test_batches_of_any_size_get_the_networks_answers(tmp_path: Path) -> None:
    model, path = net(), tmp_path / "net.onnx"
    size = write_onnx(model, torch.zeros(1, 3, 8, 8), path, {"preprocessing": {"mean": [0.5]}})
    assert size == path.stat().st_size
    session = runtime.InferenceSession(path)
    assert session.get_modelmeta().custom_metadata_map == {"preprocessing": '{"mean": [0.5]}'}
    for rows in (1, 2, 7):
        images = torch.randn(rows, 3, 8, 8)
        (found,) = session.run(None, {session.get_inputs()[0].name: images.numpy()})
        np.testing.assert_allclose(found, model(images).detach().numpy(), atol=1e-5)


class Odd(nn.Module):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images if float(images.sum()) > 0 else -images  # which way is known only when it runs


@pytest.mark.slow
def test_a_network_that_cannot_be_exported_is_one_line_and_leaves_no_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        write_onnx(Odd(), torch.zeros(1, 3), tmp_path / "odd.onnx", where="--export-onnx")
    assert str(caught.value).startswith("--export-onnx: the network cannot be exported (")
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_ranges_found_anew_cannot_be_written_and_the_network_goes_on(tmp_path: Path) -> None:
    model, x = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)), torch.randn(4, 3)
    post_train(model, PostTrainLinearQuantizer("q"), (x,))
    before = model(x)
    with pytest.raises(ConfigError, match="found anew for each batch cannot be written: calibrate"):
        write_onnx(model, x, tmp_path / "q.onnx")
    assert torch.equal(model(x), before)


class Wide(nn.Module):
    """Of an odd count of numbers in one layer: the last byte holds one."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.fc = nn.Conv2d(1, 3, 3), nn.Linear(3 * 36, 600)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return torch.as_tensor(self.fc(torch.relu(self.conv(images)).flatten(1)))


@pytest.mark.slow
@pytest.mark.parametrize("activations", [None, 8])
def test_weights_of_4_bits_are_stored_so_and_meet_the_same_kernels(tmp_path: Path, activations: int | None) -> None:
    import onnx

    def kinds(bits: int) -> tuple[int, set[str], float]:
        torch.manual_seed(0)
        model, images = Wide().eval(), torch.randn(4, 1, 8, 8)
        speed = {"weights": "SYMMETRIC", "activations": "ASYMMETRIC_UNSIGNED"}
        quantizer = PostTrainLinearQuantizer(
            "q", bits_parameters=bits, bits_activations=activations, per_channel_wts=True, mode=speed
        )
        found = calibrate(model, (images,), lambda: iter([(images,)]), quantizer)
        post_train(model, quantizer, (images,), found)
        expected = model(images).detach()
        deploy(model, (images,))
        path, used = tmp_path / f"{bits}.onnx", tmp_path / "used.onnx"
        size = write_onnx(model, images[:1], path)
        options = runtime.SessionOptions()
        options.optimized_model_filepath, options.log_severity_level = str(used), 3
        session = runtime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        (given,) = session.run(None, {session.get_inputs()[0].name: images.numpy()})
        difference = float((torch.from_numpy(given) - expected).abs().max() / expected.abs().max())
        stored = {tensor.data_type for tensor in onnx.load(path).graph.initializer if len(tensor.dims) > 1}
        assert (stored <= {onnx.TensorProto.INT4}) == (bits <= 4)
        return size, {node.op_type for node in onnx.load(used).graph.node}, difference

    (eight, computed, _), (four, computed_4, difference) = kinds(8), kinds(4)
    assert four < eight - 0.45 * 600 * 108
    assert computed_4 == computed
    assert any("QLinear" in name or "QGemm" in name for name in computed) == (activations is not None)
    assert difference < 0.02
