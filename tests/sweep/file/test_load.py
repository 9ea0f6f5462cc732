"""The sweep file: every fault in one line, all of them at once, none passed over."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from raydistill.errors import ConfigError
from raydistill.sweep.file.load import Overrides, load_sweep
from raydistill.sweep.planning.plan import plan_sweep
from raydistill.sweep.planning.runs import baseline_config
from raydistill.tasks import TaskShape
from raydistill.tasks.classification import ImageShape
from raydistill.tasks.detection import Detection
from raydistill.tasks.language_model import LanguageModel
from raydistill.tasks.language_model.vocabulary import Vocabulary
from raydistill.tasks.recommender import Recommender
from raydistill.tasks.recommender.interactions import interactions
from raydistill.tasks.regression import Regression
from tests.tasks.detection.shapes import write
from tests.tasks.recommender import ratings

CIFAR = ImageShape(10, (3, 32, 32))
SHAPES: dict[str, TaskShape] = {
    "classification": CIFAR,
    "language_model": LanguageModel({}, Vocabulary("bytes"), bptt=32),
    "regression": Regression({"train": (torch.zeros(2, 10), torch.zeros(2, 1))}, torch.ones(2, 1), "table"),
    "recommender": Recommender(interactions(ratings.rows()[:, [0, 1, 3]], "ratings")),
}

ROOT = Path(__file__).parents[3]
WriteSweep = Callable[..., Path]


def lines(file: Path, overrides: Overrides | None = None) -> list[str]:
    """The error of loading and planning a sweep file, a line a fault, without the folder's name."""
    with pytest.raises(ConfigError) as caught:
        plan_sweep(load_sweep(file, overrides), CIFAR)
    return str(caught.value).replace(f"{file.parent}/", "").splitlines()


@pytest.mark.parametrize(
    ("path", "value", "expected"),
    [
        ("training/epochs", -1, "space.yaml: training.epochs: must be at least 0, got -1"),
        ("training/epochs", True, "space.yaml: training.epochs: must be a number, got True"),
        ("training/lr", "fast", "space.yaml: training.lr: must be a number, got 'fast'"),
        ("training/lr", -1, "space.yaml: training.lr: must be above 0, got -1"),
        ("training/learning_rate", 1, "space.yaml: training.learning_rate: unknown key; use one of: batch_size, "),
        ("training/epoch", 1, "space.yaml: training.epoch: unknown key; did you mean 'epochs'?"),
        (
            "training/precision",
            "fp8",
            "space.yaml: training.precision: must be one of auto, fp32, bf16, fp16, got 'fp8'",
        ),
        ("training", {"momentum": 0, "nesterov": True}, "space.yaml: training: nesterov needs a momentum above 0"),
        ("model/arch", "simplenet", "space.yaml: model.arch: unknown model, got 'simplenet'; did you mean"),
        ("model", ..., "space.yaml: model: is missing; add 'model:'"),
        ("name", "a/b", "space.yaml: name: must begin with a letter or digit"),
        ("dataset/name", "cifar", "space.yaml: dataset.name: unknown dataset, got 'cifar'; did you mean 'cifar10'?"),
        ("dataset/in_memory", "maybe", "space.yaml: dataset.in_memory: must be true, false or auto, got 'maybe'"),
        ("dataset/data_dir", "gone", "space.yaml: dataset.data_dir: no such file or folder, got "),
        ("baseline/checkpoint", "gone.pt", "space.yaml: baseline.checkpoint: no such file"),
        ("baseline/checkpoint", "s3://b/gone.pt", "gone.pt'; copy it to this machine first, a URI is not read here"),
        ("trial_scheduler/name", "ahsa", "must be one of auto, moasha, asha, hyperband, median, none, got 'ahsa'"),
        (
            "trial_scheduler",
            {"name": "asha", "score": {"acc": 1}},
            "space.yaml: trial_scheduler.score.acc: unknown figure; use one of",
        ),
        (
            "trial_scheduler",
            {"name": "moasha", "grace_period": 9},
            "space.yaml: trial_scheduler.grace_period: must be at most",
        ),
        (
            "trial_scheduler",
            {"name": "none", "grace_period": 2},
            "space.yaml: trial_scheduler: none has no use for grace_period (its options: none)",
        ),
        (
            "searcher",
            {"name": "random", "startup": 3, "step": 0.1},
            "space.yaml: searcher: random has no use for startup, step (its options: none)",
        ),
        ("searcher/name", "tpa", "space.yaml: searcher.name: must be one of auto, random, sobol, grid, tpe"),
        ("searcher", {"name": "tpe", "score": {"acc": 1}}, "space.yaml: searcher.score.acc: unknown figure"),
        ("objectives", {"top1": "up"}, "space.yaml: objectives.top1: unknown direction, got 'up'"),
        ("schedule", "gone.yaml", "space.yaml: schedule: no such schedule file, got 'gone.yaml'"),
        ("schedule/prunners", {}, "space.yaml: schedule.prunners: unknown section; did you mean 'pruners'?"),
        (
            "schedule/pruners/agp/class",
            "AutomatedGradualPrunner",
            "space.yaml: schedule.pruners.agp.class: unknown pruner class, got 'AutomatedGradualPrunner'; did you mean",
        ),
        (
            "schedule/pruners/agp/final_sparsty",
            0.3,
            "space.yaml: schedule.pruners.agp.final_sparsty: unknown argument; did you mean 'final_sparsity'?",
        ),
        (
            "schedule/pruners/agp/weights",
            ["conv9.weight"],
            "space.yaml: schedule.pruners.agp.weights: the model has no such weight, got 'conv9.weight'; did you mean",
        ),
        (
            "schedule/pruners/agp/initial_sparsity",
            0.6,
            "space.yaml: schedule.pruners.agp.final_sparsity: must not be below initial_sparsity 0.6, got 0.5",
        ),
        (
            "schedule/policies",
            [{"pruner": {"instance_name": "agp"}, "starting_epoch": 3, "ending_epoch": 1, "frequency": 1}],
            "space.yaml: schedule.policies[0].ending_epoch: must be above starting_epoch 3 (it is exclusive), got 1",
        ),
        (
            "schedule/policies",
            [{"pruner": {"instance_name": "agp"}, "starting_epoch": 0, "ending_epoch": 9, "frequency": 1}],
            "space.yaml: schedule.policies[0].ending_epoch: must end within training.epochs (4), got 9",
        ),
        (
            "search/training.lr",
            {"uniform": [0.5, 0.1]},
            "space.yaml: search.training.lr.uniform: low must be below high, got [0.5, 0.1]; swap them",
        ),
        ("search/training.lr", {"unifrom": [0, 1]}, "space.yaml: search.training.lr: unknown distribution"),
        (
            "search/training.lrr",
            {"uniform": [0, 1]},
            "space.yaml: search.training.lrr: unknown key; did you mean 'lr'?",
        ),
        ("search/training.lr", {"uniform": [-1, 1]}, "space.yaml: search.training.lr: must be above 0 "),
        (
            "search/training.epochs",
            {"choice": [1, 2]},
            "space.yaml: search.training.epochs: trials must be of one length",
        ),
        ("search/prunners.agp.x", {"choice": [1]}, "space.yaml: search.prunners.agp.x: unknown section; did you mean"),
        (
            "search/pruners.apg.final_sparsity",
            {"choice": [0.5]},
            "space.yaml: search.pruners.apg.final_sparsity: no such",
        ),
        (
            "search/per_layer/weights",
            ["fc9*"],
            "space.yaml: search.per_layer.weights: no weight of the model matches, got 'fc9*'",
        ),
        (
            "search/per_layer/types",
            ["Conv3d"],
            "space.yaml: search.per_layer.types: no layer of the model is of this type, got 'Conv3d'; did you mean",
        ),
        (
            "search/per_layer/weights",
            ["fc3.weight"],
            "space.yaml: search.per_layer.fc3.weight.final_sparsity: no pruner of the schedule holds this weight",
        ),
        (
            "search/per_layer/final_sparsity",
            {"uniform": [0.01, 0.9]},
            "must not be below initial_sparsity 0.05 (with the lowest values of 'search'), got 0.01",
        ),
        (
            "baseline/schedule",
            {"pruners": {"p": {"class": "AutomatedGradualPruner"}}},
            "space.yaml: baseline.schedule.pruners.p: the baseline is dense, only lr_schedulers may act",
        ),
    ],
)
def test_each_fault_is_one_line(write_sweep: WriteSweep, path: str, value: Any, expected: str) -> None:
    found = lines(write_sweep((path, value)))
    assert any(expected in line for line in found), found
    assert all(line.startswith("space.yaml") for line in found)


def test_drawn_values_must_fit_together(write_sweep: WriteSweep) -> None:
    """Each draw of momentum is fine by itself; with nesterov, zero is not."""
    file = write_sweep(("training/nesterov", True), ("search/training.momentum", {"choice": [0.9, 0.0]}))
    (line,) = lines(file)
    assert line.startswith("space.yaml: search.training: nesterov needs a momentum above 0 (with the lowest values")


def test_trials_of_no_epochs_need_a_baseline_and_no_teacher(write_sweep: WriteSweep) -> None:
    changes = [("training/epochs", 0), ("distillation", {})]
    with pytest.raises(ConfigError) as caught:
        load_sweep(write_sweep(*changes, ("baseline", ...)))
    told = str(caught.value)
    assert "baseline: must say how long the dense network is trained, or name its checkpoint: trials have 0" in told
    assert "distillation: is for training, and 0 epochs train nothing; leave it out, or raise training.epochs" in told
    found = load_sweep(write_sweep(("training/epochs", 0)), Overrides(epochs=2))
    assert (found.sections.training.epochs, found.sections.training.trains) == (2, True)
    untrained = load_sweep(write_sweep(("training/epochs", 0)))
    assert not untrained.sections.training.trains
    assert baseline_config(untrained).trains


def test_all_faults_at_once(write_sweep: WriteSweep) -> None:
    file = write_sweep(
        ("training/lrr", 1),
        ("search/training.lr", {"uniform": [2, 1]}),
        ("schedule/prunners", {}),
        ("objectives", {"top9": "max"}),
        ("num_samples", 0),
    )
    found = "\n".join(lines(file))
    for part in ("training.lrr", "search.training.lr", "schedule.prunners", "objectives.top9", "num_samples"):
        assert part in found


def test_all_faults_that_need_the_model_at_once(write_sweep: WriteSweep) -> None:
    file = write_sweep(
        ("schedule/pruners/agp/weights", ["nope.weight"]),
        ("search/per_layer/weights", ["fc9*"]),
        ("baseline/schedule", {"pruners": {"p": {"class": "X"}}}),
    )
    found = "\n".join(lines(file))
    for part in ("nope.weight", "fc9*", "baseline.schedule.pruners.p"):
        assert part in found


def test_paths_are_relative_to_the_file(
    write_sweep: WriteSweep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "pictures").mkdir()
    file = write_sweep(("dataset/data_dir", "pictures"), ("dataset/name", "imagefolder"))
    monkeypatch.chdir("/")
    assert load_sweep(file).dataset.data_dir == str(tmp_path / "pictures")


def test_data_dir_of_the_command_is_relative_to_the_working_folder(
    write_sweep: WriteSweep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here" / "pictures").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "here")
    sweep = load_sweep(write_sweep(), Overrides(data_dir="pictures"))
    assert sweep.dataset.data_dir == str(tmp_path / "here" / "pictures")


def test_options_stand_above_the_file(write_sweep: WriteSweep) -> None:
    options = Overrides(name="other", num_samples=7, seed=3, dataset="cifar10", tracking_uri="http://there:5000")
    sections = load_sweep(write_sweep(), options).sections
    assert (sections.name, sections.num_samples, sections.seed) == ("other", 7, 3)
    assert (sections.dataset.name, sections.tracking.uri) == ("cifar10", "http://there:5000")


@pytest.mark.slow
def test_epochs_scales_schedule_trial_scheduler_and_baseline(write_sweep: WriteSweep) -> None:
    file = write_sweep(("trial_scheduler", {"name": "asha", "grace_period": 2}))
    half = load_sweep(file, Overrides(epochs=2))
    assert half.sections.training.epochs == 2
    assert half.sections.trial_scheduler.grace_period == 1
    assert half.sections.baseline.epochs == 2  # 1.5, rounded
    assert half.schedule.policies[0].ending_epoch == 2
    longer = load_sweep(file, Overrides(epochs=40))
    assert longer.schedule.policies[0].ending_epoch == 30
    assert longer.sections.trial_scheduler.grace_period == 20
    assert longer.sections.baseline.epochs == 3  # the baseline never grows
    plan_sweep(longer, CIFAR)


def test_numbers_that_yaml_reads_as_text(write_sweep: WriteSweep) -> None:
    file = write_sweep()
    file.write_text(file.read_text().replace("lr: 0.02", "lr: 1e-2"))
    assert load_sweep(file).sections.training.lr == 0.01


@pytest.mark.slow
@pytest.mark.parametrize("file", sorted((ROOT / "search_spaces").glob("*.yaml")), ids=lambda file: file.name)
def test_every_search_space_loads(file: Path, tmp_path: Path) -> None:
    sweep = load_sweep(file)
    task = Detection(str(write(tmp_path / "shapes", {"train": 2, "val": 1})))
    plan = plan_sweep(sweep, {**SHAPES, "detection": task}[sweep.task.name])
    assert len(plan.trials) >= 1 or plan.searcher.wants_curves
    assert plan.count >= 1
    assert all(0 <= trial.planned_sparsity < 1 for trial in plan.trials)


def test_aliases_are_read_and_what_they_ask_for_is_measured(write_sweep: Callable[..., Path]) -> None:
    said = {"fast": {"best": "latency_ms"}, "gentle": {"where": "top1_drop <= 0.005"}}
    sweep = load_sweep(write_sweep(("aliases", said)))
    assert [alias.name for alias in sweep.aliases] == ["fast", "gentle"]
    assert sweep.wants_latency
    assert sweep.config()["aliases"]["fast"] == {"best": "latency_ms", "where": None}
    assert load_sweep(write_sweep(("aliases", {"quick": {"where": "latency_ms < 3"}}))).wants_latency
    assert not load_sweep(write_sweep(("aliases", {"gentle": said["gentle"]}))).wants_latency


@pytest.mark.parametrize(
    ("said", "line"),
    [
        ({"a": {"besst": "top1"}}, "space.yaml: aliases.a.besst: unknown key; did you mean 'best'?"),
        ({"a": {"best": "topp1"}}, "space.yaml: aliases.a.best: unknown figure, got 'topp1'; did you mean 'top1'?"),
        ({"a": {"where": 3}}, "space.yaml: aliases.a.where: must be text or a list, got 3"),
        ({"a": "top1"}, "space.yaml: aliases.a: must be a mapping, got 'top1'"),
        (["a"], "space.yaml: aliases: must be a mapping, got ['a']"),
    ],
)
def test_a_wrong_alias_is_one_line(write_sweep: Callable[..., Path], said: object, line: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_sweep(write_sweep(("aliases", said)))
    (fault,) = caught.value.faults
    assert str(fault).endswith(line)
