"""A sweep over a language model: its file, and the whole of it through Ray."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from raydistill.errors import ConfigError
from raydistill.sweep.file.load import load_sweep
from raydistill.sweep.planning.plan import check_plan, plan_sweep
from raydistill.sweep.planning.task import sweep_task
from tests.tasks.language_model.texts import folder_of

pytestmark = pytest.mark.slow

RUN = [sys.executable, "-c", "import sys; sys.argv[0] = 'raydistill'; from raydistill.cli.main import run; run()"]
SWEEP: dict[str, Any] = {
    "version": 1,
    "name": "grammar",
    "model": {"arch": "decoder_lm", "args": {"width": 16, "depth": 2, "heads": 2, "dropout": 0.0, "context": 6}},
    "task": {"name": "language_model", "args": {"bptt": 6}},
    "training": {"epochs": 3, "batch_size": 4, "lr": 0.05, "momentum": 0.9, "weight_decay": 0, "precision": "fp32"},
    "schedule": {
        "pruners": {
            "agp": {
                "class": "AutomatedGradualPruner", "initial_sparsity": 0.1, "final_sparsity": 0.5,
                "weights": ["blocks.*.mlp.*.weight"],
            }
        },
        "policies": [{"pruner": {"instance_name": "agp"}, "starting_epoch": 0, "ending_epoch": 2, "frequency": 1}],
    },
    "search": {"per_layer": [{"weights": ["blocks.*.mlp.*.weight"], "final_sparsity": {"uniform": [0.2, 0.95]}}]},
    "constraints": ["perplexity_rise <= 100"],
    "num_samples": 2,
}  # fmt: skip


@pytest.fixture
def file(tmp_path: Path) -> Path:
    said = {**SWEEP, "dataset": {"data_dir": str(folder_of(tmp_path, 1200))}}
    path = tmp_path / "grammar.yaml"
    path.write_text(yaml.safe_dump(said, sort_keys=False))
    return path


def test_objectives_and_scores_are_its_own_and_a_value_is_drawn_for_each_layer(file: Path) -> None:
    sweep = load_sweep(file)
    assert [(o.name, o.direction) for o in sweep.objectives] == [("perplexity", "min"), ("sparsity", "max")]
    assert sweep.sections.trial_scheduler.score == {"perplexity": -1.0, "planned_sparsity": 0.05}
    check_plan(sweep)
    plan = plan_sweep(sweep, sweep_task(sweep))
    layers = [f"blocks.{block}.mlp.{name}.weight" for block in (0, 1) for name in ("up", "down")]
    assert [dimension.path for dimension in plan.space.dimensions] == [
        f"per_layer.{layer}.final_sparsity" for layer in layers
    ]


def test_its_data_may_be_one_file_and_must_be_there(file: Path, tmp_path: Path) -> None:
    text = tmp_path / "grammar" / "grammar.train.txt"
    file.write_text(file.read_text().replace(str(tmp_path / "grammar"), str(text)))
    assert sweep_task(load_sweep(file)).name == "grammar.train.txt (words)"
    text.unlink()
    with pytest.raises(ConfigError, match=r"grammar.yaml: dataset.data_dir: no such file or folder, got '.*train.txt'"):
        load_sweep(file)


@pytest.mark.ray
@pytest.mark.long
def test_it_is_swept(file: Path, tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}
    ended = subprocess.run(
        [*RUN, "sweep", str(file)], cwd=tmp_path, env=environment, text=True, capture_output=True, timeout=500
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "Pareto front: grammar (words), perplexity on its validation and test split" in ended.stdout
    assert "the knee" in ended.stdout
    events = [json.loads(line) for line in (tmp_path / "sweeps/grammar/journal.jsonl").read_text().splitlines()]
    trained = [event["metrics"]["metrics"] for event in events if event["event"] == "epoch"]
    assert all(list(metrics) == ["perplexity", "bits_per_byte", "loss"] for metrics in trained)
    # what is certain (the, a, ends of lines) and three words by chance, of 4, 3 and 4: 48^(1/6) = 1.9 a token
    assert min(metrics["perplexity"] for metrics in trained) < 3.0
