"""The examples: each is valid as it stands, and a shortened one is trained."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from jsonschema import Draft202012Validator

from raydistill.compression import weights
from raydistill.records import EpochMetrics
from raydistill.resolve import FOLDER
from raydistill.schedule import read_yaml
from raydistill.sweep.file.load import Overrides, Sweep, load_sweep
from raydistill.sweep.file.run_file import load_run
from raydistill.sweep.file.schema import run_schema, sweep_schema
from raydistill.sweep.planning.plan import Plan, plan_sweep
from raydistill.sweep.planning.runs import baseline_config
from raydistill.sweep.planning.task import sweep_task
from raydistill.training import fit, load_model
from raydistill.training.footprint import footprint
from tests.cli.conftest import Ended

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
RUNS = ("two_of_four.yaml",)
SWEEPS = sorted(str(file.relative_to(EXAMPLES)) for file in EXAMPLES.rglob("*.yaml") if file.name not in RUNS)
OWN = [name for name in SWEEPS if name.endswith("/sweep.yaml")]
Command = Callable[..., Ended]


@pytest.fixture
def own(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Modules beside a file are found as from its folder."""

    def beside(name: str) -> None:
        folder = (EXAMPLES / name).parent
        monkeypatch.setenv(FOLDER, "")
        monkeypatch.syspath_prepend(str(folder))
        for module in folder.glob("*.py"):
            monkeypatch.delitem(sys.modules, module.stem, raising=False)

    return beside


def loaded(name: str, epochs: int) -> tuple[Sweep, Plan, Any]:
    digits = {} if name in OWN else {"dataset": "digits"}
    sweep = load_sweep(EXAMPLES / name, Overrides(epochs=epochs, cpu=True, **digits))
    task = sweep_task(sweep)
    plan = plan_sweep(sweep, task)
    if not plan.trials:  # a searcher that measures first, and then draws
        drawn = plan.searcher.suggest(0, (), [epochs])
        assert drawn is not None
        plan = replace(plan, trials=(plan.draw(0, drawn),))
    return sweep, plan, task


def shortened(name: str, tmp_path: Path, epochs: int = 2, share: float = 1.0) -> tuple[EpochMetrics, Path]:
    """A baseline of one epoch and its first trial: the trial's last metrics and its checkpoint. share: of the images
    that an epoch takes."""
    sweep, plan, task = loaded(name, epochs)
    dense = tmp_path / "dense"
    run = replace(baseline_config(sweep), epochs=1, schedule=None, out_dir=str(dense), device="cpu", threads=1)
    list(fit(replace(run, effective_train_size=share), task=task))
    placed = plan.trials[0].placed(str(dense / "checkpoint.pt"), str(tmp_path / "trial"), 1, "cpu", "fp32")
    *_, last = fit(replace(placed.run, effective_train_size=share), task=task)
    return last, tmp_path / "trial" / "checkpoint.pt"


def test_none_is_left_out() -> None:
    assert {*SWEEPS, *RUNS} == {
        "cluster.yaml", "distillation.yaml", "half_the_macs.yaml", "resnet56.yaml", "two_of_four.yaml",
        "own_loop/sweep.yaml", "own_model_and_data/sweep.yaml", "own_task/sweep.yaml",
    }  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", [*SWEEPS, *RUNS])
def test_each_says_how_it_is_started_and_is_valid_under_the_schema(name: str) -> None:
    text = (EXAMPLES / name).read_text()
    command = "compress" if name in RUNS else "sweep"
    file = "sweep.yaml" if name in OWN else f"examples/{name}"
    assert f"raydistill {command} {file}" in text.partition("version: 1")[0]
    validator = Draft202012Validator(run_schema() if name in RUNS else sweep_schema())
    assert list(validator.iter_errors(read_yaml(EXAMPLES / name))) == []


@pytest.mark.slow
@pytest.mark.parametrize("name", SWEEPS)
def test_each_sweep_can_be_planned(name: str, own: Callable[[str], None]) -> None:
    own(name)
    _, plan, _ = loaded(name, 4)
    assert plan.trials
    assert all(0 < trial.planned_sparsity < 1 for trial in plan.trials)


@pytest.mark.slow
@pytest.mark.parametrize("name", OWN)
def test_ones_own_is_trained(name: str, own: Callable[[str], None], tmp_path: Path) -> None:
    own(name)
    last, _ = shortened(name, tmp_path, 4)
    assert last.sparsity > 0
    assert all(torch.isfinite(torch.tensor(value)) for value in last.metrics.values())


@pytest.mark.slow
def test_own_data_can_be_learned(own: Callable[[str], None], tmp_path: Path) -> None:
    """Squares and discs are told apart: what is drawn is what the labels say."""
    own("own_model_and_data/sweep.yaml")
    sweep, _, task = loaded("own_model_and_data/sweep.yaml", 6)
    *_, last = fit(replace(baseline_config(sweep), out_dir=None, device="cpu", threads=1), task=task)
    assert last.metrics["top1"] > 0.85


@pytest.mark.slow
def test_distillation_has_its_teacher(tmp_path: Path) -> None:
    sweep, plan, _ = loaded("distillation.yaml", 3)
    assert sweep.sections.distillation is not None
    assert all(trial.run.distillation is not None for trial in plan.trials)
    last, _ = shortened("distillation.yaml", tmp_path, 3)
    assert last.sparsity == pytest.approx(plan.trials[0].planned_sparsity, abs=1e-3)


@pytest.mark.slow  # a resnet20
def test_half_of_the_macs_can_be_met(tmp_path: Path) -> None:
    """At 60 % of the filters, in the middle of what is searched."""
    shortened("half_the_macs.yaml", tmp_path, 2, 0.1)
    sweep, plan, task = loaded("half_the_macs.yaml", 2)
    drawn = plan.draw(99, {dimension.path: 0.6 for dimension in plan.space.dimensions})
    placed = drawn.placed(str(tmp_path / "dense/checkpoint.pt"), str(tmp_path / "even"), 1, "cpu", "fp32")
    list(fit(replace(placed.run, effective_train_size=0.1), task=task))
    dense, pruned = (footprint(tmp_path / folder / "checkpoint.pt", task)["macs"] for folder in ("dense", "even"))
    assert dense == pytest.approx(40.8e6, rel=0.01)
    (bound,) = sweep.constraints
    assert str(bound) == "macs <= 0.5x"
    assert pruned <= 0.5 * dense


@pytest.mark.slow
def test_resnet56_begins_where_the_paper_does(tmp_path: Path) -> None:
    last, checkpoint = shortened("resnet56.yaml", tmp_path, 2, 0.05)
    model = load_model(checkpoint)
    widths = {name: weight.shape[0] for name, weight in weights(model) if name.endswith("conv1.weight")}
    assert widths["layer1.3.conv1.weight"] == 5, "16 filters, 70 % of them gone"
    assert widths["layer3.4.conv1.weight"] == 39
    assert widths["layer2.0.conv1.weight"] == 32, "left alone"
    assert last.sparsity > 0.2


@pytest.mark.slow
def test_two_of_four_weights_stay(
    raydistill: Command,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert load_run(EXAMPLES / "two_of_four.yaml").schedule is not None
    monkeypatch.chdir(tmp_path)
    arguments = ("--dataset", "digits", "--epochs", "1", "--etrs", "0.1", "--no-mlflow", "--cpu")
    short = tmp_path / "two_of_four.yaml"
    short.write_text((EXAMPLES / "two_of_four.yaml").read_text().replace("ending_epoch: 30", "ending_epoch: 1"))
    ended = raydistill("compress", short, *arguments)
    assert (ended.code, ended.err) == (0, "")
    model = load_model(tmp_path / "runs/two_of_four/checkpoint.pt")
    for name, weight in weights(model):
        if name == "conv1.weight":
            assert weight.count_nonzero() == weight.numel()
            continue
        rows = weight.movedim(1, -1).reshape(-1, 4)
        assert (rows.count_nonzero(1) <= 2).all(), name


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize("name", OWN)
def test_the_command_that_it_names_ends_with_a_front(name: str, tmp_path: Path) -> None:
    short = ["--num-samples", "2", "--epochs", "3", "--cpu", "--storage", str(tmp_path / "sweeps")]
    ended = _sweep((EXAMPLES / name).parent, "sweep.yaml", *short)
    assert "Pareto front:" in ended
    assert "trials: 2 finished" in ended


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize("name", [name for name in SWEEPS if name not in OWN])
def test_the_real_ones_end_with_a_front(name: str, tmp_path: Path) -> None:
    short = [
        "--num-samples",
        "2",
        "--epochs",
        "2",
        "--dataset",
        "digits",
        "--cpu",
        "--storage",
        str(tmp_path / "sweeps"),
    ]
    assert "Pareto front:" in _sweep(ROOT, f"examples/{name}", *short)


def _sweep(folder: Path, *arguments: str) -> str:
    program = "import sys; sys.argv[0] = 'raydistill'; from raydistill.cli.main import run; run()"
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "120"}
    environment.pop("RAY_ADDRESS", None)
    ended = subprocess.run(
        [sys.executable, "-c", program, "sweep", *arguments],
        cwd=folder, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stdout[-2000:] + ended.stderr[-2000:]
    return ended.stdout


def test_modules_can_be_imported_by_themselves() -> None:
    """They need nothing but torch, numpy and raydistill."""
    for module in EXAMPLES.rglob("*.py"):
        spec = importlib.util.spec_from_file_location(module.stem, module)
        assert spec is not None
        assert spec.loader is not None
        spec.loader.exec_module(importlib.util.module_from_spec(spec))
