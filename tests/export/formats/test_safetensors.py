"""A module of plain PyTorch, where the network can be written as one."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from raydistill import models
from raydistill.export import asked_for, deployed, read_manifest, write_artifact
from raydistill.export.formats.safetensors import plain_source


@pytest.mark.slow
@pytest.mark.parametrize("arch", ["simplenet_cifar", "resnet20_cifar", "mobilenet_v2", "densenet121"])
@torch.no_grad()
def test_it_is_the_network_again(arch: str) -> None:
    torch.manual_seed(0)
    model = models.create(arch, 10).eval()
    source = plain_source(model)
    assert "raydistill" not in source
    made: dict[str, type[nn.Module]] = {}
    exec(compile(source, "network.py", "exec"), made)
    again = made["Network"]().eval()
    again.load_state_dict(model.state_dict())
    images = torch.randn(2, 3, 32, 32)
    assert torch.equal(again(images), model(images))


class Scaled(nn.Module):
    """A layer that is not torch's."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(3))

    def forward(self, rows: Tensor) -> Tensor:
        return rows * self.scale


class Odd(nn.Module):
    def forward(self, rows: Tensor) -> Tensor:
        return rows if rows.sum() > 0 else -rows


class Unused(nn.Module):
    """A layer whose weights are in the file and which nothing calls."""

    def __init__(self) -> None:
        super().__init__()
        self.used, self.unused = nn.Linear(3, 3), nn.Linear(3, 3)

    def forward(self, rows: Tensor) -> Tensor:
        return self.used(rows)


@pytest.mark.parametrize("model", [Scaled(), nn.Sequential(Scaled()), Odd(), Unused(), nn.MultiheadAttention(4, 2)])
def test_what_cannot_be_written_so_is_not(model: nn.Module) -> None:
    assert plain_source(model) == ""


@pytest.mark.slow
def test_a_module_that_gives_something_else_is_left_out(
    resnet: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file is run, by itself, before it is kept."""
    spoilt = plain_source(deployed(resnet).model).replace("return ", "return 2 * ")
    monkeypatch.setattr("raydistill.export.formats.safetensors.plain_source", lambda model: spoilt)
    write_artifact(deployed(resnet), asked_for(["safetensors"], "f"), tmp_path / "out", source={}, latency=False)
    assert "network.py" not in read_manifest(tmp_path / "out").file_names
    assert not (tmp_path / "out" / "network.py").exists()
