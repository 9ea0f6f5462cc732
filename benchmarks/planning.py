"""How long a sweep is planned, by the number of layers that it searches, before and after a commit.

Plans 16 trials of the CIFAR ResNets of 20, 56 and 110 layers, with one searched value for each convolution: nothing is
trained and no data are read. Each plan is made in a process of its own, the two states of the code in turn.

    python benchmarks/planning.py --against COMMIT [--rounds 5]

Prints the shortest time of each, their ratio, and the time for each searched value: level where planning is linear.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ARCHITECTURES = ("resnet20_cifar", "resnet56_cifar", "resnet110_cifar")
PLAN = """
import inspect, sys, tempfile, time
from pathlib import Path
import yaml
from raydistill.sweep.file.load import load_sweep
from raydistill.sweep.planning.plan import plan_sweep
weights = ["*conv*.weight"]
agp = {"class": "AutomatedGradualPruner", "initial_sparsity": 0.05, "final_sparsity": 0.5, "weights": weights}
policy = {"pruner": {"instance_name": "agp"}, "starting_epoch": 0, "ending_epoch": 15, "frequency": 1}
document = {
    "version": 1, "name": "plan", "model": {"arch": sys.argv[1]}, "dataset": {"name": "digits"},
    "training": {"epochs": 20}, "schedule": {"version": 1, "pruners": {"agp": agp}, "policies": [policy]},
    "search": {"per_layer": [{"weights": weights, "final_sparsity": {"uniform": [0.2, 0.9]}}]}, "num_samples": 16,
}
with tempfile.TemporaryDirectory() as folder:
    file = Path(folder) / "plan.yaml"
    file.write_text(yaml.safe_dump(document, sort_keys=False))
    sweep = load_sweep(file)
data = (10, (3, 32, 32))  # before there were tasks
if "task" in inspect.signature(plan_sweep).parameters:
    from raydistill.tasks.classification import ImageShape
    data = (ImageShape(*data),)
plan_sweep(sweep, *data, at_most=1)
begun = time.perf_counter()
plan = plan_sweep(sweep, *data)
print(len(plan.space), time.perf_counter() - begun)
"""


def planned(code: Path, arch: str) -> tuple[int, float]:
    """(searched values, seconds)."""
    environment = {**os.environ, "PYTHONPATH": str(code), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, "-c", PLAN, arch]
    done = subprocess.run(command, env=environment, cwd=code, capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr[-2000:])
    values, seconds = done.stdout.split()
    return int(values), float(seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--against", default="HEAD~1", metavar="COMMIT")
    parser.add_argument("--rounds", type=int, default=5)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        before = Path(temporary)
        archive = subprocess.run(["git", "archive", asked.against], cwd=ROOT, capture_output=True, check=True)
        subprocess.run(["tar", "x", "-C", str(before)], input=archive.stdout, check=True)
        print(
            f"{'':<16} {'values':>6} {asked.against[:10] + ' ms':>14} {'now ms':>8} {'ratio':>6} {'now us a value':>15}"
        )
        for arch in ARCHITECTURES:
            times: dict[Path, list[float]] = {before: [], ROOT: []}
            values = 0
            for _ in range(asked.rounds):
                for code, found in times.items():
                    values, seconds = planned(code, arch)
                    found.append(seconds)
            old, new = (min(found) for found in times.values())
            each = 1e6 * new / values / 16
            print(
                f"{arch:<16}{values:>15}{1e3 * old:>15.0f}{1e3 * new:>15.0f}{old / new:>15.1f}{each:>15.0f}", flush=True
            )


if __name__ == "__main__":
    main()
