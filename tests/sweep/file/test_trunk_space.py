"""What a goal of sparsity writes: how far its trunk goes, and what trials draw."""

from __future__ import annotations

import pytest
import yaml

from raydistill.metrics import Metric
from raydistill.sweep.file.goal import Goal, parse_goal
from raydistill.sweep.file.trunk_space import levels, search_lines, trunk_lines

METRICS = {"top1": Metric("max", unit="%"), "loss": Metric("min")}


def goal(*bounds: str) -> Goal:
    return parse_goal(list(bounds), "--goal", METRICS)


@pytest.mark.parametrize(
    ("bounds", "least", "most"),
    [
        (["sparsity >= 0.9"], 0.9, 0.92),
        (["sparsity > 0.5", "top1_drop <= 0.01"], 0.5, 0.6),
        (["sparsity >= 0.8", "sparsity >= 0.85"], 0.85, 0.88),
        (["top1_drop <= 0.01"], 0.5, 0.97),
        (["sparsity >= 0.9999"], 0.9999, 0.9999),
    ],
)
def test_a_trunk_ends_a_little_behind_the_bound(bounds: list[str], least: float, most: float) -> None:
    assert levels(goal(*bounds)) == pytest.approx((least, most))


@pytest.mark.parametrize(("bound", "begins", "ends"), [("sparsity >= 0.9", 0.3, 0.92), ("sparsity >= 0.1", 0.14, 0.28)])
def test_the_section_is_four_trials_long_and_rises(bound: str, begins: float, ends: float) -> None:
    comment, line = trunk_lines(goal(bound), 15, [])
    assert comment.startswith("# ")
    assert yaml.safe_load(line) == {"trunk": {"epochs": 60, "initial_sparsity": begins, "final_sparsity": ends}}
    said = yaml.safe_load("\n".join(trunk_lines(goal(bound), 15, ["a.*", "*b.weight"])))["trunk"]
    assert said == {**yaml.safe_load(line)["trunk"], "weights": ["a.*", "*b.weight"]}


def test_trials_draw_where_they_branch_off_and_a_rate_from_a_quarter_up() -> None:
    wanted = goal("sparsity >= 0.9")
    said = yaml.safe_load("\n".join(search_lines(wanted, {"epochs": 60, "lr": 0.02})))
    assert said == {"trunk.sparsity": {"uniform": [0.9, 0.92]}, "training.lr": {"loguniform": [0.005, 0.02]}}
    adam = {"epochs": 60, "optimizer": {"name": "AdamW", "lr": 4.0e-05}}
    said = yaml.safe_load("\n".join(search_lines(wanted, adam)))
    assert said["training.optimizer.lr"] == {"loguniform": [1.0e-05, 4.0e-05]}
    assert "training.lr" not in said
    assert list(yaml.safe_load("\n".join(search_lines(wanted, {"epochs": 60})))) == ["trunk.sparsity"]
