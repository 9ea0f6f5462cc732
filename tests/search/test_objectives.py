from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import yaml

from raydistill.errors import ConfigError
from raydistill.metrics import Metric, NetworkFigure
from raydistill.search import Objective, parse_objectives, score_matrix
from raydistill.search.objectives import usual_objectives
from raydistill.tasks.classification.metrics import METRICS


def test_order_and_directions_are_the_files() -> None:
    parsed = parse_objectives(yaml.safe_load("{sparsity: max, loss: min, top1: max}"), "s.yaml: objectives", METRICS)
    assert parsed == (Objective("sparsity", "max"), Objective("loss", "min"), Objective("top1", "max"))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{}", ["at least one objective", "{top1: max, sparsity: max}"]),
        ("[top1]", ["at least one objective"]),
        ("{top_1: max}", ["objectives.top_1", "unknown objective", "did you mean 'top1'?"]),
        ("{latency: min}", ["did you mean 'latency_ms'?"]),
        ("{top1: maximum}", ["unknown direction", "'maximum'", "max"]),
        ("{top1: true}", ["unknown direction", "True"]),
        ("{top1: null}", ["unknown direction", "None"]),
    ],
)
def test_faults(text: str, words: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_objectives(yaml.safe_load(text), "s.yaml: objectives", METRICS)
    message = str(caught.value)
    assert message.startswith("s.yaml: objectives")
    assert "\n" not in message
    assert all(word in message for word in words), message


def test_all_faults_together() -> None:
    with pytest.raises(ConfigError) as caught:
        parse_objectives({"topp1": "up", "loss": "min"}, "s.yaml: objectives", METRICS)
    assert len(str(caught.value).splitlines()) == 2


def test_scores_stand_in_the_order_asked_for_and_nan_without_an_epoch(record) -> None:
    bare = dataclasses.replace(record("t1", 0.5, 0.2), last=None)
    matrix = score_matrix(
        [record("t0", 0.7, 0.8, loss=0.9), bare], parse_objectives({"sparsity": "max", "loss": "min"}, "x", METRICS)
    )
    np.testing.assert_array_equal(matrix, [[0.8, 0.9], [np.nan, np.nan]])
    assert score_matrix([], parse_objectives({"loss": "min"}, "x", METRICS)).shape == (0, 1)


def test_what_a_sweep_optimises_that_does_not_say_it() -> None:
    assert usual_objectives(METRICS) == {"top1": "max", "sparsity": "max"}
    assert usual_objectives({"rmse": Metric("min")}) == {"rmse": "min", "sparsity": "max"}


def test_which_figures_are_the_networks() -> None:
    names = {"top1": False, "loss": False, "sparsity": True, "macs": True, "latency_ms": True}
    for name, direction in (("top1", "max"), ("loss", "min")):
        for objective in (Objective(name, direction), Objective(name, direction, "pkg.mod:f")):
            assert objective.of_network is (bool(objective.path) or names[name])
            assert objective.maximise is (direction == "max")
    assert {name: Objective(name, "max").of_network for name in names} == names


ENERGY = NetworkFigure("energy", Metric("min", "mJ"), lambda model, example_input: 0.0)
AGAIN = NetworkFigure("energy", Metric("min", "mJ"), lambda model, example_input: 1.0)


def test_two_figures_of_one_name_are_told_apart_by_their_user() -> None:
    first, second = f"{__name__}:ENERGY", f"{__name__}:AGAIN"
    assert parse_objectives({"top1": "max", first: "min"}, "s", METRICS) == (
        Objective("top1", "max"),
        Objective("energy", "min", first, ENERGY.metric),
    )
    with pytest.raises(ConfigError) as caught:
        parse_objectives({first: "min", "top1": "max", second: "min"}, "s", METRICS)
    assert str(caught.value).splitlines() == ["s: two figures are named 'energy'; give one of them another name"]
