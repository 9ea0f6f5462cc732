"""Blocks that do nothing are gone as a whole."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from raydistill.compression.deployment import deploy
from raydistill.compression.structure import replay, structure_from, structure_state
from raydistill.compression.structure.dropped import Rest
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


class Around(nn.Module):
    """A block between two layers that mix channels. named: it is given its input by name."""

    def __init__(self, block: nn.Module, named: bool = False, width: int = 4) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.block, self.last, self.named = nn.Linear(3, width), block, nn.Linear(width, 2), named

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        found = self.block(x=x) if self.named else self.block(x)
        return self.last(found[0] if isinstance(found, tuple) else found)


class Branch(nn.Module):
    """Its input plus a branch, or the branch alone; as a tuple of so many outputs."""

    def __init__(self, passes: bool, outputs: int = 0, beside: bool = False) -> None:
        super().__init__()
        self.inner, self.passes, self.outputs, self.beside = nn.Linear(4, 4), passes, outputs, beside
        with torch.no_grad():
            self.inner.weight.zero_()

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor | None, ...]:
        result = self.inner(x) + (x if self.passes else 0)
        return (result, *[x if self.beside else None] * (self.outputs - 1)) if self.outputs else result


@pytest.mark.parametrize("named", [False, True])
@pytest.mark.parametrize("outputs", [0, 1, 2])
@pytest.mark.parametrize("constant", [False, True])
@pytest.mark.parametrize("passes", [False, True])
def test_what_is_left_of_a_block(passes: bool, constant: bool, outputs: int, named: bool) -> None:
    model, x = Around(Branch(passes, outputs), named).eval(), torch.randn(5, 3)
    if not constant:
        model.block.inner.bias.data.zero_()
    expected = model(x).detach()
    dropped = drop_blocks(model, x[:3])
    assert dropped.blocks == {"block": Rest(passes, 4 if constant else 0, -1, outputs)}
    assert torch.allclose(model(x), expected, atol=1e-6)
    assert [name for name, _ in model.block.named_parameters()] == (["value"] if constant else [])
    assert not any(module._forward_hooks for module in model.modules())


def test_a_block_with_another_output_beside_stays_but_what_is_in_it_goes() -> None:
    model = Around(Branch(True, 2, beside=True)).eval()
    assert set(drop_blocks(model, torch.randn(3, 3)).blocks) == {"block.inner"}
    deep = Around(nn.Sequential(nn.Sequential(Branch(True)), nn.Identity())).eval()
    assert set(drop_blocks(deep, torch.randn(3, 3)).blocks) == {"block"}, "only the outermost is told"


def test_constants_of_maps_lie_along_their_channels() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 2, 1)).eval()
    model[1].weight.data.zero_()
    x = torch.randn(2, 3, 5, 5)
    expected = model(x).detach()
    assert drop_blocks(model, x).blocks == {"1": Rest(False, 4, -3, 0)}
    assert torch.allclose(model(x), expected, atol=1e-6)


def test_one_row_says_nothing_of_other_rows_and_a_little_is_not_nothing() -> None:
    assert not drop_blocks(Around(nn.Linear(4, 4)).eval(), torch.randn(1, 3))
    model = Around(Branch(False)).eval()
    model.block.inner.weight.data[0, 0] = 1e-3
    assert not drop_blocks(model, torch.randn(4, 3))
    wider = Around(nn.Linear(4, 5)).eval()
    wider.last = nn.Linear(5, 2)
    wider.block.weight.data.zero_()
    assert not drop_blocks(wider, torch.randn(4, 3)), "it gives another shape than it is given"
    words = nn.Sequential(nn.Embedding(5, 4), Branch(True)).eval()
    assert set(drop_blocks(words, torch.tensor([[0, 3, 1]])).blocks) == {"1"}
