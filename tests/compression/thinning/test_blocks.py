"""Blocks that do nothing are gone as a whole."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from raydistill.compression.deployment import deploy
from raydistill.compression.structure import replay, structure_from, structure_state
from raydistill.compression.thinning.blocks import drop_blocks
from raydistill.models.decoder_lm import DecoderLM
from tests.compression.thinning.conftest import relative, unsettled

TOKENS = torch.arange(18).view(2, 9)


def decoder() -> DecoderLM:
    torch.manual_seed(0)
    model = DecoderLM(50, 32, 3, 4, 0.0, 16).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):
                parameter.normal_(std=0.1)
        model.blocks[1].mlp.down.weight.zero_()
        model.blocks[1].attention.out.weight.zero_()  # a whole block, but for its constants
        model.blocks[2].mlp.down.weight.zero_()
        model.blocks[2].mlp.down.bias.zero_()  # half of one
    return model


@pytest.mark.slow
def test_a_block_and_half_of_one() -> None:
    model = decoder()
    expected = model(TOKENS).detach()
    dropped = drop_blocks(model, TOKENS)
    assert {name: (rest.passes, rest.width) for name, rest in dropped.blocks.items()} == {
        "blocks.1": (True, 32),
        "blocks.2.mlp": (False, 0),
    }
    assert relative(expected, model(TOKENS).detach()) < 1e-5
    fresh = replay(DecoderLM(50, 32, 3, 4, 0.0, 16), structure_from(structure_state([dropped]))).eval()
    fresh.load_state_dict(model.state_dict())
    assert relative(expected, fresh(TOKENS).detach()) < 1e-5


@pytest.mark.slow
def test_a_deployed_network_is_without_them() -> None:
    model = decoder()
    expected = model(TOKENS).detach()
    done = deploy(model, (TOKENS,))
    assert any("2 blocks gone that did nothing: blocks.1, blocks.2.mlp" in line for line in done.lines)
    assert relative(expected, model(TOKENS).detach()) < 1e-5
    assert not any("blocks.1.attention" in name for name, _ in model.named_parameters())


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4)

    def forward(self, x: Tensor) -> Tensor:
        return (x + self.norm(self.conv(x))).relu()


def convs() -> nn.Sequential:
    torch.manual_seed(0)
    return unsettled(nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), Block(), Block(), nn.Flatten(), nn.Linear(64, 2)))


@pytest.mark.slow
def test_a_block_that_a_norm_has_scaled_to_nothing() -> None:
    model = convs()
    with torch.no_grad():
        model[2].norm.weight.zero_()
        model[2].norm.bias.zero_()
    x = torch.randn(2, 3, 4, 4)
    expected = model(x).detach()
    done = deploy(model, (x,))
    assert any("1 block gone that did nothing: 2" in line for line in done.lines)
    assert relative(expected, model(x).detach()) < 1e-5


def test_what_does_something_stays() -> None:
    model = convs()
    assert not drop_blocks(model, torch.randn(2, 3, 4, 4))
    with torch.no_grad():
        model[2].norm.weight.zero_()  # its shift goes through a ReLU
    assert set(drop_blocks(model, torch.randn(2, 3, 4, 4)).blocks) == {"2.norm"}


def test_a_module_that_is_called_twice_stays() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.out = nn.Linear(4, 4), nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.out(x + self.one(self.one(x)))

    model = Twice().eval()
    with torch.no_grad():
        model.one.weight.zero_()
    assert not drop_blocks(model, torch.randn(3, 4))
