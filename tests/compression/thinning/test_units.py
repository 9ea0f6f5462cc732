"""Dead units of recurrent layers go, and what is left gives what the masked network gave."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from raydistill.compression.structure import replay, structure_from, structure_state
from raydistill.compression.thinning import thin
from raydistill.compression.thinning.coupling import couplings
from raydistill.models.word_lang_model import WordLangModel
from tests.compression.thinning.conftest import relative

CANDIDATE = {"LSTM": 2, "GRU": 2, "RNN": 0}


class Classifier(nn.Module):
    """Reads the last step, what the layer ends with, or a packed sequence's mean."""

    def __init__(self, kind: str, both: bool, reads: str) -> None:
        super().__init__()
        self.rnn = getattr(nn, kind)(6, 8, 2, batch_first=True, bidirectional=both)
        self.reads, self.drop, self.out = reads, nn.Dropout(0.2), nn.Linear(16 if both else 8, 5)

    def forward(self, x: Tensor) -> Tensor:
        if self.reads == "packed":
            packed, _ = self.rnn(pack_padded_sequence(x, torch.tensor([7, 5, 3]), batch_first=True))
            return self.out(pad_packed_sequence(packed, batch_first=True)[0]).mean(1)
        steps, state = self.rnn(x)
        ends = state[0] if isinstance(state, tuple) else state
        if self.reads == "ends":
            return self.out(torch.cat([ends[-2], ends[-1]], 1) if self.rnn.bidirectional else ends[-1])
        return self.out(self.drop(steps[:, -1]))


def suffixes(rnn: nn.RNNBase) -> list[str]:
    ways = ("", "_reverse") if rnn.bidirectional else ("",)
    return [f"_l{layer}{way}" for layer, way in itertools.product(range(rnn.num_layers), ways)]


@torch.no_grad()
def silence(rnn: nn.RNNBase, kind: str, units: list[list[int]]) -> None:
    """The candidate gates of these units, by layer and direction."""
    for suffix, which in zip(suffixes(rnn), units, strict=True):
        for unit in which:
            for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
                getattr(rnn, f"{name}{suffix}")[CANDIDATE[kind] * rnn.hidden_size + unit] = 0


@pytest.mark.slow
@pytest.mark.parametrize("reads", ["last", "ends", "packed"])
@pytest.mark.parametrize("both", [False, True])
@pytest.mark.parametrize("kind", CANDIDATE)
def test_units_that_stay_at_zero_go(kind: str, both: bool, reads: str) -> None:
    torch.manual_seed(0)
    model = Classifier(kind, both, reads).eval()
    silence(model.rnn, kind, [torch.randperm(8)[:3].tolist() for _ in suffixes(model.rnn)])
    x = torch.randn(3, 7, 6)
    expected = model(x).detach()
    report = thin(model, None, x)
    assert model.rnn.hidden_size == 5
    assert model.out.in_features == (10 if both else 5)
    assert relative(expected, model(x).detach()) < 1e-5
    assert report.inside == ("rnn: 3 of 8 units removed",)
    fresh = replay(Classifier(kind, both, reads).eval(), structure_from(structure_state(report.changes)))
    fresh.load_state_dict(model.state_dict())
    assert relative(expected, fresh(x).detach()) < 1e-5
    fresh.train()(x).sum().backward()


@pytest.mark.parametrize("both", [False, True])
def test_units_that_nobody_reads_go(both: bool) -> None:
    torch.manual_seed(0)
    model = Classifier("LSTM", both, "last").eval()
    ways = 2 if both else 1
    with torch.no_grad():
        for suffix in suffixes(model.rnn):
            getattr(model.rnn, f"weight_hh{suffix}")[:, [1, 6]] = 0
            if "_l1" in suffix:
                for way in range(ways):
                    getattr(model.rnn, f"weight_ih{suffix}")[:, [way * 8 + 1, way * 8 + 6]] = 0
        for way in range(ways):
            model.out.weight[:, [way * 8 + 1, way * 8 + 6]] = 0
    x = torch.randn(3, 7, 6)
    expected = model(x).detach()
    thin(model, None, x)
    assert model.rnn.hidden_size == 6
    assert relative(expected, model(x).detach()) < 1e-5


@pytest.mark.slow
def test_each_layer_and_direction_loses_as_many_as_the_one_that_can_lose_least() -> None:
    torch.manual_seed(0)
    model = Classifier("GRU", True, "last").eval()
    silence(model.rnn, "GRU", [[0, 1, 2], [3], [4, 5], [0, 7]])
    x = torch.randn(3, 7, 6)
    expected = model(x).detach()
    thin(model, None, x)
    assert model.rnn.hidden_size == 7
    assert relative(expected, model(x).detach()) < 1e-5


@pytest.mark.parametrize("kind", ["LSTM", "GRU"])
def test_a_language_model_that_gives_out_its_state_is_thinned_too(kind: str) -> None:
    torch.manual_seed(0)
    model = WordLangModel(num_classes=50, emsize=8, nhid=12, rnn_type=kind).eval()
    silence(model.rnn, kind, [[0, 3, 9], [1, 2, 11]])
    tokens = torch.randint(0, 50, (3, 9))
    expected, before = model(tokens)[0].detach(), model.rnn.weight_hh_l0.numel()
    thin(model, None, tokens)
    found, state = model(tokens)
    assert relative(expected, found.detach()) < 1e-5
    assert model.rnn.weight_hh_l0.numel() < before
    model(tokens, state)  # and it goes on from it


class Steps(nn.Module):
    """Two cells, the second above the first; a state of zeros is made here, of as many units as there are."""

    def __init__(self, kind: str, apart: bool = True) -> None:
        super().__init__()
        cell = getattr(nn, f"{kind}Cell")
        self.low, self.high, self.out = cell(6, 8), cell(8, 9), nn.Linear(9, 4)
        self.units, self.pair, self.apart = 8, kind == "LSTM", apart

    def forward(self, x: Tensor) -> Tensor:
        zeros = x.new_zeros(len(x), self.units)
        low, high = (zeros, zeros) if self.pair else zeros, None
        given = []
        for step in x.unbind(1):
            low = self.low(step, low)
            first = low[0] if self.pair else low
            high = self.high(first, high)
            given.append(high[0] if self.pair else high)
            if not self.apart:  # where units begin anew, those of the one are those of the other
                low = (first.roll(1, 1), low[1]) if self.pair else first.roll(1, 1)
        return self.out(torch.stack(given, 1))


@torch.no_grad()
def silence_cell(cell: nn.RNNCellBase, kind: str, units: list[int]) -> None:
    for tensor in cell.parameters():
        tensor[[CANDIDATE[kind] * cell.hidden_size + unit for unit in units]] = 0


@pytest.mark.slow
@pytest.mark.parametrize("kind", CANDIDATE)
def test_units_of_cells_go(kind: str) -> None:
    torch.manual_seed(0)
    model = Steps(kind).eval()
    silence_cell(model.low, kind, [0, 4, 6])
    with torch.no_grad():  # nobody reads these
        model.high.weight_hh[:, [1, 5]] = 0
        model.out.weight[:, [1, 5]] = 0
    x = torch.randn(3, 7, 6)
    expected = model(x).detach()
    report = thin(model, None, x)
    assert (model.low.hidden_size, model.high.input_size, model.high.hidden_size) == (5, 5, 7)
    assert (model.units, model.out.in_features) == (5, 7)
    assert relative(expected, model(x).detach()) < 1e-5
    assert report.inside == ("low: 3 of 8 units removed", "high: 2 of 9 units removed")
    fresh = replay(Steps(kind).eval(), structure_from(structure_state(report.changes)))
    fresh.load_state_dict(model.state_dict())
    assert relative(expected, fresh(x).detach()) < 1e-5
    fresh.train()(x).sum().backward()


def test_units_that_a_cell_begins_anew_with_in_another_order_stay() -> None:
    torch.manual_seed(0)
    model = Steps("GRU", apart=False).eval()
    silence_cell(model.low, "GRU", [0, 4])
    x = torch.randn(3, 7, 6)
    expected = model(x).detach()
    thin(model, None, x)
    assert model.low.hidden_size == 8
    assert relative(expected, model(x).detach()) < 1e-5


@pytest.mark.slow
def test_half_of_a_cells_units_are_masked_with_all_that_reads_them() -> None:
    torch.manual_seed(0)
    model, x = Steps("LSTM").eval(), torch.randn(3, 7, 6)
    offer = couplings(model, x)
    units = {each.name: each for each in offer.couplings if each.kind == "Units"}
    assert {name: each.count for name, each in units.items()} == {"low": 8, "high": 9}
    with torch.no_grad():
        for each in units.values():
            keep = torch.arange(each.count) % 2
            weights = {part.weight: model.get_parameter(part.weight) for part in each.slices}
            for name, mask in each.expand(keep, weights).items():
                model.get_parameter(name).mul_(mask)
    expected = model(x).detach()
    thin(model, None, x)
    assert (model.low.hidden_size, model.high.hidden_size) == (4, 4)
    assert relative(expected, model(x).detach()) < 1e-5


class Encoder(nn.Module):
    """Its state is what it is for."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.LSTM(6, 8, batch_first=True)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.rnn(x)[1]


def test_an_output_of_the_network_keeps_its_width() -> None:
    torch.manual_seed(0)
    model = Encoder().eval()
    silence(model.rnn, "LSTM", [[0, 1]])
    report = thin(model, None, torch.randn(3, 7, 6))
    assert model.rnn.hidden_size == 8
    assert not report.inside
