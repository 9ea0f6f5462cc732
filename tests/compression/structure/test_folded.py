"""Batch norms folded into the layers before them, the record of it, and its saved form."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn

from raydistill.compression.structure import Folded, replay, structure_from, structure_state
from raydistill.errors import CheckpointError
from tests.compression.structure.test_thinned import through_a_file
from tests.compression.thinning.conftest import relative, unsettled

LAYERS: dict[str, tuple[nn.Module, nn.Module, tuple[int, ...]]] = {
    "conv": (nn.Conv2d(4, 6, 3), nn.BatchNorm2d(6), (2, 4, 7, 7)),
    "without a bias": (nn.Conv2d(4, 6, 3, bias=False), nn.BatchNorm2d(6), (2, 4, 7, 7)),
    "depthwise": (nn.Conv2d(4, 8, 3, groups=4, bias=False), nn.BatchNorm2d(8), (2, 4, 7, 7)),
    "grouped": (nn.Conv2d(4, 6, 3, groups=2), nn.BatchNorm2d(6), (2, 4, 7, 7)),
    "transposed": (nn.ConvTranspose2d(4, 6, 3, stride=2), nn.BatchNorm2d(6), (2, 4, 5, 5)),
    "transposed, grouped": (nn.ConvTranspose2d(4, 6, 3, groups=2, bias=False), nn.BatchNorm2d(6), (2, 4, 5, 5)),
    "of one dimension": (nn.Conv1d(4, 6, 3), nn.BatchNorm1d(6), (2, 4, 9)),
    "of three": (nn.Conv3d(2, 3, 2), nn.BatchNorm3d(3), (2, 2, 4, 4, 4)),
    "linear": (nn.Linear(5, 6), nn.BatchNorm1d(6), (3, 5)),
    "not affine": (nn.Conv2d(4, 6, 3), nn.BatchNorm2d(6, affine=False), (2, 4, 7, 7)),
    "channels last": (nn.Conv2d(4, 6, 3).to(memory_format=torch.channels_last), nn.BatchNorm2d(6), (2, 4, 7, 7)),
}


def pair(name: str) -> tuple[nn.Module, torch.Tensor]:
    torch.manual_seed(0)
    layer, norm, shape = copy.deepcopy(LAYERS[name])
    return unsettled(nn.Sequential(layer, norm)).eval(), torch.randn(shape)


@pytest.mark.parametrize("name", LAYERS)
@torch.no_grad()
def test_the_layer_alone_gives_what_both_gave(name: str) -> None:
    model, inputs = pair(name)
    folded = copy.deepcopy(model)
    Folded({"0": "1"}).apply(folded)
    assert isinstance(folded[1], nn.Identity)
    assert relative(folded(inputs), model(inputs)) < 1e-5
    assert relative(folded(inputs), model[0](inputs)) > 0.01


@torch.no_grad()
def test_it_is_made_again_to_a_fresh_network_and_takes_its_weights() -> None:
    model, inputs = pair("without a bias")
    Folded({"0": "1"}).apply(model)
    saved = through_a_file({"model": model.state_dict(), "structure": structure_state([Folded({"0": "1"})])})
    fresh = replay(pair("without a bias")[0], structure_from(saved["structure"]))
    fresh.load_state_dict(saved["model"])
    assert torch.equal(fresh(inputs), model(inputs))


@pytest.mark.parametrize(
    ("norms", "says"),
    [
        ({"0": "2"}, "has no such layer, got '2'"),
        ({"1": "0"}, "'1' cannot take up its '0'"),
        ({"3": "1"}, "'3' cannot take up its '1'"),
    ],
)
def test_what_does_not_fit_changes_nothing(norms: dict[str, str], says: str) -> None:
    model, _ = pair("conv")
    model.add_module("3", nn.Conv2d(6, 7, 1))  # of another width
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(CheckpointError, match=says):
        Folded({"0": "1", **norms} if "0" not in norms else norms).apply(model)
    after = model.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], before[name]) for name in before)


@pytest.mark.parametrize(
    ("state", "says"),
    [
        ({}, "must map layers to batch norms"),
        ({"norms": ["a"]}, "must map layers to batch norms"),
        ({"norms": {"a": 1}}, "must map layers to batch norms"),
        ({"norms": {"a": "c", "b": "c"}}, "each batch norm once"),
    ],
)
def test_a_damaged_record_is_one_line(state: Any, says: str) -> None:
    with pytest.raises(CheckpointError, match=says) as caught:
        structure_from([{"change": "folded", **state}])
    assert len(str(caught.value).splitlines()) == 1
