"""A user's own modules and files are found in the folder where the command is given, trials too, and hide nothing."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.sweep.conftest import ONE_AT_A_TIME

SPACE = """
version: 1
name: own
model: {arch: "ownnet:net"}
dataset: {name: digits}
training: {epochs: 1, batch_size: 512, lr: 0.05}
baseline: {epochs: 1}
schedule:
  pruners:
    level: {class: AutomatedGradualPruner, initial_sparsity: 0.05, final_sparsity: 0.5, weights: ["2.weight"]}
  policies:
    - {pruner: {instance_name: level}, starting_epoch: 0, ending_epoch: 1, frequency: 1}
search:
  per_layer: [{weights: ["2.weight"], final_sparsity: {uniform: [0.3, 0.9]}}]
objectives: {top1: max, sparsity: max}
num_samples: 1
resources_per_trial: {cpu: %s}
"""
NET = """
import json
from torch import nn
def net(num_classes):
    a, b = json.load(open("config/widths.json"))
    return nn.Sequential(nn.Conv2d(3, a, 3, 4), nn.ReLU(), nn.Conv2d(a, b, 3, 4), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
                         nn.Linear(b, num_classes))
"""


@pytest.mark.parametrize(
    ("options", "says"),
    [
        pytest.param(["--dry-run"], "dry run: everything checked", marks=pytest.mark.slow),
        # trials find their folder in tests/sweep/test_run.py too, beside nothing that could hide a library
        pytest.param([], "trials: 1 finished", marks=[pytest.mark.ray, pytest.mark.long]),
    ],
)
def test_a_sweep_over_a_factory_that_reads_a_file_beside_modules_with_names_of_libraries(
    options: list[str], says: str, tmp_path: Path
) -> None:
    for name in ("queue", "yaml", "statistics", "optuna", "rich", "torch", "pandas"):
        (tmp_path / f"{name}.py").write_text(f"raise SystemExit('{name} of the working folder')\n")
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "widths.json").write_text("[4, 6]")
    (tmp_path / "ownnet.py").write_text(NET)
    (tmp_path / "space.yaml").write_text(SPACE % ONE_AT_A_TIME["cpu"])
    start = "import sys; sys.path[:] = [p for p in sys.path if p]; from raydistill.cli.main import run; run()"
    words = ["sweep", "space.yaml", "--cpu", *options]
    ended = subprocess.run(
        [sys.executable, "-c", start, *words],
        cwd=tmp_path,
        env={key: value for key, value in os.environ.items() if key != "RAYDISTILL_FOLDER"},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert says in ended.stdout
