"""Which blocks a network can do without, and why not the others."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from raydistill.compression.thinning.depth import blocks_of
from raydistill.models import create
from raydistill.models.decoder_lm import DecoderLM
from tests.compression.thinning.conftest import unsettled


class Block(nn.Module):
    """A residual block of a kind: plain, normalized after its sum, told apart by what it gives beside its states."""

    def __init__(self, kind: str = "plain") -> None:
        super().__init__()
        self.kind, self.norm = kind, nn.LayerNorm(6)
        self.mlp = nn.Sequential(nn.Linear(6, 9), nn.ReLU(), nn.Linear(9, 6))

    def forward(self, x: Tensor) -> object:
        found = x + self.mlp(self.norm(x)) if self.kind != "after" else self.norm(x + self.mlp(x)) + 1.0
        return (found, x.sum()) if self.kind == "more" else (found, None) if self.kind == "pair" else found


class Net(nn.Module):
    def __init__(self, *blocks: nn.Module) -> None:
        super().__init__()
        self.blocks, self.head = nn.ModuleList(blocks), nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x)
            x = x[0] if isinstance(x, tuple) else x
        return self.head(x)


X = torch.randn(2, 5, 6)


def test_all_parameters_of_a_block_are_its_own() -> None:
    model = Net(Block(), Block("pair")).eval()
    found = blocks_of(model, X)
    assert found.innermost == ("blocks.0", "blocks.1")
    assert not found.refused
    assert set(found.parameters["blocks.1"]) == {f"blocks.1.{name}" for name, _ in model.blocks[1].named_parameters()}
    before = model(X)
    assert torch.equal(before, model(X)), "the network is left as it is"
    with torch.no_grad():
        for name in found.parameters["blocks.1"]:
            model.get_parameter(name).zero_()
    without = Net(model.blocks[0])
    without.head = model.head
    torch.testing.assert_close(model(X), without(X))


def test_what_cannot_go_says_why() -> None:
    shared = Block()
    shared.mlp[0].weight = (other := Block()).mlp[0].weight
    twice = Block()
    model = Net(Block(), Block("after"), Block("more"), shared, other, twice, twice).eval()
    found = blocks_of(model, X)
    assert found.innermost == ("blocks.0",)
    assert found.refused == {
        "blocks.1": "gives something else than its input where its weights are zero",
        "blocks.2": "gives more than its hidden states",
        "blocks.3": "shares blocks.4.mlp.0.weight",
        "blocks.4": "shares blocks.3.mlp.0.weight",
        "blocks.5": "is called more than once",
    }


def test_blocks_that_hold_others_are_known_too() -> None:
    model = Net(nn.Sequential(Block(), Block()), Block()).eval()
    found = blocks_of(model, X)
    assert set(found.parameters) == {"blocks.0", "blocks.0.0", "blocks.0.1", "blocks.1"}
    assert found.innermost == ("blocks.0.0", "blocks.0.1", "blocks.1")


@pytest.mark.slow
def test_convolutional_networks_and_language_models() -> None:
    torch.manual_seed(0)
    resnet = unsettled(create("resnet20_cifar", 10)).eval()
    found = blocks_of(resnet, torch.randn(2, 3, 16, 16))
    numbers = ("1.0", "1.1", "1.2", "2.1", "2.2", "3.1", "3.2")
    assert found.innermost == tuple(f"layer{number}" for number in numbers)
    model = DecoderLM(50, 32, 3, 4, 0.0, 16).eval()
    assert blocks_of(model, torch.arange(18).view(2, 9)).innermost == ("blocks.0", "blocks.1", "blocks.2")
