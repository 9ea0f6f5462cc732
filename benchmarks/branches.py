"""One branch of a trunk, trained in several ways: what moves a sparse network back to dense accuracy.

    raydistill sweep search_spaces/simplenet_trunk.yaml --data-dir CIFAR10 --num-samples 1 --storage STORAGE
    python benchmarks/branches.py STORAGE --data-dir CIFAR10 [--after 525] [--only NAME ...] [--seeds 1]

All begin with the trunk's network after so many epochs and keep its masks; the file says the rest.
Top1 is of the validation split, after the last epoch: it is for choosing a default, so the test split is not looked at.
The dense baseline's stands first.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from raydistill.sweep.file.load import Overrides, load_sweep
from raydistill.sweep.planning.runs import run_config
from raydistill.training import Distillation, fit, read_history
from raydistill.training.branch import branch_name

FILE = Path(__file__).resolve().parent.parent / "search_spaces" / "simplenet_trunk.yaml"
VARIANTS: Mapping[str, Mapping[str, Any]] = {
    "as the file says": {},
    "15 epochs": {"epochs": 15},
    "30 epochs": {"epochs": 30},
    "60 epochs": {"epochs": 60},
    "120 epochs": {"epochs": 120},
    "twice the rate": {"lr": 0.04},
    "no weight decay": {"weight_decay": 0.0},
    "cropped, not flipped": {"augment": "crop"},
    "not augmented": {"augment": "none"},
    "distilled from dense": {"distill": 0.5},
}


def branch(start: Path, dense: Path, data_dir: Path, seed: int, variant: Mapping[str, Any]) -> tuple[float, float]:
    """Top1 on the validation split, and the sparsity."""
    said = dict(variant)
    share, augment, epochs = said.pop("distill", 0.0), said.pop("augment", "auto"), said.pop("epochs", None)
    sweep = load_sweep(FILE, Overrides(epochs=epochs, seed=seed, data_dir=str(data_dir)))
    training = sweep.sections.training.model_copy(update=said)
    run = run_config(sweep, training, sweep.schedule)
    dataset = replace(run.dataset, augment=augment)
    run = replace(run, dataset=dataset, init_from=str(start), threads=1, tensorboard=False)
    if share:
        teacher = Distillation(checkpoint=str(dense), temperature=4.0, distill_wt=share, student_wt=1 - share)
        run = replace(run, distillation=teacher)
    with tempfile.TemporaryDirectory() as folder:
        *_, last = fit(replace(run, out_dir=folder))
    return last.metrics["top1"], last.sparsity


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("storage", type=Path)
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--after", type=int, default=525, help="epochs of the trunk")
    parser.add_argument("--only", nargs="+", choices=list(VARIANTS), default=list(VARIANTS))
    parser.add_argument("--seeds", type=int, default=1)
    given = parser.parse_args()
    (start,) = given.storage.glob(f"trunks/*/{branch_name(given.after)}")
    (dense,) = given.storage.glob("baselines/*/checkpoint.pt")
    print(f"{'dense':24} {100 * read_history(dense)[-1].metrics['top1']:6.2f} %", flush=True)
    for name in given.only:
        for seed in range(given.seeds):
            begun = time.perf_counter()
            top1, sparsity = branch(start, dense, given.data_dir, seed, VARIANTS[name])
            took = time.perf_counter() - begun
            print(f"{name:24} {100 * top1:6.2f} % at {100 * sparsity:.2f} %, seed {seed}, {took:.0f} s", flush=True)


if __name__ == "__main__":
    main()
