"""A trial that trains on workers, as far as it needs none."""

from __future__ import annotations

from pathlib import Path

import pytest

from raydistill.cluster import tune_bridge
from raydistill.cluster.team import Team
from raydistill.cluster.tune_bridge import REQUEST, trial_epochs
from raydistill.datasets import DatasetConfig
from raydistill.errors import ConfigError
from raydistill.training import RunConfig


def finish(*given: object) -> None:
    raise AssertionError("it is called")


def test_a_trial_takes_no_core_from_its_workers() -> None:
    assert REQUEST["cpu"] == 0
    assert sum(REQUEST.values()) > 0, "Tune refuses a trial that asks for nothing"


def test_it_is_the_run_that_is_trained() -> None:
    run = RunConfig(arch="simplenet_cifar", dataset=DatasetConfig("digits"), out_dir=None)
    with pytest.raises(ConfigError, match="out_dir: is missing"):
        next(trial_epochs(run, None, Team(2), finish, print))  # type: ignore[arg-type]


def test_only_a_team_that_takes_over_from_another_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def two_teams(run: object, task: object, team: Team, on_team, finish: object):  # type: ignore[no-untyped-def]
        on_team(["a", "b", "c"], 0)
        yield "first"
        on_team(["a", "b"], 1)
        yield "second"

    monkeypatch.setattr(tune_bridge, "fit_on_workers", two_teams)
    told: list[str] = []
    run = RunConfig(arch="simplenet_cifar", dataset=DatasetConfig("digits"), out_dir=str(tmp_path))
    assert list(trial_epochs(run, None, Team(3), finish, told.append)) == ["first", "second"]  # type: ignore[arg-type,comparison-overlap]
    assert told == ["a worker's process died; 2 workers go on"]
