"""A goal of sparsity along a trunk, as the tool has it, against levels of layers: what is delivered for as many epochs?

    python benchmarks/goal_of_sparsity.py [--data-dir CIFAR10] [--goal 'sparsity >= 0.9'] [--epochs 20] [--samples 8]
        [--seeds 3] [--arch simplenet_cifar] [--work FOLDER]

Both are sweep files with the same goal, network, data and epochs of a trial; the second names the searcher `additive`,
so that each layer has a level of its own, and has four trials more, since a trunk takes the epochs of four. The goal's
network is chosen on the validation split and told on the test split, beside the dense one that both share. Sweeps are
kept in the work folder; what is there already is not trained again.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from pathlib import Path
from typing import Any

import yaml

from raydistill.errors import ConfigError
from raydistill.records import BASELINE
from raydistill.search.pick import pick
from raydistill.sweep.file.load import Overrides, load_sweep
from raydistill.sweep.file.trunk_space import EPOCHS
from raydistill.sweep.from_python import run_sweep

TOP1 = "top1"
WAYS: dict[str, dict[str, Any]] = {"trunk": {}, "levels": {"searcher": {"name": "additive"}}}


def delivered(way: str, seed: int, given: argparse.Namespace) -> tuple[float, float, float] | None:
    """(test top1, sparsity) of the goal's network, and the dense one's top1; None where no trial keeps the bound."""
    given.work.mkdir(parents=True, exist_ok=True)
    title = f"{way}-{given.samples}x{given.epochs}-{seed}"
    file = given.work / f"{title}.yaml"
    data = {"name": "digits"} if given.data_dir is None else {"name": "cifar10", "data_dir": given.data_dir}
    said = {"version": 1, "name": title, "goal": given.goal, "model": {"arch": given.arch}, "dataset": data}
    file.write_text(yaml.safe_dump({**said, "training": {"epochs": given.epochs}, **WAYS[way]}, sort_keys=False))
    outcome = run_sweep(
        file, given.work / "sweeps", resume=(given.work / "sweeps" / title / "journal.jsonl").exists(), seed=seed,
        num_samples=given.samples + (0 if way == "trunk" else EPOCHS), cpu=True,
    )  # fmt: skip
    sweep = load_sweep(file, Overrides(seed=seed))
    dense = next(row.record for row in outcome.rows if row.record.trial_id == BASELINE)
    rule = next(alias.rule for alias in sweep.aliases)
    try:
        found = pick(outcome.rows, rule, sweep.metrics, sweep.objectives, outcome.records).record
    except ConfigError as error:
        print(f"{title}: {error}")
        return None
    assert found.test is not None
    assert found.last is not None
    assert dense.test is not None
    return found.test.metrics[TOP1], found.last.sparsity, dense.test.metrics[TOP1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", help="CIFAR-10; without it scikit-learn's digits")
    parser.add_argument("--goal", default="sparsity >= 0.9")
    parser.add_argument("--arch", default="simplenet_cifar")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--samples", type=int, default=8)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "goal_of_sparsity")
    given = parser.parse_args()
    lost: dict[str, list[float]] = {way: [] for way in WAYS}
    print(f"{given.goal}; {given.arch}; top1 on the test split, %, and sparsity, %")
    print(f"{'seed':<6}{'dense':>8}" + "".join(f"{way:>10}{'at':>8}" for way in WAYS))
    for seed in range(given.seeds):
        line, dense = "", 0.0
        for way, points in lost.items():
            found = delivered(way, seed, given)
            if found is None:
                line += f"{'-':>10}{'-':>8}"
                continue
            top1, sparsity, dense = found
            points.append(100 * (dense - top1))
            line += f"{100 * top1:>10.2f}{100 * sparsity:>8.2f}"
        print(f"{seed:<6}{100 * dense:>8.2f}{line}", flush=True)
    for way, points in lost.items():
        if points:
            print(f"{way}: {statistics.mean(points):.2f} points lost ({min(points):.2f} to {max(points):.2f})")


if __name__ == "__main__":
    main()
