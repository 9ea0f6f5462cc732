"""Dead heads go from attention however it is written, and nothing that the network gives changes."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from raydistill.compression.masks import MaskSet
from raydistill.compression.structure import replay, structure_from, structure_state
from raydistill.compression.thinning import thin
from raydistill.errors import CheckpointError
from tests.compression.thinning.attentions import (
    Apart,
    Beside,
    Biased,
    Fixed,
    Fused,
    Net,
    OneLayer,
    Settings,
    Shared,
    Torchs,
)
from tests.compression.thinning.conftest import relative

pytestmark = pytest.mark.slow

WRITTEN: dict[str, Callable[[], nn.Module]] = {
    "layers apart": Apart,
    "one layer, a product and a softmax": Fused,
    "shared keys and values, rotated": Shared,
    "a bias for each head": Biased,
    "with biases beside": Beside,
    "one layer for shared keys and values, counted by settings": OneLayer,
    "torch's own": Torchs,
    "torch's own, steps first": lambda: Torchs(batch_first=False),
}


def net(make: Callable[[], nn.Module]) -> Net:
    torch.manual_seed(0)
    model = Net(make()).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape))
    return model


def shapes(model: nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}


@pytest.mark.parametrize("written", WRITTEN)
def test_heads_that_nobody_reads_go(written: str) -> None:
    model = net(WRITTEN[written])
    with torch.no_grad():
        model.attention.out.weight[:, :8] = 0  # the first two heads, which share keys and values where these are shared
    x = torch.randn(3, 7, 6)
    expected, before = model(x).detach(), sum(p.numel() for p in model.parameters())
    report = thin(model, None, x)
    assert relative(expected, model(x).detach()) < 1e-5
    # Half of what makes queries, keys and values, and of what mixes them.
    keys = 8 if "shared" in written else 16
    biases = {Shared: 0, OneLayer: 0, Beside: 8 + 8}.get(WRITTEN[written], 8 + keys)
    rows = (8 + keys) * 16 + biases
    table = 18 if "a bias for" in written else 0
    assert before - sum(p.numel() for p in model.parameters()) == rows + 16 * 8 + table
    assert model.attention.out.weight.shape == (16, 8)
    assert [line.partition(":")[2] for line in report.inside] == [" 2 of 4 heads removed"]
    fresh = replay(Net(WRITTEN[written]()).eval(), structure_from(structure_state(report.changes)))
    assert shapes(fresh) == shapes(model)
    fresh.load_state_dict(model.state_dict())
    assert relative(expected, fresh(x).detach()) < 1e-5
    # and it trains
    fresh.train()(x).sum().backward()
    assert all(parameter.grad is not None for parameter in fresh.parameters())


class Several(nn.Module):
    """Two attentions that hold the same settings."""

    def __init__(self) -> None:
        super().__init__()
        self.settings = Settings()
        self.first, self.second = OneLayer(self.settings), OneLayer(self.settings)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.first(x).tanh())


def test_settings_of_a_network_stay_and_a_block_that_loses_heads_has_its_own() -> None:
    torch.manual_seed(0)
    model, x = Several().eval(), torch.randn(2, 5, 16)
    with torch.no_grad():
        model.second.out.weight[:, 8:] = 0
    expected = model(x).detach()
    report = thin(model, None, x)
    assert (model.second.settings.heads, model.second.shared, model.second.out.in_features) == (2, 1, 8)
    assert model.second.settings.layers == 4
    assert model.first.settings is model.settings
    assert vars(model.settings) == vars(Settings())
    assert relative(expected, model(x).detach()) < 1e-5
    fresh = replay(Several().eval(), structure_from(structure_state(report.changes)))
    fresh.load_state_dict(model.state_dict())
    assert torch.equal(fresh(x), model(x))
    assert fresh.first.settings.heads == 4
    other = Several()
    other.settings.heads = 3
    with pytest.raises(CheckpointError, match=r"attributes.second.settings.heads: must be .* down from 4, got 3"):
        replay(other, report.changes)


def test_a_head_that_gives_a_constant_goes_into_the_bias() -> None:
    model = net(Apart)
    with torch.no_grad():
        model.attention.v.weight[4:8] = 0  # its biases stay
    x = torch.randn(2, 5, 6)
    expected, bias = model(x).detach(), model.attention.out.bias.detach().clone()
    thin(model, None, x)
    assert model.attention.q.weight.shape == (12, 16)
    assert not torch.equal(model.attention.out.bias, bias)
    assert relative(expected, model(x).detach()) < 1e-5


def test_a_constant_without_a_place_stays() -> None:
    model = net(lambda: Apart(bias=False))
    with torch.no_grad():
        model.attention.v.weight[4:8] = 0
    report = thin(model, None, torch.randn(2, 5, 6))
    assert model.attention.q.weight.shape == (16, 16)
    assert not report.inside
    assert any(kept.weight == "attention.v.weight" and kept.count == 4 for kept in report.kept)


def test_one_head_stays_where_none_is_read() -> None:
    model = net(Apart)
    with torch.no_grad():
        model.attention.out.weight.zero_()
    x = torch.randn(2, 5, 6)
    expected = model(x).detach()
    thin(model, None, x)
    assert model.attention.out.weight.shape == (16, 1)  # of one channel: it is not read either
    assert relative(expected, model(x).detach()) < 1e-5


def test_heads_are_narrowed_by_as_many_channels_each() -> None:
    """Values and scores by themselves; which of its channels a head loses is its own."""
    model = net(Torchs)
    packed = model.attention.own.in_proj_weight
    with torch.no_grad():
        for head, (value, score) in enumerate(((0, 1), (3, 2), (2, 2), (1, 0))):
            model.attention.out.weight[:, head * 4 + value] = 0
            packed[16 + head * 4 + score] = 0  # of a key: its bias moves all scores of a query alike
        packed[32 + 5] = 0  # one head has another dead value, the others have none
        model.attention.own.in_proj_bias[32 + 5] = 0
    x = torch.randn(2, 5, 6)
    expected = model(x).detach()
    report = thin(model, None, x)
    assert packed.shape == (3 * 12, 16)
    assert model.attention.out.weight.shape == (16, 12)
    assert relative(expected, model(x).detach()) < 1e-5
    text = " 1 of 4 channels of each head's queries and keys and 1 of 4 channels of each head's values removed"
    assert [line.partition(":")[2] for line in report.inside] == [text]
    # again, on what is left
    with torch.no_grad():
        model.attention.out.weight[:, :3] = 0
    expected = model(x).detach()
    again = thin(model, None, x)
    assert model.attention.own.num_heads == 3
    assert relative(expected, model(x).detach()) < 1e-5
    fresh = replay(Net(Torchs()).eval(), structure_from(structure_state([*report.changes, *again.changes])))
    fresh.load_state_dict(model.state_dict())
    assert relative(expected, fresh(x).detach()) < 1e-5


def test_widths_of_scores_stay_where_the_code_scales_by_them() -> None:
    model = net(lambda: Apart(scale=None))
    with torch.no_grad():
        model.attention.q.weight[::4] = model.attention.q.bias[::4] = 0
        model.attention.out.weight[:, 1::4] = 0
    x = torch.randn(2, 5, 6)
    expected = model(x).detach()
    thin(model, None, x)
    assert model.attention.q.weight.shape == (16, 16)
    assert model.attention.v.weight.shape == (12, 16)
    assert relative(expected, model(x).detach()) < 1e-5


def test_code_that_needs_all_heads_keeps_them_and_the_report_says_so() -> None:
    model = net(Fixed)
    with torch.no_grad():
        model.attention.out.weight[:, :8] = 0
    before = shapes(model)
    report = thin(model, None, torch.randn(2, 5, 6))
    assert shapes(model) == before
    (kept,) = [kept for kept in report.kept if kept.weight == "attention.out.weight"]
    assert str(kept).endswith("8 zero channels kept (its own code does not run, or gives something else, with fewer)")


def test_masks_and_the_state_of_an_optimizer_follow() -> None:
    model = net(Torchs)
    mask = torch.ones(16, 16)
    mask[:, 4:8] = 0
    masks = MaskSet(model)
    masks.set("attention.own.out_proj.weight", mask)
    optimizer = torch.optim.Adam(model.parameters())
    x = torch.randn(2, 5, 6)
    model(x).sum().backward()
    optimizer.step()
    masks.apply()
    told = []
    masks.listeners.append(told.append)
    thin(model, masks, x, optimizer)
    packed = model.attention.own.in_proj_weight
    assert optimizer.state[packed]["exp_avg"].shape == packed.shape == (36, 16)
    assert masks["attention.own.out_proj.weight"].shape == (16, 12)
    assert len(told) == 1
    assert {"attention.own.in_proj_weight", "attention.own.out_proj.weight"} <= set(told[0].cuts)
    model(x).sum().backward()
    optimizer.step()
