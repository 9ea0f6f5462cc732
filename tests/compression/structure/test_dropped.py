"""The record of blocks that are gone."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from raydistill.compression.structure import Dropped, structure_from, structure_state
from raydistill.compression.structure.dropped import Rest, Shift
from raydistill.errors import CheckpointError


def test_what_is_left_of_a_block() -> None:
    x = torch.randn(2, 3, 4, 4)
    assert torch.equal(Shift(True)(x), x)
    assert not Shift(False)(x).any()
    images = Shift(True, 3, -3, 2)
    images.value.data = torch.tensor([1.0, 2.0, 3.0])
    found, none = images(None, x, other=torch.zeros(1))
    assert none is None
    torch.testing.assert_close(found, x + torch.tensor([1.0, 2.0, 3.0]).view(3, 1, 1))


def test_it_is_made_again() -> None:
    dropped = Dropped({"1": Rest(False, 4, -1, 0)})
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 4)).double().eval()
    (again,) = structure_from(structure_state([dropped]))
    assert again == dropped
    again.apply(model)
    assert isinstance(model[1], Shift)
    assert model[1].value.dtype == torch.float64
    assert not model[1].training


@pytest.mark.parametrize(
    ("state", "fault"),
    [
        ({"blocks": 3}, "structure[0].blocks: must map modules to what is left, got 3"),
        ({"blocks": {"1": {"passes": 1}}}, "structure[0].blocks.1: must say whether the input passes"),
        (
            {"blocks": {"1": {"passes": True, "width": -1, "axis": -1, "outputs": 0}}},
            "structure[0].blocks.1.width: must be a whole number from 0 to 16777216, got -1",
        ),
        ({"blocks": {"1": {"passes": True, "width": 1, "outputs": 0}}}, "structure[0].blocks.1.axis: must be"),
    ],
)
def test_a_damaged_record(state: dict[str, object], fault: str) -> None:
    with pytest.raises(CheckpointError) as caught:
        structure_from([{"change": "dropped", **state}])
    assert str(caught.value).startswith(fault)


def test_another_network() -> None:
    with pytest.raises(CheckpointError, match=r"structure\.blocks: the model has no such module, got '7'"):
        Dropped({"0": Rest(True, 0, -1, 0), "7": Rest(True, 0, -1, 0)}).apply(nn.Sequential(nn.Linear(2, 2)))
