"""Structures go from every layer that holds a part of them, and thinning leaves nothing of what was pruned."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import yaml
from torch import Tensor, nn

from raydistill.compression.build import build, check
from raydistill.compression.masks import MaskSet
from raydistill.compression.pruners import CoupledPruner, Moment
from raydistill.compression.pruners.coupled import NORMALIZERS, REDUCTIONS
from raydistill.compression.rates import PolicyTime
from raydistill.compression.structure import Dropped, StructureChange
from raydistill.compression.thinning import thin
from raydistill.errors import ConfigError
from raydistill.models.decoder_lm import DecoderLM
from raydistill.models.word_lang_model import WordLangModel
from raydistill.schedule import parse_schedule
from tests.compression.thinning.attentions import Net, Shared
from tests.compression.thinning.conftest import relative, unsettled

LAST = PolicyTime(9, 0, 10, 1)
TOKENS = torch.arange(18).view(2, 9)


class Residual(nn.Module):
    """A sum of two convs behind batch norms, and a hidden linear layer behind a flattened map."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.n = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.hidden, self.out = nn.Linear(8 * 16, 24), nn.Linear(24, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.a(x).relu()
        x = x + self.n(self.b(x))
        return self.out(self.hidden(x.flatten(1)).relu())


def pruned(model: nn.Module, example: Tensor, **arguments: Any) -> tuple[CoupledPruner, MaskSet]:
    """The model with the masks of the pruner's last decision on its weights."""
    names = [name for name, parameter in model.named_parameters() if parameter.dim() > 1]
    pruner = CoupledPruner("p", weights=names, **arguments)
    pruner.bind(model, (example,))
    weights = {name: model.get_parameter(name).data for name in pruner.weights}
    masks = MaskSet(model)
    for name, mask in pruner.masks(weights, Moment(LAST)).items():
        masks.set(name, mask)
    masks.apply()
    return pruner, masks


def net() -> tuple[nn.Module, Tensor]:
    torch.manual_seed(0)
    return unsettled(Residual()), torch.randn(2, 3, 4, 4)


@pytest.mark.slow
def test_what_is_pruned_goes_without_a_rest() -> None:
    model, x = net()
    pruner, masks = pruned(model, x, final_sparsity=0.5)
    expected = model(x).detach()
    planned = {name: pruner.fraction(name, model.get_parameter(name), LAST) for name in pruner.weights}
    assert planned == pytest.approx(masks.sparsity())
    # The sum's eight channels are one coupling: rows of both convs, columns of the second and of the hidden layer.
    assert masks.sparsity() == pytest.approx(
        {"a.weight": 0.5, "b.weight": 0.75, "hidden.weight": 0.75, "out.weight": 0.5}
    )
    report = thin(model, masks, x)
    assert relative(expected, model(x).detach()) < 1e-5
    assert not report.kept
    assert [tuple(p.shape) for n, p in model.named_parameters() if p.dim() > 1] == [
        (4, 3, 3, 3), (4, 4, 3, 3), (12, 64), (4, 12),
    ]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(
    ("make", "tokens"),
    [(lambda: DecoderLM(50, 32, 2, 4, 0.0, 16), TOKENS), (lambda: WordLangModel(50, 12, 12, 2), TOKENS),
     (lambda: Net(Shared()), torch.randn(2, 5, 6))],
)  # fmt: skip
def test_heads_neurons_and_units(make: Any, tokens: Tensor) -> None:
    torch.manual_seed(0)
    model = make().eval()
    before = sum(p.numel() for p in model.parameters())
    _, masks = pruned(model, tokens, final_sparsity=0.5)
    zeros = sum(int((mask == 0).sum()) for mask in (masks[name] for name in masks.names()))
    first = lambda output: output[0] if isinstance(output, tuple) else output  # noqa: E731
    expected = first(model(tokens)).detach()
    report = thin(model, masks, tokens)
    assert relative(expected, first(model(tokens)).detach()) < 1e-5
    assert before - sum(p.numel() for p in model.parameters()) >= zeros > 0.1 * before, str(report)
    assert not any(bool((p == 0).flatten(1).all(1).any()) for p in model.parameters() if p.dim() > 1)


@pytest.mark.slow
def test_grouped_convolutions_keep_equal_groups() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 16, 1), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 24, 3, groups=4), nn.ReLU(),
        nn.Conv2d(24, 8, 1), nn.Flatten(), nn.Linear(32, 2),
    ).eval()  # fmt: skip
    x = torch.randn(2, 3, 4, 4)
    _, masks = pruned(model, x, final_sparsity=0.5)
    expected = model(x).detach()
    thin(model, masks, x)
    assert relative(expected, model(x).detach()) < 1e-5
    assert (model[0].out_channels, model[3].groups, model[3].weight.shape) == (8, 4, (12, 2, 3, 3))


def test_scores_are_reduced_over_the_parts() -> None:
    model, x = net()
    a, b, hidden = model.a.weight.data, model.b.weight.data, model.hidden.weight.data
    size = {"rows": 27, "both": 72, "columns": 24 * 16}
    parts = torch.stack([
        a.abs().sum((1, 2, 3)) / size["rows"],
        b.abs().sum((1, 2, 3)) / size["both"],
        b.abs().sum((0, 2, 3)) / size["both"],
        hidden.abs().view(24, 8, 16).sum((0, 2)) / size["columns"],
    ])  # fmt: skip
    for reduction, expected in (("sum", parts.sum(0)), ("mean", parts.mean(0)), ("max", parts.amax(0))):
        pruner = CoupledPruner("p", 0.5, ["a.weight"], reduction=reduction)
        pruner.bind(model, (x,))
        (coupling,) = pruner.couplings
        weights = {name: model.get_parameter(name).data for name in pruner.weights}
        torch.testing.assert_close(pruner.scores(coupling, weights, {}), expected)


def test_bounds_and_multiples() -> None:
    model, x = net()
    _, masks = pruned(model, x, final_sparsity=0.6, round_to=8)
    assert masks.sparsity()["out.weight"] == pytest.approx(1 / 3), "of 24 neurons 16 stay: a multiple of 8 above 10"
    assert masks.sparsity()["a.weight"] == 0.0
    model, x = net()
    _, masks = pruned(model, x, final_sparsity=0.9, max_sparsity=0.5, structures="Neurons")
    assert masks.sparsity() == pytest.approx({"hidden.weight": 0.5, "out.weight": 0.5})


def test_one_threshold_for_all_or_for_those_of_one_topology() -> None:
    model, x = net()
    with torch.no_grad():
        model.hidden.weight[:20] *= 1e-3
        model.out.weight[:, :20] *= 1e-3
    _, masks = pruned(model, x, final_sparsity=0.5, scope="global", reduction="sum", max_sparsity=1.0)
    taken = masks.sparsity()
    assert taken["out.weight"] == pytest.approx(16 / 24), "most of what is small lies in the hidden layer"
    assert taken["a.weight"] == 0.0
    model, x = net()
    _, masks = pruned(model, x, final_sparsity=0.5, scope="isomorphic")
    assert masks.sparsity()["out.weight"] == 0.5
    assert masks.sparsity()["a.weight"] == 0.5


SCHEDULE = """
version: 1
pruners:
  heads: {class: CoupledPruner, weights: ["blocks.*.attention.*"], structures: Heads, final_sparsity: 0.5}
  taylor:
    {class: CoupledPruner, weights: ["blocks.*.mlp.*"], structures: Neurons, final_sparsity: 0.75, ranking: taylor}
policies:
  - {pruner: {instance_name: heads}, starting_epoch: 0, ending_epoch: 3, frequency: 1}
  - {pruner: {instance_name: taylor}, starting_epoch: 0, ending_epoch: 3, frequency: 1}
"""


@pytest.mark.slow
def test_a_schedule_of_a_decoder() -> None:
    torch.manual_seed(0)
    model = DecoderLM(50, 32, 2, 4, 0.0, 16)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    scheduler = build(parse_schedule(yaml.safe_load(SCHEDULE), "s.yaml"), model, optimizer, (TOKENS,))
    for epoch in range(3):
        scheduler.on_epoch_begin(epoch)
        for index in range(20):
            scheduler.on_minibatch_begin(epoch, index, 20)
            loss = nn.functional.cross_entropy(model(TOKENS).flatten(0, 1), TOKENS.flatten())
            loss = scheduler.before_backward(epoch, index, 20, loss)
            optimizer.zero_grad()
            loss.backward()
            scheduler.before_parameter_optimization(epoch, index, 20)
            optimizer.step()
            scheduler.on_minibatch_end(epoch, index, 20)
        scheduler.on_epoch_end(epoch)
    sparsity = scheduler.masks.sparsity()
    assert sparsity["blocks.0.attention.q.weight"] == sparsity["blocks.1.attention.out.weight"] == 0.5
    assert sparsity["blocks.0.mlp.up.weight"] == sparsity["blocks.1.mlp.down.weight"] == 0.75
    expected = model.eval()(TOKENS).detach()
    thin(model, scheduler.masks, TOKENS, optimizer)
    assert model.blocks[0].attention.heads == 2
    assert model.blocks[0].mlp.up.out_features == 32
    assert relative(expected, model(TOKENS).detach()) < 1e-5


@pytest.mark.slow
def test_a_schedule_is_put_at_once_without_gradients() -> None:
    """What a sweep plans by: heads and neurons by their magnitude, where Taylor's has seen nothing yet."""
    torch.manual_seed(0)
    model = DecoderLM(50, 32, 2, 4, 0.0, 16)
    scheduler = build(
        parse_schedule(yaml.safe_load(SCHEDULE), "s.yaml"),
        model,
        torch.optim.SGD(model.parameters(), lr=0.1),
        (TOKENS,),
    )
    for each in scheduler.scheduled:
        each.policy.at_once(each.when(each.spec.last_epoch))
    assert scheduler.masks.sparsity()["blocks.0.mlp.up.weight"] == 0.75


@pytest.mark.slow
def test_two_of_them_on_the_same_weights_both_hold() -> None:
    torch.manual_seed(0)
    model = DecoderLM(50, 32, 2, 4, 0.0, 16)
    text = SCHEDULE.replace('["blocks.*.mlp.*"], structures: Neurons, final_sparsity: 0.75', '["encoder.weight"], X')
    text = text.replace("X, ranking: taylor", "structures: Embedding, final_sparsity: 0.25")
    text = text.replace("structures: Heads,", "structures: Heads, ranking: random,")
    scheduler = build(
        parse_schedule(yaml.safe_load(text), "s.yaml"), model, torch.optim.SGD(model.parameters(), lr=0.1), (TOKENS,)
    )
    for epoch in range(3):
        scheduler.on_epoch_begin(epoch)
    sparsity = scheduler.masks.sparsity()
    assert sparsity["blocks.0.attention.q.weight"] == 1 - 0.5 * 0.75
    assert sparsity["blocks.1.attention.out.weight"] == 1 - 0.5 * 0.75
    assert sparsity["blocks.1.mlp.up.weight"] == 0.25
    expected = model.eval()(TOKENS).detach()
    thin(model, scheduler.masks, TOKENS)
    assert model.blocks[0].attention.q.weight.shape == (16, 24)
    assert relative(expected, model(TOKENS).detach()) < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("structures: Legs", "structures: must be of Filters, Neurons, Heads, Units, Embedding, got 'Legs'"),
        (
            "structures: Units",
            "weights: write no Units that can go, got 'blocks.0.attention.k.weight'; they write Embedding, Heads",
        ),
        ("scope: erk", "scope: must be one of layer, global, isomorphic, got 'erk'"),
        ("reduction: median", "reduction: must be one of sum, mean, max, first, got 'median'"),
        ("round_to: 0", "round_to: must be a whole number from 1 up, got 0"),
        ("ranking: apoz", "ranking: must rank parts of any shape, got 'apoz'"),
        ("min_sparsity: 0.9, max_sparsity: 0.5", "min_sparsity: must not be above max_sparsity 0.5, got 0.9"),
    ],
)
def test_faults(line: str, fault: str) -> None:
    key = line.partition(":")[0]
    text = SCHEDULE.replace("structures: Heads", line if key == "structures" else f"structures: Heads, {line}")
    with pytest.raises(ConfigError, match=r"s\.yaml: pruners\.heads") as caught:
        check(parse_schedule(yaml.safe_load(text), "s.yaml"), DecoderLM(50, 32, 2, 4, 0.0, 16), (TOKENS,))
    assert any(fault in str(each) for each in caught.value.faults)


def test_it_needs_an_example() -> None:
    with pytest.raises(ConfigError, match="are found out on an example input"):
        check(parse_schedule(yaml.safe_load(SCHEDULE), "s.yaml"), DecoderLM(50, 32, 2, 4, 0.0, 16))


def test_scores_of_couplings_are_made_comparable_by_hand() -> None:
    scores = torch.tensor([1.0, 2.0, 6.0])
    expected = {
        "none": [1, 2, 6], "mean": [1 / 3, 2 / 3, 2], "sum": [1 / 9, 2 / 9, 6 / 9], "max": [1 / 6, 2 / 6, 1],
        "standardization": [0, 0.2, 1], "lamp": [1 / 9, 2 / 8, 1],
        "gaussian": [-2 / 7**0.5, -1 / 7**0.5, 3 / 7**0.5],
    }  # fmt: skip
    assert set(expected) == set(NORMALIZERS)
    for name, values in expected.items():
        assert NORMALIZERS[name](scores).tolist() == pytest.approx(values, abs=1e-6), name
    assert NORMALIZERS["standardization"](torch.ones(3)).tolist() == [0, 0, 0]
    assert NORMALIZERS["gaussian"](torch.ones(3)).tolist() == [0, 0, 0]
    assert NORMALIZERS["mean"](torch.zeros(3)).tolist() == [0, 0, 0]
    parts = torch.tensor([[1.0, 5.0], [3.0, 1.0]])
    assert {name: reduce(parts).tolist() for name, reduce in REDUCTIONS.items()} == {
        "sum": [4, 6], "mean": [2, 3], "max": [3, 5], "first": [1, 5],
    }  # fmt: skip


def small(**arguments: Any) -> tuple[nn.Sequential, CoupledPruner]:
    """Four neurons, the larger the later, that two read."""
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    with torch.no_grad():
        for neuron in range(4):
            model[0].weight[neuron] = model[2].weight[:, neuron] = float(neuron + 1)
    pruner = CoupledPruner("p", **{"final_sparsity": 0.5, "weights": ["0.weight"], **arguments})
    pruner.bind(model, (torch.randn(2, 3),))
    return model, pruner


def decided(model: nn.Module, pruner: CoupledPruner, masks: dict[str, Tensor] | None = None) -> list[Tensor]:
    weights = {name: model.get_parameter(name).detach() for name in pruner.weights}
    found = pruner.masks(weights, Moment(LAST, masks or {}))
    assert set(found) == {"0.weight", "2.weight"}
    return [found["0.weight"], found["2.weight"]]


def test_neurons_go_from_rows_and_columns_and_what_others_have_masked_stays_so() -> None:
    model, pruner = small()
    rows, columns = decided(model, pruner)
    assert rows.tolist() == [[0, 0, 0], [0, 0, 0], [1, 1, 1], [1, 1, 1]]
    assert columns.tolist() == [[0, 0, 1, 1]] * 2
    other = torch.ones(2, 4)
    other[0, 3] = 0
    rows, columns = decided(model, pruner, {"2.weight": other})
    assert rows.sum(1).tolist() == [0, 0, 3, 3]
    assert columns.tolist() == [[0, 0, 1, 0], [0, 0, 1, 1]]
    assert pruner.fraction("0.weight", model[0].weight, LAST) == 0.5
    assert pruner.fraction("2.weight", model[2].weight, LAST) == 0.5
    assert pruner.level("0.weight", LAST) == 0.5
    assert small(scope="global")[1].fraction("0.weight", model[0].weight, LAST) is None
    with torch.no_grad():  # a neuron that is gone goes first, whatever the others are
        model[0].weight[3] = model[2].weight[:, 3] = 0
    assert decided(model, pruner)[0].sum(1).tolist() == [0, 3, 3, 0]


@pytest.mark.parametrize(
    ("arguments", "gone"),
    [
        ({"min_sparsity": 0.25, "max_sparsity": 0.25}, 1),
        ({"max_sparsity": 0.3}, 1),
        ({"final_sparsity": 0.0, "min_sparsity": 0.6}, 3),
        ({"final_sparsity": 0.9, "max_sparsity": 1.0}, 3),
        ({"round_to": 3}, 1),
        ({"round_to": 8}, 0),
        ({"scope": "global"}, 2),
        ({"scope": "isomorphic", "normalizer": "gaussian"}, 2),
    ],
)
def test_how_many_neurons_go(arguments: dict[str, Any], gone: int) -> None:
    assert int((decided(*small(**arguments))[0].sum(1) == 0).sum()) == gone


def test_couplings_are_found_anew_after_a_change_and_one_neuron_is_no_choice() -> None:
    model, pruner = small()
    assert [each.count for each in pruner.couplings] == [4]
    model[0], model[2] = nn.Linear(3, 3), nn.Linear(3, 2)
    assert [each.count for each in pruner.couplings] == [4]
    pruner.on_structure_change(StructureChange(Dropped(()), {}))
    assert [each.count for each in pruner.couplings] == [3]
    single = nn.Sequential(nn.Linear(3, 1), nn.Linear(1, 2))
    lone = CoupledPruner("p", 0.5, ["0.weight"])
    with pytest.raises(ConfigError, match="write no Filters or Neurons or Heads or Units that can go"):
        lone.bind(single, (torch.randn(2, 3),))
    last = CoupledPruner("p", 0.5, ["1.weight"])
    with pytest.raises(ConfigError, match=r"that can go \(an output of the network\)"):
        last.bind(single, (torch.randn(2, 3),))


def test_by_magnitude_it_needs_nothing_but_the_weights() -> None:
    model, pruner = small(ranking="taylor")
    assert pruner.evidence != "none"
    plain = pruner.by_magnitude()
    assert (plain.evidence, pruner.evidence) == ("none", pruner.ranking.evidence)
    assert decided(model, plain)[0].sum(1).tolist() == [0, 0, 3, 3]
