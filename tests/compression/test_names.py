"""A parameter's name as the model spells it, as its file does, and what wrappers put in between."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from raydistill.compression import build
from raydistill.compression.names import ParameterNames, names_of
from raydistill.compression.timeline import taken
from raydistill.errors import ConfigError
from raydistill.schedule import naming_weights, parse_schedule, with_values


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
        pytest.param(torch.compile, "_orig_mod.0.weight", marks=pytest.mark.slow),
        pytest.param(
            lambda model: torch.compile(nn.DataParallel(model)), "_orig_mod.module.0.weight", marks=pytest.mark.slow
        ),
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


def test_what_a_model_offers_has_the_types_of_its_layers() -> None:
    model = Tied()
    found = {one.name: one for one in names_of(model).weights}
    assert set(found) == dict(model.named_parameters()).keys()
    assert {"Embedding", "Linear"} <= set(found["encoder.weight"].types)  # tied: it is in both
    assert found["module.weight"].types == ("Linear",)
    weighted = nn.Sequential(torch.nn.utils.parametrizations.weight_norm(nn.Linear(3, 2)), nn.ReLU(), nn.BatchNorm1d(2))
    offered = names_of(weighted)
    assert "Linear" in {one.name: one for one in offered.weights}["0.parametrizations.weight.original1"].types
    assert {one.name for one in offered.weights if not one.weight} == {"0.bias", "2.weight", "2.bias"}
    assert [one.name for one in offered.layers if one.weight] == ["0"]
    assert [one.types[0] for one in offered.layers if one.name in "12"] == ["ReLU", "BatchNorm1d"]


def types(section: str, **body: Any) -> dict[str, Any]:
    kind = section.removesuffix("s")
    policy = {kind: {"instance_name": "p"}, "starting_epoch": 0, "ending_epoch": 1, "frequency": 1}
    return {section: {"p": body}, "policies": [policy]}


class Blocks(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.inner = nn.Conv2d(4, 6, 3, padding=1)
        self.outer = nn.Conv2d(6, 4, 3, padding=1)
        self.fc = nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.norm(self.stem(x)))
        return self.fc((x + self.outer(torch.relu(self.inner(x)))).mean((2, 3)))


@pytest.mark.parametrize(
    ("section", "body", "expected"),
    [
        (
            "pruners",
            {"class": "AutomatedGradualPruner", "initial_sparsity": 0.1, "final_sparsity": 0.5, "types": "Conv2d"},
            ["stem.weight", "inner.weight", "outer.weight"],
        ),
        (
            "pruners",
            {"class": "WandaPruner", "final_sparsity": 0.5, "types": ["Conv2d"], "except": [r"re:.*er\.weight"]},
            ["stem.weight"],
        ),
        (
            "pruners",
            {"class": "CoupledPruner", "final_sparsity": 0.5, "types": "Conv2d", "except": ["stem.*", "outer.*"]},
            ["inner.weight", "outer.weight"],
        ),
        ("regularizers", {"class": "L1Regularizer", "reg_regims": {"*": 0.1}, "types": "BatchNorm2d"}, ["norm.weight"]),
        ("quantizers", {"class": "DorefaQuantizer", "bits_weights": 4, "except": "stem"},
         ["inner.weight", "outer.weight", "fc.weight"]),
        ("quantizers", {"class": "DorefaQuantizer", "overrides": {".*": {"bits_weights": 4, "types": "Linear"}}},
         ["fc.weight"]),
        ("extensions", {"class": "FilterRemover", "weights": "in*"}, ["inner.weight"]),
    ],
)  # fmt: skip
def test_every_section_takes_types_and_exclusions(section: str, body: dict[str, Any], expected: list[str]) -> None:
    model = Blocks()
    spec = parse_schedule(types(section, **body), "s.yaml")
    example = (torch.randn(2, 3, 8, 8),)
    scheduler = build(spec, model, torch.optim.SGD(model.parameters(), lr=0.1), example)
    assert sorted(scheduler.scheduled[0].policy.weights) == sorted(expected)
    assert taken(scheduler) == {f"{section}.p": tuple(scheduler.scheduled[0].policy.weights)}
    named = naming_weights(spec, names_of(Blocks()))
    again = build(named, Blocks(), torch.optim.SGD(model.parameters(), lr=0.1), example)
    assert "types" not in str(named.mapping)
    assert sorted(again.scheduled[0].policy.weights) == sorted(expected)


def test_levels_of_a_policy_take_patterns_too() -> None:
    mapping = types("pruners", **{"class": "SparsityLevelParameterPruner", "levels": {"fc.weight": 0.5}})
    mapping["policies"][0]["pruner"]["args"] = {"levels": {"re:(inn|out)er.weight": 0.25}}
    model = Blocks()
    scheduler = build(parse_schedule(mapping, "s.yaml"), model, torch.optim.SGD(model.parameters(), lr=0.1))
    assert scheduler.scheduled[0].policy.weights == ("inner.weight", "outer.weight")
    mapping["policies"][0]["pruner"]["args"] = {"levels": {"x*": 0.25}}
    with pytest.raises(ConfigError, match=r"policies\[0\]\.pruner\.args\.levels: no weight of the model matches"):
        build(parse_schedule(mapping, "s.yaml"), model, torch.optim.SGD(model.parameters(), lr=0.1))


def test_what_narrows_no_names_says_so_and_a_near_key_is_named() -> None:
    for body, says in (
        ({"class": "SparsityLevelParameterPruner", "types": ["Conv2d"]}, r"p\.types: narrows what the arguments of"),
        ({"class": "MagnitudeParameterPruner", "except": "fc*"}, r"p\.except: narrows .* as in \{'\*': \.\.\.\}"),
        ({"class": "WandaPruner", "final_sparsity": 0.5, "type": ["Conv2d"]}, r"p\.type: .* did you mean .types"),
    ):  # fmt: skip
        with pytest.raises(ConfigError, match=says):
            pruned(Blocks(), types("pruners", **body))
