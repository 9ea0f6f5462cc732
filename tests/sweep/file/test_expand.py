"""A sweep file with a goal and nothing that is searched: all of it follows, and what is said stays."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from raydistill.compression.thinning.coupling import couplings
from raydistill.errors import ConfigError
from raydistill.sweep.file.load import load_sweep
from raydistill.sweep.planning.plan import plan_sweep
from raydistill.tasks.classification import ImageShape

SAID: dict[str, Any] = {
    "version": 1, "name": "wanted", "model": {"arch": "simplenet_cifar"}, "dataset": {"name": "digits"},
}  # fmt: skip
SHAPE = ImageShape(10, (3, 32, 32))


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    def written(**sections: Any) -> Path:
        file = tmp_path / "wanted.yaml"
        file.write_text(yaml.safe_dump({**SAID, **sections}, sort_keys=False))
        return file

    return written


@pytest.mark.slow
def test_macs_are_brought_down_by_structures(write: Callable[..., Path]) -> None:
    """One value for what goes together, by one of the weights that write it; fc3 writes the answers."""
    sweep = load_sweep(write(goal="macs <= 0.5x"))
    pruner = sweep.schedule.mapping["pruners"]["structures"]  # type: ignore[call-overload, index]
    assert pruner["class"] == "CoupledPruner"
    assert pruner["weights"] == ["conv1.weight", "conv2.weight", "fc1.weight", "fc2.weight"]
    plan = plan_sweep(sweep, SHAPE)
    assert [dimension.weight for dimension in plan.space.dimensions] == pruner["weights"]
    assert [(o.name, o.direction) for o in sweep.objectives] == [("top1", "max"), ("macs", "min")]
    assert [str(bound) for bound in sweep.constraints] == ["macs <= 0.5x"]
    assert [(alias.name, alias.rule.best) for alias in sweep.aliases] == [("goal", "top1")]
    assert sweep.sections.searcher.name == "additive"


@pytest.mark.slow
def test_each_coupling_of_a_residual_network_has_one_weight(write: Callable[..., Path]) -> None:
    sweep = load_sweep(write(goal="macs <= 0.5x", model={"arch": "resnet20_cifar"}))
    weights = sweep.schedule.mapping["pruners"]["structures"]["weights"]  # type: ignore[call-overload, index]
    offer = couplings(SHAPE.network("resnet20_cifar", {}), SHAPE.example_input())
    owners = [[name for name in weights if name in each.writers] for each in offer.couplings]
    assert all(len(found) == 1 for found in owners)
    assert len(weights) == len(offer.couplings) == 12


@pytest.mark.slow
def test_a_drop_is_spent_on_single_weights(write: Callable[..., Path]) -> None:
    sweep = load_sweep(write(goal=["top1_drop <= 0.01"], searcher={"name": "additive"}))
    assert [d.weight for d in plan_sweep(sweep, SHAPE).space.dimensions] == [
        f"{layer}.weight" for layer in ("conv1", "conv2", "fc1", "fc2", "fc3")
    ]
    assert [(alias.name, alias.rule.best) for alias in sweep.aliases] == [("goal", "sparsity")]


def test_sparsity_of_a_classifier_is_reached_along_a_trunk(write: Callable[..., Path], tmp_path: Path) -> None:
    sweep = load_sweep(write(goal="sparsity >= 0.9", training={"epochs": 10}, num_samples=6))
    assert sweep.sections.trunk is not None
    assert (sweep.sections.trunk.epochs, sweep.sections.trunk.final_sparsity) == (40, 0.92)
    assert "pruners" not in sweep.schedule.mapping
    plan = plan_sweep(sweep, SHAPE)
    assert [d.path for d in plan.space.dimensions] == ["trunk.sparsity", "training.lr"]
    assert all(trial.planned_sparsity >= 0.9 for trial in plan.trials)
    assert len({trial.branch for trial in plan.trials}) > 1
    other = load_sweep(write(goal="parameters <= 0.3x"))
    assert other.sections.trunk is None
    words = {"name": "language_model", "args": {"tokens": "bytes"}}
    (tmp_path / "text.txt").write_text("all that is said " * 400)
    text = {"data_dir": "text.txt"}
    of_words = load_sweep(write(goal="sparsity >= 0.9", task=words, model={"arch": "decoder_lm"}, dataset=text))
    assert of_words.sections.trunk is None


def test_what_the_file_says_stays(write: Callable[..., Path]) -> None:
    sweep = load_sweep(
        write(
            goal="sparsity >= 0.8", training={"epochs": 10, "lr": 0.007}, baseline={"epochs": 4}, num_samples=5,
            constraints=["top1_drop <= 0.1"], aliases={"small": {"best": "sparsity"}}, searcher={"name": "sobol"},
        )
    )  # fmt: skip
    sections = sweep.sections
    assert (sections.training.epochs, sections.training.lr, sections.num_samples) == (10, 0.007, 5)
    assert sections.baseline.epochs == 4
    assert sections.baseline.schedule is not None
    assert sections.baseline.schedule["lr_schedulers"]["decay"]["T_max"] == 4
    assert [str(bound) for bound in sweep.constraints] == ["sparsity >= 0.8", "top1_drop <= 0.1"]
    assert sorted(alias.name for alias in sweep.aliases) == ["goal", "small"]
    assert sections.searcher.name == "sobol"


@pytest.mark.slow
def test_a_goal_beside_a_search_bounds_it(write: Callable[..., Path]) -> None:
    whole = load_sweep(write(goal="sparsity >= 0.8", searcher={"name": "additive"}))
    own = {"per_layer": {"weights": ["fc1.weight"], "final_sparsity": {"uniform": [0.1, 0.9]}}}
    sweep = load_sweep(write(goal="sparsity >= 0.8", schedule=dict(whole.schedule.mapping), search=own))
    assert [d.weight for d in plan_sweep(sweep, SHAPE).space.dimensions] == ["fc1.weight"]
    assert [str(bound) for bound in sweep.constraints] == ["sparsity >= 0.8"]


@pytest.mark.parametrize(
    ("sections", "line"),
    [
        ({"goal": "macs"}, "wanted.yaml: goal[0]: must be a figure, one of"),
        ({"goal": 3}, "wanted.yaml: goal: must be a bound, or a list of bounds, got 3"),
        (
            {"goal": "macs <= 0.5x", "schedule": {"version": 1}},
            "wanted.yaml: schedule: goes with a 'search': a goal writes both or neither; add 'search', or leave",
        ),
        ({"goal": "macs <= 0.5x", "search": {}}, "wanted.yaml: search: goes with a 'schedule'; add 'schedule', or"),
        ({"goal": "macs <= 0.5x", "model": {"arch": "resnet"}}, "wanted.yaml: model.arch: unknown model, got 'resnet'"),
        ({"goal": "macs <= 0.5x", "model": {}}, "wanted.yaml: model.arch: "),
        ({"goal": None}, "wanted.yaml: schedule: "),
    ],
)  # fmt: skip
def test_what_is_wrong_is_a_line(write: Callable[..., Path], sections: dict[str, Any], line: str) -> None:
    file = write(**sections)
    with pytest.raises(ConfigError) as caught:
        load_sweep(file)
    said = str(caught.value).replace(f"{file.parent}/", "")
    assert any(each.startswith(line) for each in said.splitlines()), said
