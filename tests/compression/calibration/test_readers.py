"""Which calls show what a weight is multiplied by, and which weights have none."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from raydistill.compression.calibration.readers import Reader, readers
from raydistill.errors import ConfigError


class Shared(nn.Module):
    """An embedding tied to the decoder, and two layers of one weight."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.decoder = nn.Embedding(6, 4), nn.Linear(4, 6, bias=False)
        self.decoder.weight = self.encoder.weight
        self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4)
        self.second.weight = self.first.weight
        self.attention = nn.MultiheadAttention(4, 2)
        self.lstm = nn.LSTM(4, 4)


def test_each_weight_has_its_readers() -> None:
    found = readers(Shared(), ["first.weight", "attention.in_proj_weight", "attention.out_proj.weight"])
    assert found == {
        "first.weight": (Reader("first", "weight"), Reader("second", "weight")),
        "attention.in_proj_weight": (Reader("attention", "in_proj_weight"),),
        "attention.out_proj.weight": (Reader("attention", "out_proj.weight"),),
    }


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("encoder.weight", "encoder.weight: is of Embedding, of which is not known what it is multiplied by; leave it"),
        ("lstm.weight_ih_l0", "lstm.weight_ih_l0: is of LSTM, of which"),
    ],
)
def test_what_is_not_only_multiplied_by_is_refused(name: str, expected: str) -> None:
    with pytest.raises(ConfigError) as raised:
        readers(Shared(), [name])
    assert str(raised.value).startswith(expected)


def test_the_other_name_of_a_tied_weight_is_said() -> None:
    model = nn.ModuleDict({"decoder": nn.Linear(4, 6, bias=False), "encoder": nn.Embedding(6, 4)})
    model["encoder"].weight = model["decoder"].weight
    with pytest.raises(ConfigError, match=r"decoder\.weight: shared as encoder\.weight, is of Embedding"):
        readers(model, ["decoder.weight"])


def test_weights_in_one_memory_are_refused() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2))
    model[1].weight = nn.Parameter(model[0].weight.detach()[:2])
    with pytest.raises(ConfigError, match=r"0\.weight: shares its memory with 1\.weight"):
        readers(model, ["0.weight"])
    with pytest.raises(ConfigError, match=r"shares its memory with"):
        readers(model, ["0.weight", "1.weight"])


def test_transposed_convolutions_and_computed_weights_are_refused() -> None:
    model = nn.Sequential(nn.ConvTranspose2d(2, 3, 2), torch.nn.utils.parametrizations.weight_norm(nn.Linear(3, 3)))
    with pytest.raises(ConfigError, match="is of ConvTranspose2d"):
        readers(model, ["0.weight"])
    with pytest.raises(ConfigError, match="of which is not known"):
        readers(model, ["1.parametrizations.weight.original1"])
