"""A sweep file from sensitivity curves: valid as it is, and what it says is what was measured."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from raydistill.compression.sensitivity import Point
from raydistill.compression.tolerance import tolerances
from raydistill.errors import ConfigError
from raydistill.metrics import Metric
from raydistill.parts import Optimizer
from raydistill.sweep.file.load import load_sweep
from raydistill.sweep.file.space_file import (
    Measured,
    SpaceFile,
    amount,
    dataset_section,
    file_for,
    flow,
    may_write,
    relative,
    space_text,
    sweep_name,
    training_section,
)
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


def test_the_whole_file_by_hand(tmp_path: Path) -> None:
    """conv1 loses a tenth at 0.0625, of all that was measured fc1 nothing, and fc2 everything at once."""
    found = points(conv1=(0.9, 0.1, 0.1), fc1=(0.9, 0.9, 0.9), fc2=(0.9, -9.0, -9.0))
    file = written(tmp_path, found)
    said = yaml.safe_load(file.read_text())
    per_layer, warm, schedule = said["search"]["per_layer"], said["warm_start"], said["schedule"]
    assert said == {
        "version": 1, "name": "my_space", "model": {"arch": "simplenet_cifar"},
        "dataset": {"name": "digits", "validation": 0.2},
        "training": {"epochs": 20, "batch_size": 64, "weight_decay": 1e-5, "lr": 0.02},
        "baseline": {"checkpoint": "runs/checkpoint.pt"}, "schedule": schedule, "search": {"per_layer": per_layer},
        "warm_start": warm, "objectives": {"top1": "max", "sparsity": "max"},
        "trial_scheduler": {
            "name": "asha", "grace_period": 5, "reduction_factor": 2, "score": {"top1": 1.0, "planned_sparsity": 0.05},
        },
        "num_samples": 16, "seed": 0,
    }  # fmt: skip
    assert per_layer == [
        {"weights": ["conv1.weight"], "final_sparsity": {"uniform": [0.0, 0.121]}},
        {"weights": ["fc1.weight"], "final_sparsity": {"uniform": [0.45, 0.99]}},
    ]
    assert [list(start.values()) for start in warm] == [[0.005, 0.675], [0.06, 0.9], [0.09, 0.945]]
    assert schedule == {
        "version": 1,
        "pruners": {"agp": {
            "class": "AutomatedGradualPruner", "initial_sparsity": 0.0, "final_sparsity": 0.5,
            "weights": ["conv1.weight", "fc1.weight"],
        }},
        "lr_schedulers": {"decay": {"class": "CosineAnnealingLR", "T_max": 20}},
        "policies": [
            {"pruner": {"instance_name": "agp"}, "starting_epoch": 0, "ending_epoch": 15, "frequency": 1},
            {"lr_scheduler": {"instance_name": "decay"}, "starting_epoch": 0, "ending_epoch": 20, "frequency": 1},
        ],
    }  # fmt: skip
    text = file.read_text()
    assert "# on 10,000 validation samples, where the dense network has a top1 of 90.00 %." in text
    assert "that is with 2.0 points of top1 less at most." in text
    assert "s what it bears with 10 points of top1 less; retraining" in text
    (left,) = [line for line in text.splitlines() if "stays dense" in line]
    assert "fc2.weight stays dense: pruning it by 0" in left
    assert left.endswith(" costs 10 points"), left


def test_no_more_start_points_than_trials_and_none_twice(tmp_path: Path) -> None:
    found = tolerances(points(fc1=(0.9, 0.9, 0.9)), "top1", METRICS["top1"], 0.1, 10_000)
    measured = Measured("net", tmp_path / "c.pt", 2, 0.1, 10_000, METRICS, 0.9, "command")
    for count in (1, 2, 16):
        said = yaml.safe_load(space_text(tmp_path / "s.yaml", measured, found, count))
        assert (len(said["warm_start"]), said["num_samples"]) == (min(count, 3), count)
    assert said["trial_scheduler"]["grace_period"] == 1


def test_parts_of_a_file_and_what_is_left_out(tmp_path: Path) -> None:
    """A file without pruners, with a quantizer; a note that would make its line too long stands above it."""
    made = SpaceFile(
        about=["About."], sections={"model": {"arch": "a" * 60}, "training": {"epochs": 3}}, baseline=[], pruned={},
        epochs=3, search=["  a.b: 1"], ends=["seed: 0"], notes={"model": "n" * 50, "training": "short"}, decays=False,
        quantizers={"q": {"class": "Q", "bits": 8}},
    )  # fmt: skip
    lines = made.text(tmp_path / "x.yaml").splitlines()
    assert lines == [
        "# About.", "version: 1", "name: x", "", f"# {'n' * 50}", f"model: {{arch: {'a' * 60}}}",
        "training: {epochs: 3}    # short", "", "schedule:", "  version: 1", "  quantizers:",
        "    q: {class: Q, bits: 8}", "  policies:",
        "    - {quantizer: {instance_name: q}, starting_epoch: 0, ending_epoch: 3, frequency: 1}", "", "search:",
        "  a.b: 1", "", "seed: 0",
    ]  # fmt: skip
    short = SpaceFile([], {}, [], {"agp": ["w"]}, 1, [], [], pruned_until=0.1).text(tmp_path / "x.yaml")
    assert "{pruner: {instance_name: agp}, starting_epoch: 0, ending_epoch: 1, frequency: 1}" in short


def test_what_a_section_says_beside_its_defaults(tmp_path: Path) -> None:
    file = tmp_path / "s.yaml"
    assert dataset_section({"name": "cifar10", "validation": 0.3, "odd": 1}, file) == {
        "name": "cifar10", "validation": 0.3,
    }  # fmt: skip
    assert dataset_section({"name": "cifar10", "data_dir": str(tmp_path / "d")}, file, ()) == {"data_dir": "d"}
    assert training_section(3, {}) == {"epochs": 3, "lr": 0.02}  # of 0.05
    assert training_section(3, {"lr": 0.0123456, "batch_size": 128, "momentum": 0.9}) == {
        "epochs": 3, "batch_size": 128, "lr": 0.00494,
    }  # fmt: skip
    adam = training_section(3, {"optimizer": {"name": "Adam", "lr": 0.01}, "lr": 0.5, "momentum": 0.1})
    assert adam == {"epochs": 3, "optimizer": {"name": "Adam", "lr": 0.004}}
    sgd = training_section(3, {"optimizer": {"lr": 0.01, "clip_norm": 1.0}})
    assert sgd["optimizer"] == {"lr": 0.004, "clip_norm": 1.0}
    assert Optimizer(**sgd["optimizer"]).name == "SGD"


def test_small_words(tmp_path: Path) -> None:
    assert amount(Metric("max", "fraction"), 0.0123, 1) == "1.2 points"
    assert amount(Metric("min"), 0.0123, 1) == "0.0123"
    assert flow(1e-5) == "1.0e-05"
    assert flow(["a", "ü"]) == "[a, ü]"
    assert flow("x" * 500) == "x" * 500
    assert relative(tmp_path / "a" / "b.pt", tmp_path / "s.yaml") == "a/b.pt"
    assert relative(Path("/elsewhere/b.pt"), tmp_path / "s.yaml") == "/elsewhere/b.pt"
    assert file_for("pkg.mod:factory") == Path("pkg_mod_factory.yaml")
    assert sweep_name(Path("a" * 150 + ".yaml")) == "a" * 100
