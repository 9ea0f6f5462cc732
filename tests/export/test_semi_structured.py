"""2:4 is seen where it is, and said to be faster only where it is."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import nn

from raydistill.compression.masks import largest_of_each_group
from raydistill.errors import ConfigError
from raydistill.export import asked_for, deployed, read_manifest, write_artifact
from raydistill.export.semi_structured import convert, is_two_of_four, said, two_of_four
from tests.export.conftest import keep


@torch.no_grad()
def network(*layers: str) -> nn.Module:
    """The weights of these layers in 2:4."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 4, 3), nn.Linear(64, 32), nn.Linear(32, 6))
    for layer in layers:
        weight = model.get_submodule(layer).weight
        scores = weight.abs().movedim(1, -1)
        weight.mul_(largest_of_each_group(scores, 2, 4).movedim(-1, 1))
    return model


def test_it_is_seen_over_the_inputs_of_linear_layers_and_convolutions() -> None:
    found = two_of_four(network("1", "2", "3"))
    assert [(each.name, each.elements, each.fits) for each in found] == [
        ("1.weight", 288, False), ("2.weight", 2048, True), ("3.weight", 192, False),
    ]  # fmt: skip
    assert two_of_four(network()) == ()


def test_what_is_pruned_in_another_way_is_not() -> None:
    weight = torch.ones(8, 8)
    assert not is_two_of_four(weight)
    weight[:, ::2] = 0
    assert is_two_of_four(weight)
    assert is_two_of_four(weight * torch.tensor([1.0] * 4 + [0.0] * 4).view(8, 1).roll(1, 0).cumsum(0).clamp(max=1))
    weight[3, 0] = 1
    assert not is_two_of_four(weight), "three of four"
    assert not is_two_of_four(torch.zeros(8, 8))
    assert not is_two_of_four(torch.eye(8)), "hardly anything"
    assert not is_two_of_four(torch.eye(6))
    assert not is_two_of_four(torch.zeros(8))


def test_it_is_said_for_a_person() -> None:
    assert said((), 10) == ()
    some = said(two_of_four(network("1", "2")), 4672)
    assert (
        some[0]
        == "2 weights keep 2 of every 4 inputs, 50 % of the parameters: no faster on CPUs, and in no file written here"
    )
    assert some[1].startswith("1 of them can be made faster with raydistill.export.semi_structured.convert, in half")
    alone = said(two_of_four(network("3")), 192)
    assert alone[0].startswith("1 weight keeps 2 of every 4 inputs, 100 %")
    assert "no GPU is faster either" in alone[1]


def test_elsewhere_it_is_refused_and_nothing_is_changed() -> None:
    model = network("2")
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(ConfigError, match=r"2\.weight: is no faster in 2:4 but on an NVIDIA GPU.*got 'cpu'"):
        convert(model)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    with pytest.raises(ConfigError, match="keeps 2 of every 4 inputs; prune with n: 2, m: 4"):
        convert(network())


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu_outputs_stay() -> None:
    model = network("2")[2].cuda().half()
    rows = torch.randn(128, 64, device="cuda", dtype=torch.float16)
    expected = model(rows)
    assert convert(model) == ("weight",)
    torch.testing.assert_close(model(rows), expected, rtol=1e-2, atol=1e-2)


@pytest.mark.slow
def test_an_artifact_says_it(tmp_path: Path) -> None:
    path = keep(tmp_path / "checkpoint.pt", "simplenet_cifar", share=0.0)
    content = torch.load(path, weights_only=True)
    weight = content["model"]["fc1.weight"]
    weight.mul_(largest_of_each_group(weight.abs(), 2, 4))
    torch.save(content, path)
    manifest = write_artifact(deployed(path), asked_for(["checkpoint"], "f"), tmp_path / "a", source={}, latency=False)
    assert manifest.semi_structured == read_manifest(tmp_path / "a").semi_structured == ("fc1.weight",)
    assert any(line.startswith("1 weight keeps 2 of every 4 inputs, 7") for line in manifest.changes)
    assert json.loads((tmp_path / "a" / "manifest.json").read_text())["semi_structured"] == ["fc1.weight"]
