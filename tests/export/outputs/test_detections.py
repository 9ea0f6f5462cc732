"""Detectors: what two of them have in common, and a trained one in every format, in the format's own runtime."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from raydistill import tasks
from raydistill.datasets import DatasetConfig
from raydistill.export import MENU, Manifest, asked_for, deployed, load, write_artifact
from raydistill.export.formats.packages import has
from raydistill.export.outputs.base import parts
from raydistill.export.outputs.detections import Detections, OneImage, scenes
from raydistill.export.verify import prepared, verified
from raydistill.schedule import parse_schedule
from raydistill.tasks import TaskConfig, Weights
from raydistill.training import RunConfig, evaluate_checkpoint, fit, load_model
from raydistill.training.checkpoint import write_checkpoint
from tests.tasks.detection.shapes import SIDE, small, write

KIND = Detections()
OWN = "tests.tasks.detection.shapes:small"
FORMATS = ("onnx", "pt2", "safetensors", "checkpoint", "bitmask", *(("openvino",) if has("openvino") else ()))


def found(
    *boxes: tuple[float, ...], labels: list[int] | None = None, scores: list[float] | None = None
) -> tuple[Tensor, ...]:
    count = len(boxes)
    return (
        torch.tensor(boxes).reshape(count, 4), torch.tensor(labels or [1] * count),
        torch.tensor(scores or [0.5] * count),
    )  # fmt: skip


A, B = (0.0, 0.0, 10.0, 10.0), (20.0, 5.0, 30.0, 40.0)


@pytest.mark.parametrize(
    ("one", "other", "alone"),
    [
        (found(A, B), found(B, A), 0.0),  # in any order
        (found(A, B), found(A), 1 / 3),
        (found(), found(), 0.0),
        (found(), found(A), 1.0),
        (found(A), found((0.0, 0.0, 10.0, 10.05)), 0.0),
        (found(A), found((0.0, 0.0, 10.0, 11.0)), 1.0),
        (found(A), found(A, labels=[2]), 1.0),
        (found(A), found(A, scores=[0.52]), 1.0),
        (found((3.0, 3.0, 3.0, 3.0)), found((3.0, 3.0, 3.0, 3.0)), 0.0),  # of no size at all
    ],
)
def test_what_only_one_of_two_has(one: tuple[Tensor, ...], other: tuple[Tensor, ...], alone: float) -> None:
    assert KIND.difference(one, other) == pytest.approx(alone)
    assert KIND.difference(other, one) == pytest.approx(alone)


def test_masks_count() -> None:
    mask = torch.zeros(1, 1, 40, 40)
    mask[..., :20, :20] = 1.0
    edge = mask.clone()
    edge[..., 19, :] = 0.0  # 5 % of it
    half = mask.clone()
    half[..., 10:, :] = 0.0
    for other, alone in ((mask, 0.0), (edge, 0.0), (half, 1.0), (mask[..., :30, :], 1.0)):
        assert KIND.difference((*found(A), mask), (*found(A), other)) == alone
    assert KIND.output_names((*found(A), mask), False) == ("boxes", "labels", "scores", "masks")
    assert KIND.output_shapes((*found(A), mask), 1)[3] == (None, 1, None, None)
    assert KIND.output_names(found(A), True) == ("boxes", "labels", "scores")


def test_reference_images_are_ever_the_same() -> None:
    images = list(scenes(20, 30))
    assert all(map(torch.equal, images, scenes(20, 30)))
    assert {tuple(image.shape) for image in images} == {(3, 20, 30)}
    assert all(image.min() >= 0 and image.max() <= 1 for image in images)
    assert len({float(image.sum()) for image in images}) == len(images)


@dataclass(frozen=True)
class Written:
    checkpoint: Path
    folder: Path
    manifest: Manifest
    data: Path


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Written:
    """A detector that has learned a little, half of each layer of its backbone masked."""
    root = tmp_path_factory.mktemp("detector")
    data = write(root / "shapes", {"train": 24, "val": 8})
    schedule = parse_schedule({
        "pruners": {"p": {
            "class": "AutomatedGradualPruner", "initial_sparsity": 0.05, "final_sparsity": 0.5,
            "weights": ["backbone.0.weight", "backbone.3.weight", "backbone.6.weight"],
        }},
        "policies": [{"pruner": {"instance_name": "p"}, "starting_epoch": 0, "ending_epoch": 4, "frequency": 1}],
    }, "agp")  # fmt: skip
    config = RunConfig(
        arch=OWN, task=TaskConfig("detection"), dataset=DatasetConfig("cifar10", data_dir=str(data)), epochs=6,
        batch_size=4, lr=0.05, schedule=schedule, out_dir=str(root / "run"), device="cpu", precision="fp32",
    )  # fmt: skip
    for _ in fit(config):
        pass
    checkpoint = root / "run" / "checkpoint.pt"
    manifest = write_artifact(
        deployed(checkpoint, OWN), asked_for(FORMATS, "f"), root / "out", source={}, latency=False, arch=OWN
    )
    return Written(checkpoint, root / "out", manifest, data)


@pytest.mark.slow
def test_what_the_manifest_says(written: Written) -> None:
    said = written.manifest
    assert said.formats == tuple(name for name in FORMATS if name != "pt2")
    assert list(said.left_out) == ["pt2"]
    assert said.left_out["pt2"].startswith("pt2: torch.export cannot trace the network (")
    assert said.left_out["pt2"].endswith("); use onnx")
    assert "\n" not in said.left_out["pt2"]
    assert said.inputs[0].shape == (3, None, None)
    assert [port.name for port in said.outputs] == ["boxes", "labels", "scores"]
    assert said.classes == ("background", "square", "bar")
    assert (said.gives, said.task["name"]) == ("detections", "detection")
    assert 0.05 < said.network["sparsity"] < 0.5
    assert all(share <= 0.05 for share in said.agreement.values())
    assert not any("finds nothing" in line for line in said.changes), "the comparison would say nothing"


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in FORMATS if name != "pt2"])
@torch.no_grad()
def test_images_of_any_size_get_the_masked_networks_boxes(written: Written, name: str) -> None:
    masked, run = load_model(written.checkpoint, OWN), load(written.folder, name, OWN)
    count = 0
    sizes = [(SIDE, SIDE), (SIDE, SIDE + 22), (40, 56)] if name != "openvino" else [(SIDE, SIDE)]
    for height, width in sizes:
        for image in list(scenes(height, width))[2:]:
            expected = OneImage(masked)(image)
            count += len(expected[0])
            assert KIND.difference(run((image,)), expected) <= 0.05
    assert count > 20


@pytest.mark.slow
def test_each_runtime_has_the_checkpoints_precision_on_the_test_split(written: Written) -> None:
    data = DatasetConfig("cifar10", data_dir=str(written.data))
    task = tasks.load(TaskConfig("detection"), data, Weights(OWN))
    expected = evaluate_checkpoint(written.checkpoint, task, "test", "cpu", arch=OWN).metrics
    assert expected["map_50"] > 0.2
    task = prepared(written.folder, written.manifest, task, OWN)
    for one in verified(written.folder, written.manifest, written.manifest.formats, task, "test", OWN):
        assert (one.fault, one.evaluation is not None) == ("", True)
        assert one.evaluation is not None
        assert one.evaluation.samples == 8
        for figure in ("map", "map_50"):
            assert one.evaluation.metrics[figure] == pytest.approx(expected[figure], abs=1e-3)
        assert "loss" not in one.evaluation.metrics  # which an exported network does not give


@pytest.mark.slow
def test_the_lines_that_use_it_run_as_they_stand(written: Written, tmp_path: Path) -> None:
    image = list(scenes(SIDE, SIDE))[4]
    np.save(tmp_path / "image.npy", image.numpy())
    expected = OneImage(load_model(written.checkpoint, OWN))(image)
    lines = ["import numpy, torch", f"given = numpy.load({str(tmp_path / 'image.npy')!r})"]
    for name in written.manifest.formats:
        lines += [
            f"image = {'torch.from_numpy(given)' if MENU[name].RUNTIME == 'torch' else 'given'}",
            *MENU[name].use(written.manifest),
            "said = [torch.as_tensor(value).detach().numpy() for value in (boxes, labels, scores)]",
            f"numpy.savez({str(tmp_path / name)!r}, *said)",
        ]
    subprocess.run(
        [sys.executable, "-c", "\n".join(lines)], cwd=written.folder, check=True, capture_output=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])},
    )  # fmt: skip
    for name in written.manifest.formats:
        with np.load(tmp_path / f"{name}.npz") as said:
            own = tuple(torch.from_numpy(said[f"arr_{index}"]) for index in range(3))
        assert KIND.difference(own, expected) <= 0.05, name


def blind(num_classes: int) -> nn.Module:
    """It finds nothing, whatever it sees."""
    model = small(num_classes)
    model.roi_heads.score_thresh = 2.0
    return model


@pytest.mark.slow
def test_one_that_finds_nothing_is_said(tmp_path: Path) -> None:
    arch = f"{__name__}:blind"
    said = {"run": {"arch": arch, "model_args": {}}, "num_classes": 3, "image_shape": [3, SIDE, SIDE]}
    write_checkpoint(tmp_path / "c.pt", {**said, "structure": [], "model": blind(3).state_dict()})
    network = deployed(tmp_path / "c.pt", arch)
    assert not any(map(torch.numel, parts(network.outputs)))
    assert network.deployment.notes[-1].startswith("it finds nothing in the reference images: hold it against images")
    manifest = write_artifact(
        network, asked_for(["checkpoint"], "f"), tmp_path / "out", source={}, latency=False, arch=arch
    )
    assert (manifest.largest_output, manifest.agreement) == (0.0, {"checkpoint": 0.0})
