"""``raydistill sweep --amc-...``: the searcher that follows, with a file and without one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from raydistill.cli.amc import goals_of, searcher_of
from raydistill.errors import ConfigError
from raydistill.parts import AMC
from tests.cli.conftest import Ended
from tests.sweep.conftest import SWEEP, changed

Command = Callable[..., Ended]
ASKED = ("--amc-protocol", "punish-agent", "--amc-heatup-episodes", "7", "--amc-action-range", "0.1", "0.6")


def test_nothing_asked_for_is_no_searcher() -> None:
    assert searcher_of(AMC()) is None
    assert searcher_of(AMC(target_density=0.5)) == {"name": "amc"}
    assert searcher_of(AMC(agent="DDPG", heatup_episodes=3)) == {"name": "amc", "agent": "DDPG", "heatup_episodes": 3}


def test_a_density_is_a_goal_where_there_is_no_file() -> None:
    assert goals_of(AMC(), ["sparsity >= 0.5"], None) == ["sparsity >= 0.5"]
    assert goals_of(AMC(target_density=0.35), None, None) == ["macs <= 0.35x"]
    with pytest.raises(ConfigError, match=r"--amc-target-density: takes the place of a file; say constraints: \['macs"):
        goals_of(AMC(target_density=0.5), None, Path("a.yaml"))
    with pytest.raises(ConfigError, match="must lie between 0 and 1, got 50"):
        goals_of(AMC(target_density=50.0), None, None)


@pytest.mark.slow
def test_they_stand_above_the_files_searcher(raydistill: Command, tmp_path: Path) -> None:
    file = tmp_path / "space.yaml"
    said = changed(SWEEP, "constraints", ["sparsity >= 0.5"])
    file.write_text(yaml.safe_dump(changed(said, "searcher", {"name": "amc", "training_episodes": 9})))
    ended = raydistill("sweep", file, "--dry-run", "--storage", tmp_path / "sweeps", *ASKED)
    assert ended.code == 0, ended.err
    assert "amc, the best of 16 episodes without training (DDPG, punish-agent)" in ended.out
    file.write_text(yaml.safe_dump(said))  # random is another method: nothing of it stays
    ended = raydistill("sweep", file, "--dry-run", "--storage", tmp_path / "sweeps", *ASKED)
    assert "amc, the best of 87 episodes without training (DDPG, punish-agent)" in ended.out
    refused = raydistill("sweep", file, "--dry-run", "--amc-protocol", "mac")
    assert (refused.code, len(refused.err.splitlines())) == (2, 1), refused.err
    assert "space.yaml: searcher.protocol" in refused.err


@pytest.mark.slow
def test_a_density_alone_is_a_sweep_of_half_the_macs(
    raydistill: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    asked = ("--arch", "resnet20_cifar", "--dataset", "digits", "--amc-target-density", "0.5", "--epochs", "2")
    ended = raydistill("sweep", *asked, "--dry-run", "--storage", tmp_path / "sweeps")
    assert ended.code == 0, ended.err
    assert "amc, the best of 100 episodes without training (DDPG, mac-constrained)" in ended.out
    assert "macs <= 0.5x" in ended.out
