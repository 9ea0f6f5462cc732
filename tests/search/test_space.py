from __future__ import annotations

import json

import numpy as np
import pytest
import yaml

from raydistill.errors import ConfigError
from raydistill.schedule import Named, Targets
from raydistill.search import Choice, Dimension, PerLayer, RandInt, SearchSpace, Uniform, expand, parse_space

WEIGHTS = ["conv1.weight", "conv2.weight", "fc1.weight", "fc2.weight"]
TEXT = """
pruners.conv1_pruner.final_sparsity: {uniform: [0.1, 0.6]}
policies[0].frequency: {randint: [1, 4]}
policies.conv1_pruner.frequency: {choice: [1, 2]}
training.lr: {loguniform: [0.01, 0.2]}
per_layer:
  - final_sparsity: {uniform: [0.1, 0.9]}
  - {weights: ["fc*"], final_sparsity: {uniform: [0.5, 0.95]}, initial_sparsity: {choice: [0.0, 0.1]}}
"""


TYPES = {"conv": ("Conv2d",), "fc": ("Linear",)}
OFFERED = [Named(name, TYPES[name[:-8]]) for name in WEIGHTS]


def meant(entry: PerLayer) -> list[str]:
    return Targets(entry.weights, entry.types, entry.excluded).names(OFFERED, entry.where, strict=True)


def parse(text: str):
    return parse_space(yaml.safe_load(text), "space.yaml: search")


def test_dimensions_keep_the_files_order_and_paths() -> None:
    dimensions, per_layer = parse(TEXT)
    assert [d.path for d in dimensions] == [
        "pruners.conv1_pruner.final_sparsity", "policies[0].frequency", "policies.conv1_pruner.frequency",
        "training.lr",
    ]  # fmt: skip
    assert dimensions[1].distribution == RandInt(1, 4)
    assert all(d.weight is None and d.argument is None for d in dimensions)
    assert [entry.weights for entry in per_layer] == [None, ("fc*",)]


def test_per_layer_takes_a_single_mapping_and_a_single_glob() -> None:
    _, per_layer = parse("per_layer: {weights: fc1.weight, final_sparsity: {uniform: [0.1, 0.9]}}")
    assert [d.path for d in expand(per_layer, WEIGHTS, meant)] == ["per_layer.fc1.weight.final_sparsity"]


def test_expand_orders_by_weight_and_lets_the_later_entry_win() -> None:
    _, per_layer = parse(TEXT)
    wide, narrow, initial = Uniform(0.1, 0.9), Uniform(0.5, 0.95), Choice((0.0, 0.1))
    assert expand(per_layer, WEIGHTS, meant) == [
        Dimension("per_layer.conv1.weight.final_sparsity", wide, "conv1.weight", "final_sparsity"),
        Dimension("per_layer.conv2.weight.final_sparsity", wide, "conv2.weight", "final_sparsity"),
        Dimension("per_layer.fc1.weight.final_sparsity", narrow, "fc1.weight", "final_sparsity"),
        Dimension("per_layer.fc1.weight.initial_sparsity", initial, "fc1.weight", "initial_sparsity"),
        Dimension("per_layer.fc2.weight.final_sparsity", narrow, "fc2.weight", "final_sparsity"),
        Dimension("per_layer.fc2.weight.initial_sparsity", initial, "fc2.weight", "initial_sparsity"),
    ]


def test_an_entry_may_name_types_and_exclusions() -> None:
    _, per_layer = parse("per_layer: {types: Linear, except: [fc2.weight], a: {uniform: [0, 1]}}")
    assert [d.path for d in expand(per_layer, WEIGHTS, meant)] == ["per_layer.fc1.weight.a"]
    _, per_layer = parse("per_layer: [{types: [LSTM], a: {uniform: [0, 1]}}, {except: x, a: {uniform: [0, 1]}}]")
    with pytest.raises(ConfigError) as caught:
        expand(per_layer, WEIGHTS, meant)
    assert [str(fault).partition(",")[0] for fault in caught.value.faults] == [
        "space.yaml: search.per_layer[0].types: no layer of the model is of this type",
        "space.yaml: search.per_layer[1].except: excludes nothing of what the section takes",
    ]


def test_globs_without_a_weight_are_all_reported() -> None:
    _, per_layer = parse("per_layer: {weights: [conv1.weigth, 'fc*', 'layer*'], final_sparsity: {uniform: [0.1, 0.9]}}")
    with pytest.raises(ConfigError) as caught:
        expand(per_layer, WEIGHTS, meant)
    first, second = str(caught.value).splitlines()
    assert first == (
        "space.yaml: search.per_layer.weights: no weight of the model matches, got 'conv1.weigth'; "
        "did you mean 'conv1.weight'?"
    )
    assert "'layer*'" in second
    assert "use one of: conv1.weight" in second


def test_dataparallel_prefix_is_accepted() -> None:
    _, per_layer = parse("per_layer: {weights: ['module.conv*'], final_sparsity: {uniform: [0.1, 0.9]}}")
    assert [d.weight for d in expand(per_layer, WEIGHTS, meant)] == ["conv1.weight", "conv2.weight"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{}", ["search: must map at least one key path"]),
        ("[1]", ["must map at least one key path"]),
        ("per_layr: {final_sparsity: {uniform: [0, 1]}}", ["did you mean 'per_layer'?"]),
        ("lr: {uniform: [0, 1]}", ["search.lr", "names a section and a value", "training.lr"]),
        ("uniform: [0, 1]", ["a distribution stands where a key path is expected"]),
        ("training..lr: {uniform: [0, 1]}", ["malformed key path"]),
        ("'training. lr': {uniform: [0, 1]}", ["malformed key path"]),
        ("'policies[x].frequency': {uniform: [0, 1]}", ["malformed key path"]),
        ("3: {uniform: [0, 1]}", ["a key path is a string", "3"]),
        ("per_layer: 4", ["per_layer: must be a mapping or a list"]),
        ("per_layer: []", ["must be a mapping or a list"]),
        ("per_layer: [3]", ["per_layer[0]: must be a mapping"]),
        ("per_layer: {weights: ['*']}", ["names no argument"]),
        ("per_layer: {weights: [], a: {uniform: [0, 1]}}", ["per_layer.weights", "list of names"]),
        ("per_layer: {weights: [3], a: {uniform: [0, 1]}}", ["list of names"]),
        ("per_layer: {types: 3, a: {uniform: [0, 1]}}", ["per_layer.types", "list of names", "as in [Conv2d]"]),
        ("per_layer: {except: [], a: {uniform: [0, 1]}}", ["per_layer.except", "list of names"]),
        ("per_layer: {uniform: [0, 1]}", ["stands where an argument is expected"]),
        ("per_layer: {final-sparsity: {uniform: [0, 1]}}", ["named by an identifier"]),
    ],
)
def test_faults(text: str, words: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(text)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith("space.yaml: search")
    assert all(word in message for word in words), message
    assert "; " in message


def test_all_faults_of_a_section_come_together() -> None:
    with pytest.raises(ConfigError) as caught:
        parse("""
training.lr: {loguniform: [0, 1]}
training.momentum: {unifrom: [0, 1]}
per_layer:
  - {weights: 3, a: {uniform: [1, 0]}}
  - {b: {choice: []}}
""")
    lines = str(caught.value).splitlines()
    assert len(lines) == 5
    assert [line.split(": ")[1] for line in lines] == [
        "search.training.lr.loguniform", "search.training.momentum", "search.per_layer[0].weights",
        "search.per_layer[0].a.uniform", "search.per_layer[1].b.choice",
    ]  # fmt: skip


def space() -> SearchSpace:
    dimensions, per_layer = parse(TEXT)
    return SearchSpace((*dimensions, *expand(per_layer, WEIGHTS, meant)))


def test_a_trial_depends_on_seed_and_index_alone() -> None:
    first, again = space(), space()
    alone = again.sample_trial(7, 5)
    assert [first.sample_trial(7, i) for i in range(6)][5] == alone
    drawn = [json.dumps(first.sample_trial(seed, i)) for seed in range(3) for i in range(20)]
    assert len(set(drawn)) == 60
    assert json.loads(json.dumps(alone)) == alone
    assert list(alone) == [d.path for d in first.dimensions]
    assert all(d.distribution.contains(alone[d.path]) for d in first.dimensions)


@pytest.mark.slow
def test_seed_and_index_do_not_run_into_each_other() -> None:
    only = SearchSpace((Dimension("a.b", Uniform(0, 1)),))
    grid = np.array([[only.sample_trial(seed, i)["a.b"] for i in range(40)] for seed in range(40)])
    assert len(np.unique(grid)) == 1600
    assert abs(np.corrcoef(grid[:-1].ravel(), grid[1:].ravel())[0, 1]) < 0.1


def test_the_ends_of_a_space_are_those_of_its_dimensions() -> None:
    space = SearchSpace((Dimension("a", Uniform(0.5, 2.0)), Dimension("b", Choice(("x", "y", "z")))))
    assert space.ends() == ({"a": 0.5, "b": "x"}, {"a": 2.0, "b": "z"})


def test_a_path_cannot_be_searched_twice() -> None:
    with pytest.raises(ConfigError, match=r"a\.b: is searched twice"):
        SearchSpace((Dimension("a.b", Uniform(0, 1)), Dimension("a.b", Uniform(0, 2))))
