"""The schema of schedule files: it takes what `build` takes, and every file there is; mistakes it does not take."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from jsonschema import Draft202012Validator

from raydistill.compression import build
from raydistill.compression.build import MENUS
from raydistill.compression.schema import class_arguments, schedule_schema, type_schema
from raydistill.errors import ConfigError
from raydistill.schedule import NARROWED, NARROWING, parse_schedule, read_yaml
from tests.fuzz.mutate import mutated, places
from tests.two_layers import TwoLayers

ROOT = Path(__file__).parents[2]
SCHEMA = Draft202012Validator(schedule_schema())
FILES = sorted(ROOT.glob("schedules/*.yaml"))
SCHEDULE: dict[str, Any] = {
    "version": 1,
    "pruners": {
        "agp": {
            "class": "AutomatedGradualPruner", "initial_sparsity": 0.1, "final_sparsity": 0.5,
            "weights": ["conv.weight"],
        },
        "level": {"class": "SparsityLevelParameterPruner", "levels": {"fc.weight": 0.5}},
        "ranked": {"class": "RankedPruner", "final_sparsity": 0.5, "weights": "fc.weight", "ranking": "magnitude"},
        "filters": {
            "class": "L1RankedStructureParameterPruner", "group_type": "Filters", "desired_sparsity": 0.5,
            "weights": ["conv.weight"],
        },
    },
    "regularizers": {"l1": {"class": "L1Regularizer", "reg_regims": {"fc.weight": 0.0001}}},
    "lr_schedulers": {
        "cosine": {"class": "CosineAnnealingLR", "T_max": 8},
        "steps": {"class": "MultiStepLR", "milestones": [2, 4], "gamma": 0.5},
        "plateau": {"class": "ReduceLROnPlateau", "mode": "min"},
    },
    "policies": [
        {"pruner": {"instance_name": "agp"}, "starting_epoch": 0, "ending_epoch": 8, "frequency": 2},
        {"pruner": {"instance_name": "level", "args": {"keep_mask": True}}, "epochs": [1, 3]},
        {"regularizer": {"instance_name": "l1", "args": None}, "starting_epoch": 0, "ending_epoch": 8, "frequency": 1},
        {"lr_scheduler": {"instance_name": "cosine"}, "starting_epoch": 0, "ending_epoch": 8, "frequency": 1},
    ],
}  # fmt: skip


def faults(mapping: object) -> list[str]:
    return [f"{list(error.absolute_path)}: {error.message}" for error in SCHEMA.iter_errors(mapping)]


@pytest.mark.slow
def test_it_is_a_schema_and_can_be_written() -> None:
    schema = schedule_schema()
    Draft202012Validator.check_schema(schema)
    assert json.loads(json.dumps(schema)) == schema


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_every_schedule_here_is_valid(file: Path) -> None:
    assert faults(read_yaml(file)) == []


@pytest.mark.slow
def test_every_file_of_distillers_users_is_valid(compat: Path) -> None:
    files = sorted((compat / "distiller_schedules").rglob("*.yaml"))
    assert files
    for file in files:
        assert faults(read_yaml(file, lambda *_: None)) == [], file


@pytest.mark.slow
def test_every_class_of_every_menu_is_told_with_its_arguments() -> None:
    for section, (_, menu) in MENUS.items():
        cases = schedule_schema()["$defs"][section]["additionalProperties"]["allOf"]
        assert [case["if"]["properties"]["class"]["const"] for case in cases] == list(menu)
        for name, case in zip(menu, cases, strict=True):
            wanted = {key for key, one in class_arguments(section, name).items() if one.kind is not one.VAR_KEYWORD}
            narrowing = NARROWING if section in NARROWED else ()
            assert set(case["then"]["properties"]) == {"class", *wanted, *narrowing}


@pytest.mark.slow
@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_a_key_too_many_a_name_misspelt_or_a_kind_mistaken_is_not(file: Path) -> None:
    said = read_yaml(file)
    changed = 0
    for holder, key in list(places(said)):
        right = holder[key]
        is_free = key in ("levels", "reg_regims")  # their keys are weights
        wrong: list[object] = [{**right, "nonsense": 1}] if isinstance(right, dict) and not is_free else []
        if key in ("class", "final_sparsity", "initial_sparsity", "T_max", "frequency"):
            wrong.append(f"{right}x")
        for value in wrong:
            holder[key] = value
            assert faults(said), f"{key}: {value}"
        holder[key] = right
        changed += len(wrong)
    assert changed > 5
    assert faults(said) == []
    assert faults({**said, "nonsense": {}})


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("version",), 2),
        (("pruners", "agp", "final_sparsity"), 1.0),
        (("pruners", "agp", "final_sparsity"), "0.5"),
        (("pruners", "agp", "weights"), []),
        (("pruners", "agp", "class"), "LevelPruner"),
        (("pruners", "ranked", "ranking"), "magnitute"),
        (("pruners", "ranked"), {"class": "RankedPruner", "final_sparsity": 0.5}),
        (("pruners", "level", "levels"), ["fc.weight"]),
        (("lr_schedulers", "plateau", "mode"), "least"),
        (("lr_schedulers", "cosine", "T_max"), "eight"),
        (("policies", 0, "frequency"), 0),
        (("policies", 0, "epochs"), [1]),
        (("policies", 0, "lr_scheduler"), {"instance_name": "cosine"}),
        (("policies", 0, "pruner"), {"instance": "agp"}),
        (("policies", 1, "epochs"), []),
        (("policies", 1, "pruner", "args"), {"keep_masks": True}),
        (("policies", 3), {"lr_scheduler": {"instance_name": "cosine"}, "starting_epoch": 0, "ending_epoch": 8}),
        (("policies",), {"pruner": {"instance_name": "agp"}}),
    ],
)
def test_what_the_loader_refuses_without_a_model_is_not_valid(path: tuple[Any, ...], value: object) -> None:
    assert faults(SCHEDULE) == []
    said = copy.deepcopy(SCHEDULE)
    holder: Any = said
    for key in path[:-1]:
        holder = holder[key]
    holder[path[-1]] = value
    assert faults(said)
    with pytest.raises(ConfigError):
        built(said)


def test_ones_own_class_takes_any_argument() -> None:
    own = {"class": "my_pkg.mod:Mine", "anything": {"a": 1}}
    assert faults({**SCHEDULE, "pruners": {**SCHEDULE["pruners"], "own": own}}) == []


def built(said: dict[str, Any]) -> None:
    torch.manual_seed(0)
    model = TwoLayers()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    build(parse_schedule(said, "s.yaml"), model, optimizer, (torch.zeros(1, 3, 8, 8),))


WORDS = ["class", "weights", "epochs", "agp", "CosineAnnealingLR", "StepLR", "fc.weight", "pruner", "RankedPruner"]


@pytest.mark.slow
@settings(max_examples=150, derandomize=True, database=None, deadline=None, suppress_health_check=list(HealthCheck))
@given(mutated([SCHEDULE], WORDS))
def test_what_is_taken_is_valid(said: Any) -> None:
    """An editor that marks what works is worse than none."""
    try:
        built(said)
    except (ConfigError, TypeError):
        return
    assert faults(said) == []


@pytest.mark.parametrize(
    ("kind", "right", "wrong"),
    [
        (float, 1, "1"),
        (int, 1, 1.5),
        (bool, True, 1),
        (list[int], [1], [1.5]),
        (dict[str, float], {"a": 1}, {"a": "b"}),
        (float | None, None, "x"),
    ],
)
def test_a_type_takes_its_own(kind: object, right: object, wrong: object) -> None:
    validator = Draft202012Validator(type_schema(kind))
    assert validator.is_valid(right)
    assert not validator.is_valid(wrong)


def test_what_json_has_no_word_for_takes_anything() -> None:
    assert type_schema(torch.Tensor) == {}


@pytest.mark.slow
def test_types_and_exclusions_stand_in_place_of_weights_where_these_are_named() -> None:
    schedule = copy.deepcopy(SCHEDULE)
    agp = schedule["pruners"]["agp"]
    del agp["weights"]
    assert len(faults(schedule)) == 1
    agp["types"] = "Conv2d"
    assert faults(schedule) == []
    agp["except"] = ["fc.weight", r"re:.*\.bias"]
    assert faults(schedule) == []
    schedule["lr_schedulers"]["cosine"]["types"] = ["Conv2d"]
    agp["except"] = [3]
    assert len(faults(schedule)) == 2
