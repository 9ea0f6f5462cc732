"""A parameter's name as the model spells it, as its file does, and what wrappers put in between."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from raydistill.compression import build
from raydistill.compression.names import ParameterNames
from raydistill.errors import ConfigError
from raydistill.schedule import parse_schedule, with_values


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Embedding(6, 4)
        self.module = nn.Linear(4, 4)
        self.decoder = nn.Linear(4, 6)
        self.decoder.weight = self.encoder.weight

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.decoder(self.module(self.encoder(tokens)))


def level(*weights: str) -> dict[str, Any]:
    return {
        "pruners": {"p": {"class": "SparsityLevelParameterPruner", "levels": dict.fromkeys(weights, 0.5)}},
        "policies": [{"pruner": {"instance_name": "p"}, "epochs": [0]}],
    }


def pruned(model: nn.Module, mapping: dict[str, Any]) -> list[str]:
    optimizer = torch.optim.SGD([nn.Parameter(torch.ones(1))], lr=0.1)
    scheduler = build(parse_schedule(mapping, "s.yaml"), model, optimizer)
    scheduler.on_epoch_begin(0)
    return [name for name, p in model.named_parameters() if p.dim() > 1 and 2 * int((p == 0).sum()) == p.numel()]


def small() -> nn.Sequential:
    return nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2))


@pytest.mark.parametrize("spelling", ["0.weight", "module.0.weight", "_orig_mod.0.weight", "_orig_mod.module.0.weight"])
@pytest.mark.parametrize(
    ("wrap", "own"),
    [
        (lambda model: model, "0.weight"),
        (nn.DataParallel, "module.0.weight"),
        (torch.compile, "_orig_mod.0.weight"),
        (lambda model: torch.compile(nn.DataParallel(model)), "_orig_mod.module.0.weight"),
    ],
)
def test_wrapped_or_not_either_spelling_is_understood(wrap: Any, own: str, spelling: str) -> None:
    assert pruned(wrap(small()), level(spelling)) == [own]


@pytest.mark.parametrize("spelling", ["encoder.weight", "decoder.weight", "module.decoder.weight"])
def test_either_name_of_a_tied_weight_is_it(spelling: str) -> None:
    assert pruned(Tied(), level(spelling)) == ["encoder.weight"]


@pytest.mark.parametrize("spelling", ["module.weight", "module.module.weight"])
def test_a_submodule_may_be_called_module(spelling: str) -> None:
    assert pruned(Tied(), level(spelling)) == ["module.weight"]


def test_one_called_module_in_a_search() -> None:
    found = with_values(level("module.weight", "encoder.weight"), {"per_layer.module.weight.level": 0.75}, "space.yaml")
    model = Tied()
    scheduler = build(parse_schedule(found, "s.yaml"), model, torch.optim.SGD(model.parameters(), lr=0.1))
    scheduler.on_epoch_begin(0)
    assert int((model.module.weight == 0).sum()) == 12
    assert int((model.encoder.weight == 0).sum()) == 12


def test_two_that_only_differ_by_the_prefix_stay_two() -> None:
    class Both(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(4, 4)
            self.module = nn.ModuleDict({"fc": nn.Linear(4, 4)})

    names = ParameterNames(Both())
    assert names.of("fc.weight") == "fc.weight"
    assert names.of("module.fc.weight") == "module.fc.weight"
    mapping = level("fc.weight", "module.fc.weight")
    found = with_values(mapping, {"per_layer.module.fc.weight.level": 0.25, "per_layer.fc.weight.level": 0.75}, "s")
    model = Both()
    scheduler = build(parse_schedule(found, "s.yaml"), model, torch.optim.SGD(model.parameters(), lr=0.1))
    scheduler.on_epoch_begin(0)
    assert int((model.fc.weight == 0).sum()) == 12
    assert int((model.module["fc"].weight == 0).sum()) == 4


def test_a_weight_that_is_not_there_is_told_without_the_prefix() -> None:
    with pytest.raises(ConfigError, match=r"has no such weight, got '0\.wieght'; did you mean '0\.weight'"):
        pruned(small(), level("module.0.wieght"))


def test_globs_stand_for_the_weights_that_they_match() -> None:
    mapping = {
        "pruners": {"p": {"class": "AutomatedGradualPruner", "initial_sparsity": 0.0, "final_sparsity": 0.5,
                          "weights": ["encod*.weight", "[md]*.weight"]}},
        "policies": [{"pruner": {"instance_name": "p"}, "starting_epoch": 0, "ending_epoch": 1, "frequency": 1}],
    }  # fmt: skip
    model = Tied()
    scheduler = build(parse_schedule(mapping, "s.yaml"), model, torch.optim.SGD(model.parameters(), lr=0.1))
    assert scheduler.scheduled[0].policy.weights == ("encoder.weight", "module.weight")
    mapping["pruners"]["p"]["weights"] = ["encod*.wieght", "conv?.weight"]
    with pytest.raises(ConfigError) as caught:
        build(parse_schedule(mapping, "s.yaml"), model, torch.optim.SGD(model.parameters(), lr=0.1))
    assert str(caught.value).splitlines() == [
        "s.yaml: pruners.p.weights: no weight of the model matches, got 'encod*.wieght'; did you mean "
        "'encoder.weight'?",
        "s.yaml: pruners.p.weights: no weight of the model matches, got 'conv?.weight'; did you mean 'encoder.weight'?",
    ]


def keyed(section: str, name: str, levels: dict[str, Any], **body: Any) -> dict[str, Any]:
    kind = section.removesuffix("s")
    policy = {kind: {"instance_name": "p"}, "starting_epoch": 0, "ending_epoch": 1, "frequency": 1}
    return {section: {"p": {**body, name: levels}}, "policies": [policy]}


def test_globs_are_keys_too_where_each_weight_has_its_value() -> None:
    model, body = Tied(), {"class": "SparsityLevelParameterPruner"}
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    levels = {"*.weight": 0.25, "module.*": 0.75, "encoder.weight": 0.5}
    scheduler = build(parse_schedule(keyed("pruners", "levels", levels, **body), "s.yaml"), model, optimizer)
    scheduler.on_epoch_begin(0)
    # a name counts before a glob, the first glob before the second
    assert [int((p == 0).sum()) for p in (model.encoder.weight, model.module.weight)] == [12, 4]
    with pytest.raises(ConfigError, match=r"p\.levels: no weight of the model matches, got 'encod\*\.wieght'; did you"):
        pruned(model, keyed("pruners", "levels", {"encod*.wieght": 0.5}, **body))


def test_globs_in_a_regularizer() -> None:
    regims = {"[em]*.weight": [0.01, "Rows"]}
    mapping = keyed("regularizers", "reg_regims", regims, **{"class": "GroupLassoRegularizer"})
    model = Tied()
    scheduler = build(parse_schedule(mapping, "s.yaml"), model, torch.optim.SGD(model.parameters(), lr=0.1))
    assert scheduler.scheduled[0].policy.weights == ("encoder.weight", "module.weight")


@pytest.mark.parametrize("lazy", [nn.LazyLinear(3), nn.LazyConv2d(3, 1)])
def test_a_lazy_model_is_one_line(lazy: nn.Module) -> None:
    with pytest.raises(ConfigError, match=r"model: has lazy layers.*, got '0\.weight'; run it once on an input"):
        pruned(nn.Sequential(lazy), level("0.weight"))


def test_a_weight_that_is_computed_says_from_what() -> None:
    model = nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(4, 4)))
    with pytest.raises(
        ConfigError, match=r"'0\.weight'; it is computed in each forward pass, from 0\.parametrizations"
    ):
        pruned(model, level("0.weight"))


def test_what_has_moved_into_a_sequence_is_named() -> None:
    """torchvision's convs of a feature pyramid are there today; Distiller's schedules have their former names."""
    convs = nn.ModuleList([nn.Sequential(nn.Sequential(nn.Conv2d(1, 2, 1)), nn.ReLU()) for _ in range(4)])
    pair = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    names = ParameterNames(nn.ModuleDict({"inner_blocks": convs, "pair": pair}))
    assert names.way_out("inner_blocks.0.weight") == "did you mean 'inner_blocks.0.0.0.weight'?"
    assert names.way_out("inner_blocks.2.bias") == "did you mean 'inner_blocks.2.0.0.bias'?"
    assert names.way_out("inner_blocks.4.weight").startswith(
        "did you mean 'inner_blocks."
    )  # no such block: the nearest
    assert names.way_out("pair.weight") in ("did you mean 'pair.0.weight'?", "did you mean 'pair.1.weight'?")
