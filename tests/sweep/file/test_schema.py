"""The schemas of sweep files and run files: every file that there is is valid, mistakes are not."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator

from raydistill.errors import ConfigError
from raydistill.schedule import read_yaml
from raydistill.sweep.file.load import load_sweep
from raydistill.sweep.file.run_file import load_run
from raydistill.sweep.file.schema import run_schema, sweep_schema
from tests.fuzz.mutate import places

ROOT = Path(__file__).parents[3]
SWEEP = Draft202012Validator(sweep_schema())
RUN = Draft202012Validator(run_schema())
FILES = sorted(ROOT.glob("search_spaces/*.yaml"))
FREE = ("args", "metric")
"""Keys whose content the file's author chooses."""


def faults(validator: Draft202012Validator, mapping: object) -> list[str]:
    return [f"{list(error.absolute_path)}: {error.message}" for error in validator.iter_errors(mapping)]


@pytest.mark.slow
@pytest.mark.parametrize("schema", [sweep_schema, run_schema])
def test_it_is_a_schema_and_can_be_written(schema: Any) -> None:
    Draft202012Validator.check_schema(schema())
    text = json.dumps(schema())
    assert json.loads(text) == schema()
    for pydantics_own in ('"ge":', '"gt":', '"le":', '"lt":', '"title": "Lr"'):
        assert pydantics_own not in text


@pytest.mark.slow
@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_every_search_space_here_is_valid_and_with_a_mistake_it_is_not(file: Path) -> None:
    said = read_yaml(file)
    assert faults(SWEEP, said) == []
    changed = 0
    for holder, key in list(places(said)):
        right = holder[key]
        wrong: list[object] = []
        if isinstance(right, dict) and key not in FREE:
            wrong.append({**right, "nonsense": "?"})
        if key in ("epochs", "num_samples", "lr", "class", "starting_epoch", "grace_period", "seed"):
            wrong.append([right])
        if key in ("uniform", "loguniform"):
            wrong += [right[:1], [str(bound) for bound in right]]
        for value in wrong:
            holder[key] = value
            assert faults(SWEEP, said), f"{key}: {value}"
        holder[key] = right
        changed += len(wrong)
    assert changed > 15
    assert faults(SWEEP, said) == []


@pytest.fixture
def space() -> dict[str, Any]:
    return read_yaml(ROOT / "search_spaces" / "simplenet.yaml")


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("model", "arch"), "simplnet_cifar"),
        (("task",), {"name": "clasification"}),
        (("dataset", "name"), "cifar"),
        (("dataset", "augment"), "flip"),
        (("training", "epochs"), -1),
        (("training", "momentum"), 1.0),
        (("training", "optimizer"), {"name": "Adem"}),
        (("training", "optimizer"), {"name": "AdamW", "betas": [0.9, 0.98]}),
        (("searcher",), {"name": "sobol", "points": 3}),
        (("searcher",), {"points": 3}),
        (("searcher",), {"name": "soboll"}),
        (("searcher",), {"name": "pkg.mod:Mine", "startup": 3}),
        (("trial_scheduler",), {"name": "median", "reduction_factor": 2}),
        (("objectives", "top1"), "up"),
        (("constraints",), ["top1_drop 0.1"]),
        (("goal",), "macs 0.5x"),
        (("goal",), []),
        (("trial_scheduler",), {"mode": "promote"}),  # of options without a name, asha's
        (("aliases",), {"small": {"besst": "top1"}}),
        (("aliases",), {"small": {}}),
        (("aliases",), {"small": {"where": "size_bytes 3"}}),
        (("aliases",), {"a.b": {"best": "top1"}}),
        (("search",), {}),
        (("search", "lr"), {"uniform": [0.1, 0.2]}),
        (("search", "training.lr"), {"unifrom": [0.1, 0.2]}),
        (("search", "training.lr"), {"quniform": [0.1, 0.2]}),
        (("search", "training.batch_size"), {"randint": [0.5, 8]}),
        (("search", "per_layer"), []),
        (("schedule", "pruners", "agp", "final_sparsity"), 1.5),
        (("baseline", "schedule", "policies"), {}),
        (("warm_start",), []),
        (("warm_start",), {"auto": 3}),
        (("warm_start",), [{"sweep": "simplenet"}]),
        (("num_samples",), 100_001),
        (("workers_per_trial",), 0),
        (("resources_per_trial",), {"gpus": 1}),
    ],
)
def test_what_the_loader_refuses_without_a_model_is_not_valid(
    tmp_path: Path, space: dict[str, Any], path: tuple[str, ...], value: object
) -> None:
    holder: Any = space
    for key in path[:-1]:
        holder = holder[key]
    holder[path[-1]] = value
    assert faults(SWEEP, space)
    file = tmp_path / "space.yaml"
    file.write_text(yaml.safe_dump(space))
    if path[0] in ("model", "schedule", "baseline"):
        return  # that needs the classes and the model, see tests/compression/test_schema.py
    with pytest.raises(ConfigError):
        load_sweep(file)


@pytest.mark.parametrize(
    "changed",
    [
        {"schedule": "../schedules/simplenet_agp.yaml"},
        {"train": "my.mod:train"},
        {"train": {"name": "my.mod:train", "args": {"lr": 0.1}}},
        {"task": {"name": "my.mod:Task", "args": {"a": 1}}},
        {"model": {"arch": "my.mod:net", "args": {"width": 3}}},
        {"dataset": {"name": "diabetes"}},
        {"dataset": {"name": "imagefolder", "image_size": [32, 32], "augment": "my.mod:MINE"}},
        {"searcher": {"name": "my.mod:Mine", "args": {"step": 0.1}}},
        {"searcher": {"name": "grid", "points": 3}},
        {"trial_scheduler": {"name": "moasha", "mode": "promote", "brackets": 2}},
        {"objectives": {"my.mod:ENERGY": "min", "top1": "max"}},
        {"trial_scheduler": {"grace_period": 2}},
        {"goal": "macs <= 0.5x"},
        {"goal": ["macs <= 0.5x", "top1_drop <= 0.1"]},
        {"constraints": ["top1_drop <= 0.005", "latency_ms < 3", "my.mod:ENERGY <= 1e-3"]},
        {"aliases": {"small": {"best": "top1", "where": "macs <= 1e6"}, "a-1": {"where": ["top1_drop <= 0.1"]}}},
        {
            "search": {
                "per_layer": {"final_sparsity": {"choice": [0.5, 0.9]}},
                "policies[0].frequency": {"randint": [1, 4]},
            }
        },
        {"warm_start": "auto"},
        {"warm_start": ["auto", "a.yaml"]},
        {"warm_start": [{"auto": 100}, "a.yaml"]},
        {"warm_start": {"auto": 100}},
        {"warm_start": [{"per_layer.fc1.weight.final_sparsity": 0.9}, "a.yaml", {"sweep": "other", "top": 4}]},
        {"resources_per_trial": {"gpu": 0.5}},
        {"distillation": {"teacher": "baseline", "temperature": 4}},
        {
            "training": {
                "optimizer": {"name": "AdamW", "lr": 0.001, "args": {"betas": [0.9, 0.98]}, "no_decay": ["norms"]}
            }
        },
    ],
)
def test_all_that_a_file_may_say_is_valid(space: dict[str, Any], changed: dict[str, Any]) -> None:
    assert faults(SWEEP, {**space, **changed}) == []


def test_a_goal_takes_the_place_of_schedule_and_search(space: dict[str, Any]) -> None:
    left = {key: value for key, value in space.items() if key not in ("schedule", "search")}
    assert faults(SWEEP, left)
    assert faults(SWEEP, {**left, "goal": "macs <= 0.5x"}) == []


def test_a_run_file(tmp_path: Path, space: dict[str, Any]) -> None:
    run = {key: space[key] for key in ("version", "name", "model", "dataset", "training", "schedule", "seed")}
    assert faults(RUN, run) == []
    assert faults(RUN, {**run, "schedule": None}) == []
    wrong = copy.deepcopy({**run, "search": space["search"]})
    assert faults(RUN, wrong)
    file = tmp_path / "run.yaml"
    file.write_text(yaml.safe_dump(wrong))
    with pytest.raises(ConfigError):
        load_run(file)


@pytest.mark.slow
def test_a_field_says_what_its_option_says() -> None:
    training = sweep_schema()["$defs"]["TrainingSection"]["properties"]
    assert training["lr"]["description"] == "Learning rate."
    assert training["lr"]["exclusiveMinimum"] == 0
    assert training["epochs"]["default"] == 60
