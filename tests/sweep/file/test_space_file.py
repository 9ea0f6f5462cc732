"""A sweep file from sensitivity curves: valid as it is, and what it says is what was measured."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from raydistill.compression.sensitivity import Point
from raydistill.compression.tolerance import tolerances
from raydistill.errors import ConfigError
from raydistill.sweep.file.load import load_sweep
from raydistill.sweep.file.space_file import Measured, may_write, space_text, sweep_name
from raydistill.sweep.planning.plan import plan_sweep
from raydistill.tasks.classification import ImageShape
from raydistill.tasks.classification.metrics import METRICS

CIFAR = ImageShape(10, (3, 32, 32))


def points(**top1: tuple[float, ...]) -> list[Point]:
    """top1 at 0, 0.5 and 0.9, by the first part of a weight's name."""
    return [
        Point(f"{name}.weight", level, level, {"top1": value})
        for name, values in top1.items()
        for level, value in zip((0.0, 0.5, 0.9), values, strict=True)
    ]


def written(tmp_path: Path, found: list[Point], name: str = "my space.yaml", **changed: object) -> Path:
    checkpoint = tmp_path / "runs" / "checkpoint.pt"
    checkpoint.parent.mkdir(exist_ok=True)
    checkpoint.touch()
    said = {"arch": "simplenet_cifar", "checkpoint": checkpoint, "epochs": 20, "max_drop": 0.1, "samples": 10_000,
            "metrics": METRICS, "dense": 0.9, "command": "raydistill sensitivity",
            "dataset": {"name": "digits", "validation": 0.2},
            "training": {"lr": 0.05, "batch_size": 64, "weight_decay": 1e-5, "init": "random"}}  # fmt: skip
    file = tmp_path / name
    measured = Measured(**{**said, **changed})
    file.write_text(
        space_text(file, measured, tolerances(found, "top1", METRICS["top1"], measured.max_drop, measured.samples))
    )
    return file


@pytest.mark.slow
def test_the_file_is_a_valid_sweep_with_bounds_and_start_points(tmp_path: Path) -> None:
    found = points(conv1=(0.9, 0.1, 0.1), conv2=(0.9, 0.8, 0.1), fc1=(0.9, 0.9, 0.9))
    file = written(tmp_path, found)
    sweep = load_sweep(file)
    plan = plan_sweep(sweep, CIFAR)
    assert sweep.sections.name == "my_space"
    assert sweep.sections.baseline.checkpoint == str(tmp_path / "runs" / "checkpoint.pt")
    assert yaml.safe_load(file.read_text())["baseline"]["checkpoint"] == "runs/checkpoint.pt"
    training = sweep.sections.training
    assert (training.epochs, training.batch_size, training.lr, training.weight_decay) == (20, 64, 0.02, 1e-5)
    assert (sweep.dataset.name, sweep.dataset.validation) == ("digits", 0.2)
    bounds = {d.weight: (d.distribution.low, d.distribution.high) for d in plan.space.dimensions}  # type: ignore
    # conv1 loses 0.1 at 0.0625, 0.02 at 0.0125; conv2 at 0.5 and 0.1; fc1 never
    assert bounds == {"conv1.weight": (0.0, 0.121), "conv2.weight": (0.05, 0.75), "fc1.weight": (0.45, 0.99)}
    assert [dict(trial.values) for trial in plan.warm] == [
        {f"per_layer.{weight}.weight.final_sparsity": value for weight, value in start.items()}
        for start in (
            {"conv1": 0.005, "conv2": 0.075, "fc1": 0.675},
            {"conv1": 0.06, "conv2": 0.5, "fc1": 0.9},
            {"conv1": 0.09, "conv2": 0.625, "fc1": 0.945},
        )
    ]
    text = file.read_text()
    assert "task:" not in text
    assert "{uniform: [0.45, 0.99]}}    # bears all that was measured, 0.9" in text
    assert max(len(line) for line in text.splitlines()) <= 120


@pytest.mark.slow
def test_a_weight_that_drops_at_once_is_not_searched(tmp_path: Path) -> None:
    found = points(conv1=(0.9, 0.0, 0.0), fc1=(0.9, 0.9, 0.9))
    file = written(tmp_path, found, max_drop=0.03)
    plan = plan_sweep(load_sweep(file), CIFAR)
    assert [d.weight for d in plan.space.dimensions] == ["fc1.weight"]
    assert "# conv1.weight stays dense: pruning it by 0.01 costs 3 points" in file.read_text()
    pruned = yaml.safe_load(plan.trials[0].schedule_text)["pruners"]
    assert [body["weights"] for body in pruned.values()] == [["fc1.weight"]]


def test_where_every_weight_drops_at_once_there_is_nothing_to_search(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"--max-drop: no weight bears 5 % .*, got 0.01; raise it"):
        written(tmp_path, points(conv1=(0.9, 0.0, 0.0), fc1=(0.9, 0.0, 0.0)), max_drop=0.01)


def test_paths_elsewhere_are_absolute_and_a_file_is_not_overwritten(tmp_path: Path) -> None:
    folder = tmp_path / "spaces"
    folder.mkdir()
    file = written(tmp_path, points(fc1=(0.9, 0.9, 0.9)), "spaces/space.yaml")
    assert load_sweep(file).sections.baseline.checkpoint == str(tmp_path / "runs" / "checkpoint.pt")
    may_write(file, overwrite=True)
    may_write(tmp_path / "new.yaml", overwrite=False)
    with pytest.raises(ConfigError, match=r"space\.yaml is there already; add --overwrite"):
        may_write(file, overwrite=False)
    with pytest.raises(ConfigError, match="is a folder"):
        may_write(folder, overwrite=True)


@pytest.mark.parametrize(("stem", "name"), [("a b", "a_b"), ("_x", "x"), ("ü", "sweep"), ("1.5-c", "1.5-c")])
def test_a_sweep_is_named_after_its_file(stem: str, name: str) -> None:
    assert sweep_name(Path(f"{stem}.yaml")) == name
