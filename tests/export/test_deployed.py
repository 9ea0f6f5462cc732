"""What is delivered of a checkpoint, beside what was trained."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from raydistill.errors import CheckpointError
from raydistill.export.deployed import REFERENCE_SAMPLES, deployed
from raydistill.export.outputs.tensor import FirstOutput
from raydistill.training import load_model
from raydistill.training.checkpoint import read_checkpoint, write_checkpoint
from tests.export.conftest import CLASSES, SEEN, keep


@pytest.mark.slow
@torch.no_grad()
def test_a_pruned_network(resnet: Path) -> None:
    found = deployed(resnet)
    masked = load_model(resnet)
    assert found.inputs[0].shape == (REFERENCE_SAMPLES, 3, 32, 32)
    assert torch.equal(found.outputs, masked(found.inputs[0]))
    assert (found.model(*found.inputs) - found.outputs).abs().max() < 1e-4 * found.outputs.abs().max()
    zeros = sum(int((p == 0).sum()) for p in masked.parameters() if p.dim() > 1)
    assert found.sparsity == pytest.approx(zeros / sum(p.numel() for p in masked.parameters() if p.dim() > 1))
    assert not any(isinstance(module, nn.BatchNorm2d) for module in found.model.modules())
    assert (found.input_names, found.output_names) == (("images",), ("logits",))
    assert found.classes == CLASSES
    assert found.preprocessing is not None
    assert {key: found.preprocessing[key] for key in SEEN} == SEEN
    assert [tuple(value.shape) for value in found.batch(11)] == [(11, 3, 32, 32)]
    assert torch.equal(found.batch(11)[0][8:], found.inputs[0][:3])


@pytest.mark.slow
@torch.no_grad()
def test_its_checkpoint_holds_what_is_delivered(resnet: Path, tmp_path: Path) -> None:
    found = deployed(resnet)
    write_checkpoint(tmp_path / "again.pt", found.checkpoint())
    assert [change["change"] for change in read_checkpoint(tmp_path / "again.pt")["structure"]] == ["thinned", "folded"]
    assert torch.equal(load_model(tmp_path / "again.pt")(*found.inputs), found.model(*found.inputs))


@pytest.mark.slow
@torch.no_grad()
def test_a_file_that_does_not_say_its_structure(resnet: Path, tmp_path: Path) -> None:
    """Older ones, and Distiller's: what was thinned shows in their shapes, and goes into the list."""
    thinned = deployed(keep(tmp_path / "one.pt", "simplenet_cifar")).checkpoint()
    del thinned["structure"]
    write_checkpoint(tmp_path / "silent.pt", thinned)
    found = deployed(tmp_path / "silent.pt")
    write_checkpoint(tmp_path / "again.pt", found.checkpoint())
    assert torch.equal(load_model(tmp_path / "again.pt")(*found.inputs), found.model(*found.inputs))


@torch.no_grad()
def test_a_language_model_reads_time_first(tmp_path: Path) -> None:
    arch = "word_lang_model"
    torch.manual_seed(0)
    from raydistill import models

    model = models.create(arch, 50, {"emsize": 8, "nhid": 8, "nlayers": 1})
    content = {
        "run": {"arch": arch, "model_args": {"emsize": 8, "nhid": 8, "nlayers": 1}},
        "num_classes": 50, "structure": [], "model": model.state_dict(),
    }  # fmt: skip
    write_checkpoint(tmp_path / "lm.pt", content)
    found = deployed(tmp_path / "lm.pt")
    assert found.batch_axes == (1,)
    assert found.batch(3)[0].shape == (35, 3)
    assert isinstance(found.model, FirstOutput)  # the state is left out
    assert torch.equal(found.model(*found.inputs), found.outputs)
    assert (found.input_names, found.output_names) == (("input",), ("output",))


@pytest.mark.slow
def test_a_factory_of_ones_own_is_the_users_to_name(tmp_path: Path) -> None:
    path = keep(tmp_path / "own.pt", "simplenet_cifar")
    content = read_checkpoint(path)
    content["run"]["arch"] = "raydistill.models.simplenet:simplenet_cifar"
    write_checkpoint(path, content)
    with pytest.raises(CheckpointError, match="called only where you name it yourself"):
        deployed(path)
    assert deployed(path, "raydistill.models.simplenet:simplenet_cifar").network.arch.endswith(":simplenet_cifar")
