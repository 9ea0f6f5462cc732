"""What the figures of a sweep mean is in its journal, and none of the user's code is asked for it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from raydistill.errors import ConfigError
from raydistill.metrics import Metric
from raydistill.search import Objective
from raydistill.search.constraints import Constraint
from raydistill.sweep.record.judgement import Judgement, judgement_of
from raydistill.tasks.classification import Classification

OWN = Judgement(
    {"mae": Metric("min", "", "mean absolute error"), "loss": Metric("min")},
    (Objective("mae", "min"), Objective("energy", "min", "my.mod:ENERGY", Metric("min", "mJ", "energy"))),
    (Constraint("mae_rise", "<=", 0.5), Constraint("energy", "<", 3.0, "my.mod:ENERGY")),
)


def test_it_comes_back_through_the_journal() -> None:
    said = json.loads(json.dumps({"config": {}, "judged_by": OWN.to_json()}))
    assert judgement_of(said, "journal") == OWN


def test_a_journal_that_is_older_says_it_by_its_config() -> None:
    found = judgement_of({"config": {"constraints": ["top1_drop <= 0.1"]}}, "journal")
    assert found.metrics == Classification.metrics
    assert [(o.name, o.direction) for o in found.objectives] == [("top1", "max"), ("sparsity", "max")]
    assert found.constraints == (Constraint("top1_drop", "<=", 0.1),)
    found = judgement_of({"config": {"task": {"name": "regression"}, "objectives": {"rmse": "min"}}}, "journal")
    assert [(o.name, o.direction) for o in found.objectives] == [("rmse", "min")]


@pytest.mark.parametrize(
    "config",
    [
        {"task": {"name": "os:system"}},
        {"objectives": {"os:system": "max"}},
        {"constraints": ["os:system <= 3"]},
        {"train": {"name": "os:system"}},
    ],
)
def test_code_that_an_older_journal_names_is_not_imported(config: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="run the sweep once more with --resume"):
        judgement_of({"config": config}, "journal")


@pytest.mark.parametrize(
    "said",
    [
        3,
        {},
        {**OWN.to_json(), "metrics": {}},
        {**OWN.to_json(), "metrics": {"a": {"direction": "up", "unit": "", "label": ""}}},
        {**OWN.to_json(), "objectives": [{"name": "a"}]},
        {**OWN.to_json(), "constraints": [{"figure": "a", "more": 1}]},
    ],
)
def test_damage_is_one_line(said: Any) -> None:
    with pytest.raises(ConfigError, match="does not say what its figures mean") as caught:
        judgement_of({"config": {}, "judged_by": said}, "journal")
    assert "\n" not in str(caught.value)
