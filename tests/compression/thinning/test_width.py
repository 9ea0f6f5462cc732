"""Channels of a residual stream go from embeddings to head, and the outputs are the masked network's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from raydistill.compression.pruners import CoupledPruner, Moment
from raydistill.compression.rates import PolicyTime
from raydistill.compression.structure import replay, structure_from, structure_state
from raydistill.compression.thinning import thin
from raydistill.models.decoder_lm import DecoderLM
from tests.compression.thinning.conftest import masked_at_its_end, relative

pytestmark = pytest.mark.slow

TOKENS = torch.arange(18).view(2, 9)


class Root(nn.Module):
    """A norm by the root of the mean square, as people write it."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight, self.eps = nn.Parameter(torch.ones(width)), 1e-3

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + self.eps) * self.weight


class Tied(nn.Module):
    """Tied embeddings, a table of positions, torch's attention, gated MLPs, and whichever norm."""

    def __init__(self, norm: Callable[[int], nn.Module], after: bool = False) -> None:
        super().__init__()
        self.after, self.width = after, 16
        self.tokens, self.places = nn.Embedding(50, 16), nn.Parameter(torch.randn(1, 13, 16))
        self.norms = nn.ModuleList(norm(16) for _ in range(3))
        self.attention = nn.MultiheadAttention(16, 2, batch_first=True)
        self.gate, self.up, self.down = nn.Linear(16, 24), nn.Linear(16, 24), nn.Linear(24, 16)
        self.head = nn.Linear(16, 50, bias=False)
        self.head.weight = self.tokens.weight

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.tokens(tokens) * 4.0 + self.places[:, : tokens.shape[1]]
        read = x if self.after else self.norms[0](x)
        x = x + self.attention(read, read, read, need_weights=False)[0]
        x = self.norms[0](x) if self.after else x
        read = x if self.after else self.norms[1](x)
        x = x + self.down(self.gate(read).sigmoid() * self.up(read))
        return self.head(self.norms[2](self.norms[1](x) if self.after else x).view(*x.shape[:2], self.width))


class MapNorm(nn.LayerNorm):
    """Over the channels of maps (B, C, H, W)."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class LayerScale(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.full((width,), 0.5))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gamma


class Maps(nn.Module):
    """(B, 3, 8, 8) to (B, 5): a block as ConvNeXt's, with its scales written in three ways."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.first = nn.Conv2d(3, 12, 2, 2), MapNorm(12)
        self.depthwise, self.norm = nn.Conv2d(12, 12, 3, padding=1, groups=12), nn.LayerNorm(12)
        self.up, self.down, self.scale = nn.Linear(12, 20), nn.Linear(20, 12), LayerScale(12)
        self.gamma, self.beta = nn.Parameter(torch.ones(12, 1, 1)), nn.Parameter(torch.ones(1, 12))
        self.last, self.head = nn.LayerNorm(12), nn.Linear(12, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(self.stem(x))
        inside = self.norm(self.depthwise(x).permute(0, 2, 3, 1))
        inside = self.scale(self.down(functional.gelu(self.up(inside))))
        x = x + self.gamma * inside.permute(0, 3, 1, 2)
        return self.head(self.last(x.mean((2, 3)).mul(self.beta)))


MADE: dict[str, Callable[[], nn.Module]] = {
    "decoder": lambda: DecoderLM(50, 16, 2, 4, 0.0, 16),
    "before, LayerNorm": lambda: Tied(nn.LayerNorm),
    "before, torch's RMSNorm": lambda: Tied(lambda width: nn.RMSNorm(width, eps=1e-3)),
    "before, one's own": lambda: Tied(Root),
    "after, LayerNorm": lambda: Tied(nn.LayerNorm, after=True),
}


def made(kind: str) -> nn.Module:
    torch.manual_seed(0)
    model = MADE[kind]().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape))
    return model


def _on_the_stream(name: str) -> bool:
    """But for what is inside a block: biases and hidden widths."""
    inside = ("in_proj_bias", "gate.bias", "up.bias", "q.bias", "k.bias", "v.bias")
    return not name.endswith(inside)


@pytest.mark.parametrize("kind", MADE)
def test_a_quarter_of_the_width_goes(kind: str) -> None:
    model = made(kind)
    names = [name for name, parameter in model.named_parameters() if parameter.dim() > 1]
    pruner = CoupledPruner("width", 0.25, names, structures="Embedding")
    masks = masked_at_its_end(model, pruner, TOKENS)
    expected = model(TOKENS).detach()
    report = thin(model, masks, TOKENS)
    assert relative(expected, model(TOKENS).detach()) < 1e-5
    assert all(12 in tensor.shape for name, tensor in model.named_parameters() if _on_the_stream(name)), str(report)
    assert "4 of 16 channels of a residual stream" in str(report)
    fresh = replay(MADE[kind]().eval(), structure_from(structure_state(report.changes)))
    fresh.load_state_dict(model.state_dict())
    assert relative(expected, fresh(TOKENS).detach()) < 1e-5
    fresh.train()(TOKENS).sum().backward()
    # and once more, of what is left
    pruner.bind(model, (TOKENS,))
    weights = {name: model.get_parameter(name).data for name in pruner.weights}
    for name, mask in pruner.masks(weights, Moment(PolicyTime(9, 0, 10, 1))).items():
        masks.set(name, mask)
    masks.apply()
    expected = model(TOKENS).detach()
    thin(model, masks, TOKENS)
    assert relative(expected, model(TOKENS).detach()) < 1e-5
    assert model.get_submodule("norms.2" if kind != "decoder" else "norm").weight.shape == (9,)


def test_the_width_of_maps_goes_with_depthwise_convs_and_scales() -> None:
    torch.manual_seed(0)
    model, images = Maps().eval(), torch.randn(2, 3, 8, 8)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape))
    names = [name for name, parameter in model.named_parameters() if parameter.dim() > 1]
    masks = masked_at_its_end(model, CoupledPruner("width", 0.25, names, structures="Embedding"), images)
    expected, larger = model(images).detach(), torch.randn(1, 3, 18, 12)
    expected_larger = model(larger).detach()
    report = thin(model, masks, images)
    assert "3 of 12 channels of a residual stream" in str(report)
    assert [tuple(each.shape) for each in (model.gamma, model.beta, model.scale.gamma)] == [(9, 1, 1), (1, 9), (9,)]
    assert (model.depthwise.groups, model.first.channels_first, model.norm.channels_first) == (9, True, False)
    assert relative(expected, model(images).detach()) < 1e-5
    assert relative(expected_larger, model(larger).detach()) < 1e-5
    fresh = replay(Maps().eval(), structure_from(structure_state(report.changes)))
    fresh.load_state_dict(model.state_dict())
    assert torch.equal(fresh(images), model(images))


def test_a_channel_to_which_a_depthwise_conv_adds_its_bias_stays() -> None:
    torch.manual_seed(0)
    model, images = Maps().eval(), torch.randn(2, 3, 8, 8)
    with torch.no_grad():
        for layer in (model.stem, model.down):
            layer.weight[4] = layer.bias[4] = 0
        model.first.weight[4] = model.first.bias[4] = 0
        expected = model(images)
        assert not thin(model, None, images).inside
        model.depthwise.bias[4] = model.up.weight[:, 4] = model.head.weight[:, 4] = 0
        expected = model(images)
        assert "1 of 12 channels" in str(thin(model, None, images))
    assert relative(expected, model(images).detach()) < 1e-5


def test_a_channel_that_somebody_writes_stays() -> None:
    model = made("decoder")
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith(("attention.out.weight", "mlp.down.weight", "attention.out.bias", "mlp.down.bias")):
                parameter[3] = 0
            elif name in ("encoder.weight",):
                parameter[:, 3] = 0
    report = thin(model, None, TOKENS)  # the table of positions writes it
    assert model.norm.weight.shape == (16,)
    assert not report.inside


def test_a_stream_that_the_network_gives_out_keeps_its_width() -> None:
    class States(DecoderLM):
        def forward(self, tokens: Tensor) -> Any:
            states = self.encoder(tokens) + self.positions(torch.arange(tokens.shape[1]))
            for block in self.blocks:
                states = block(states)
            return self.decoder(self.norm(states)), states

    torch.manual_seed(0)
    model = States(50, 16, 1, 4, 0.0, 16).eval()
    with torch.no_grad():
        for layer in (model.encoder, model.positions):
            layer.weight[:, 5] = 0
        for layer in (model.blocks[0].attention.out, model.blocks[0].mlp.down):
            layer.weight[5] = layer.bias[5] = 0
        for layer in (model.blocks[0].attention.q, model.blocks[0].attention.k, model.blocks[0].attention.v):
            layer.weight[:, 5] = 0
        model.blocks[0].mlp.up.weight[:, 5] = model.decoder.weight[:, 5] = 0
    expected = model(TOKENS)[1].detach()
    thin(model, None, TOKENS)
    assert torch.allclose(model(TOKENS)[1], expected, atol=1e-6)
    assert model.encoder.weight.shape == (50, 16)
