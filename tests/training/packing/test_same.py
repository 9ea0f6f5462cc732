"""The networks of the project's own sweeps in float32, and memory that really runs out."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from raydistill.datasets import DatasetConfig, load
from raydistill.schedule import parse_schedule
from raydistill.tasks.classification import Classification
from raydistill.training import RunConfig, fit
from raydistill.training.packing import fit_packed

pytestmark = pytest.mark.slow
WEIGHTS = {
    "simplenet_cifar": ["conv2.weight", "fc1.weight", "fc2.weight"],
    "resnet20_cifar": ["layer1.0.conv1.weight", "layer2.1.conv2.weight", "layer3.0.conv1.weight"],
}


@pytest.mark.parametrize("arch", WEIGHTS)
def test_float32_weights_after_two_epochs_of_agp(arch: str, tmp_path: Path) -> None:
    """resnet20 makes 1e-2 of a last digit in a few steps of a usual rate, so that its rates are small here; that packed
    steps are the same steps is shown in float64 (`test_pack`)."""
    task = Classification(load(DatasetConfig("digits")))
    agp = {
        "class": "AutomatedGradualPruner",
        "initial_sparsity": 0.2,
        "final_sparsity": 0.8,
        "weights": WEIGHTS[arch],
    }
    policy = {"pruner": {"instance_name": "agp"}, "starting_epoch": 0, "ending_epoch": 2, "frequency": 1}
    base = RunConfig(
        arch, DatasetConfig("digits"), epochs=2, batch_size=64, threads=1, tensorboard=False, deterministic=True,
        effective_train_size=0.15, effective_valid_size=0.3,
        schedule=parse_schedule({"pruners": {"agp": agp}, "policies": [policy]}, "s.yaml"),
    )  # fmt: skip
    rates = (1e-5, 3e-5) if arch == "resnet20_cifar" else (0.01, 0.05)
    packed = [replace(base, lr=lr, out_dir=str(tmp_path / f"packed{k}")) for k, lr in enumerate(rates)]
    assert not any(isinstance(outcome, BaseException) for _, outcome in fit_packed(packed, task))
    for k, config in enumerate(packed):
        list(fit(replace(config, out_dir=str(tmp_path / f"alone{k}")), task=task))
        ours, theirs = (
            torch.load(tmp_path / f"{name}{k}" / "checkpoint.pt", weights_only=True) for name in ("packed", "alone")
        )
        parameters = [name for name in ours["model"] if "running" not in name]
        apart = max(float((ours["model"][name] - theirs["model"][name]).abs().max()) for name in parameters)
        assert apart <= 1e-5
        masks = ours["scheduler"]["masks"]
        assert all(torch.equal(mask, theirs["scheduler"]["masks"][name]) for name, mask in masks.items())


SCRIPT = """
import resource, sys, torch
from dataclasses import replace
from raydistill.datasets import DatasetConfig, load
from raydistill.tasks.classification import Classification
from raydistill.training import RunConfig
from raydistill.training.packing import Pack
torch.set_num_threads(1)
task = Classification(load(DatasetConfig("digits")))
base = RunConfig("tests.training.packing.nets:wide", DatasetConfig("digits"), epochs=2, batch_size=64, threads=1,
    tensorboard=False, deterministic=True, effective_train_size=0.1, effective_valid_size=0.3)
pack = Pack(task, lambda line: print("said", line))
for k in range(6):
    pack.add(k, replace(base, lr=0.01 * (k + 1), out_dir=f"{sys.argv[1]}/packed{k}"))
list(task.feed("train", __import__("raydistill.tasks").tasks.Loading(torch.device("cpu"), 64)).epoch(0))
used = int(open("/proc/self/statm").read().split()[0]) * 4096
if sys.argv[2] != "0":
    resource.setrlimit(resource.RLIMIT_AS, (used + int(sys.argv[2]), used + int(sys.argv[2])))
for _ in range(2):
    for key, outcome in pack.epoch():
        print(key, getattr(outcome, "train_loss", outcome))
"""


def test_memory_that_runs_out_halves_the_pack_and_no_trial_is_lost(tmp_path: Path) -> None:
    """Each trial's first layer leaves 64 MB for its backward pass, and the process may take 400 MB more than it has."""
    found = {}
    for limit in (0, 400 << 20):
        command = [sys.executable, "-c", SCRIPT, str(tmp_path / str(limit)), str(limit)]
        result = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[3], check=False)
        assert result.returncode == 0, result.stderr
        lines = result.stdout.splitlines()
        said = [line for line in lines if line.startswith("said")]
        assert bool(said) == bool(limit)
        assert all("out of memory with" in line for line in said), said
        found[limit] = {line.partition(" ")[0]: line for line in lines if not line.startswith("said")}
        assert set(found[limit]) == {str(k) for k in range(6)}, result.stdout
    first, second = found.values()
    for k, line in first.items():
        assert float(second[k].split()[1]) == pytest.approx(float(line.split()[1]), rel=1e-9)
