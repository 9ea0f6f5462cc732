"""Parts are tried on copies: whichever of a block's numbers must go down for its code to run are found."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from raydistill.compression.structure import Thinned
from raydistill.compression.thinning.heads import WIDTHS, head_cut
from raydistill.compression.thinning.labels import follow
from raydistill.compression.thinning.parts import Taken, Trial, block_of
from tests.compression.thinning.attentions import Apart, Fused, Net


class Confusing(Fused):
    """Also holds numbers that are the same by chance, and one that its code needs as it is."""

    def __init__(self) -> None:
        super().__init__()
        self.window, self.channels, self.ready = 4, 16, True

    def forward(self, x: Tensor) -> Tensor:
        assert x.shape[2] == self.channels
        return super().forward(x)


def trial(model: nn.Module) -> Taken | None:
    x = torch.randn(2, 5, 6)
    (site,) = follow(copy.deepcopy(model).double(), x.double()).sites
    cut = head_cut(site, model, ("channels",), WIDTHS[-1])
    assert cut is not None
    return Trial(model, x).take(Taken(), [[cut]])


@pytest.mark.slow
def test_numbers_that_the_code_needs_go_down_and_others_stay() -> None:
    torch.manual_seed(0)
    model = Net(Confusing()).eval()
    with torch.no_grad():
        model.attention.out.weight[:, 4:8] = 0
    taken = trial(model)
    assert taken is not None
    assert taken.attributes["attention"].items() >= {"num_heads": (4, 3), "inner": (16, 12)}.items()
    assert "channels" not in taken.attributes["attention"]
    assert "head_dim" not in taken.attributes["attention"]
    assert "ready" not in taken.attributes["attention"]
    assert model.attention.qkv.weight.shape == (48, 16), "the model itself is left as it is"
    assert isinstance(taken.change(model), Thinned)


class Refusing(Apart):
    def forward(self, x: Tensor) -> Tensor:
        if self.q.out_features != 16:
            raise RuntimeError("sixteen")
        return super().forward(x)


def test_code_that_refuses_is_left_alone() -> None:
    torch.manual_seed(0)
    model = Net(Refusing()).eval()
    with torch.no_grad():
        model.attention.out.weight[:, 4:8] = 0
    assert trial(model) is None


def test_a_block_is_the_smallest_that_holds_all_its_layers() -> None:
    model = nn.ModuleDict({"one": nn.ModuleDict({"q": nn.Linear(2, 2), "k": nn.Linear(2, 2)}), "two": nn.Linear(2, 2)})
    assert [name for name, _ in block_of(model, ["one.q", "one.k"])] == ["one", "one.q", "one.k"]
    assert [name for name, _ in block_of(model, ["one.q", "two"])] == ["", "one", "one.q", "one.k", "two"]
    assert [name for name, _ in block_of(model, ["one.q"])] == ["one", "one.q", "one.k"]
