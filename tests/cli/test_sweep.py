"""What is said once in the environment need not be said with each sweep; and the last lines of one."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from raydistill.cli.sweep import _how_to_open, _report
from raydistill.metrics import Metric
from raydistill.records import FINISHED, EpochMetrics, TrialRecord
from raydistill.search import Objective, front_rows
from raydistill.search.aliases import Alias
from raydistill.search.pick import Rule
from raydistill.sweep.run import Outcome
from tests.cli.conftest import Ended

SPACE = Path(__file__).parents[2] / "search_spaces" / "simplenet.yaml"
Command = Callable[..., Ended]


@pytest.mark.slow
def test_the_storage(raydistill: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("RAYDISTILL_STORAGE", str(tmp_path / "shared"))
    dry = ["sweep", SPACE, "--dry-run", "--dataset", "digits", "--num-samples", "2"]
    assert f"{tmp_path}/shared/simplenet\n" in raydistill(*dry).out
    assert f"{tmp_path}/own/simplenet\n" in raydistill(*dry, "--storage", tmp_path / "own").out  # what is typed wins


def test_a_server_is_named_and_not_opened() -> None:
    assert _how_to_open("http://127.0.0.1:5000") == "http://127.0.0.1:5000"
    assert _how_to_open("sqlite:////data/mlflow.db") == "mlflow ui --backend-store-uri sqlite:////data/mlflow.db"


def outcome(**said: Any) -> Outcome:
    last = EpochMetrics(0, 1, 0.1, {"top1": 0.5, "loss": 1.0}, 0.1, 0.5, {}, 1.0, 1.0, 0)
    record = TrialRecord("t0000", {}, FINISHED, "net", "digits", 0, last=last)
    rows = front_rows([record], (Objective("top1", "max"), Objective("sparsity", "max")))
    folder = Path("/sweeps/tiny")
    return Outcome(folder, {"t0000": record}, rows, "digits", False, False, "sqlite:///a.db", str(folder), **said)


def last_lines(told: Outcome) -> list[str]:
    text = io.StringIO()
    metrics = {"top1": Metric("max", "fraction"), "loss": Metric("min")}
    _report(told, metrics, "raydistill sweep --resume", Console(file=text, width=80), "sweeps")
    return text.getvalue().splitlines()


def test_the_knee_is_offered_where_it_can_be_taken_away() -> None:
    assert last_lines(outcome(model="tiny"))[-1] == "take it away raydistill pick tiny --knee -o tiny-t0000"
    assert not any("pick" in line for line in last_lines(outcome(can_be_taken=False)))


def test_the_curves_of_trials_are_opened_by_tensorboard() -> None:
    assert "curves       tensorboard --logdir /sweeps/tiny/trials" in last_lines(outcome())
    told = replace(outcome(), kept="s3://bucket/sweeps/tiny")
    assert not any("tensorboard" in line for line in last_lines(told)), "it does not read from buckets"


def test_the_network_of_a_goal_is_offered_in_place_of_the_knee() -> None:
    text = io.StringIO()
    metrics = {"top1": Metric("max", "fraction"), "loss": Metric("min")}
    goal = (Alias("small", Rule(best="sparsity")), Alias("goal", Rule(best="top1")))
    _report(outcome(model="tiny"), metrics, "", Console(file=text, width=80), "kept", goal)
    assert text.getvalue().splitlines()[-1] == (
        "take it away raydistill pick tiny --best top1 -o tiny-goal --storage kept"
    )


def test_the_users_own_aliases_are_told() -> None:
    assert "small        models:/tiny@small" in last_lines(outcome(aliases={"small": "models:/tiny@small"}))
