"""The inner width of blocks that mix time channel by channel."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from raydistill.compression.structure import replay, structure_from, structure_state
from raydistill.compression.thinning import thin
from raydistill.compression.thinning.coupling import couplings
from raydistill.compression.thinning.mixers import mixers_of
from tests.compression.thinning.conftest import relative

pytestmark = pytest.mark.slow


class Mixing(nn.Module):
    """A gated recurrence with a decay a channel, or one whose channels are not apart."""

    def __init__(self, apart: bool = True) -> None:
        super().__init__()
        self.width, self.apart = 10, apart
        self.inner, self.step, self.out = nn.Linear(6, 20), nn.Linear(6, 10), nn.Linear(10, 6)
        self.decay = nn.Parameter(torch.rand(10, 3))

    def forward(self, x: Tensor) -> Tensor:
        states, gate = self.inner(x).chunk(2, -1)
        states = states * self.decay.mean(1) * self.step(x).sigmoid()
        if not self.apart:
            states = states.softmax(-1)
        return x + self.out(states.cumsum(1) * gate.sigmoid())


def network(apart: bool = True) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 6), Mixing(apart), Mixing(apart), nn.Linear(6, 3)).eval()


def test_its_channels_are_found_where_they_stand_by_themselves() -> None:
    x = torch.randn(2, 5, 4)
    found = mixers_of(network(), x)
    assert [mixer.block for mixer in found] == ["1", "2"]
    assert (found[0].width, found[0].writers, found[0].readers) == (10, {"1.inner": 2, "1.step": 1}, ("1.out",))
    assert found[0].tables == {"1.decay": 0}
    assert mixers_of(network(apart=False), x) == []


def test_those_that_nobody_reads_go() -> None:
    model, x = network(), torch.randn(2, 5, 4)
    units = [each for each in couplings(model, x).couplings if each.kind == "Units"]
    assert [(each.name, each.count) for each in units] == [("1", 10), ("2", 10)]
    with torch.no_grad():
        for each, going in zip(units, ([0, 4, 7], [9]), strict=True):
            keep = torch.ones(10)
            keep[going] = 0
            weights = {part.weight: model.get_parameter(part.weight) for part in each.slices}
            for name, mask in each.expand(keep, weights).items():
                model.get_parameter(name).mul_(mask)
    expected = model(x).detach()
    report = thin(model, None, x)
    assert [(m.inner.out_features, m.decay.shape[0], m.out.in_features, m.width) for m in model[1:3]] == [
        (14, 7, 7, 7), (18, 9, 9, 9),
    ]  # fmt: skip
    assert relative(expected, model(x).detach()) < 1e-5
    assert "1: 3 of 10 inner channels removed" in report.inside
    again = network()
    replay(again, structure_from(structure_state(report.changes)))
    again.load_state_dict(model.state_dict())
    assert relative(expected, again(x).detach()) < 1e-5


def test_of_a_mamba() -> None:
    t = pytest.importorskip("transformers")
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "vocab_size": 50, "state_size": 4, "use_cache": False}
    model = t.MambaForCausalLM(t.MambaConfig(**sizes)).eval()
    tokens = torch.arange(14).view(2, 7)
    units = [each for each in couplings(model, tokens).couplings if each.kind == "Units"]
    assert [each.count for each in units] == [32, 32]
    with torch.no_grad():
        for each in units:
            weights = {part.weight: model.get_parameter(part.weight) for part in each.slices}
            for name, mask in each.expand(torch.arange(32) % 2, weights).items():
                model.get_parameter(name).mul_(mask)
        expected = model(tokens).logits
        thin(model, None, tokens)
        for layer in model.backbone.layers:
            assert layer.mixer.A_log.shape == (16, 4)
            assert layer.mixer.in_proj.weight.shape == (32, 16)
            assert layer.mixer.conv1d.groups == layer.mixer.intermediate_size == 16
        assert relative(expected, model(tokens).logits) < 1e-5


def test_a_mamba2_loses_width_and_keeps_what_its_inner_norm_reads() -> None:
    """Its inner channels pass a norm over all of them: none stands by itself."""
    t = pytest.importorskip("transformers")
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "vocab_size": 50, "state_size": 4, "num_heads": 4}
    more = {"head_dim": 8, "n_groups": 1, "chunk_size": 4, "use_cache": False}
    model = t.Mamba2ForCausalLM(t.Mamba2Config(**sizes, **more)).eval()
    tokens = torch.arange(14).view(2, 7)
    (width,) = couplings(model, tokens).couplings
    assert (width.kind, width.count) == ("Embedding", 16)
    with torch.no_grad():
        weights = {part.weight: model.get_parameter(part.weight) for part in width.slices}
        for name, mask in width.expand((torch.arange(16) >= 4).float(), weights).items():
            model.get_parameter(name).mul_(mask)
        expected = model(tokens).logits
        thin(model, None, tokens)
        assert model.backbone.layers[0].mixer.in_proj.in_features == model.backbone.embeddings.weight.shape[1] == 12
        assert relative(expected, model(tokens).logits) < 1e-5
