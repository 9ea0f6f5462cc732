"""Seconds that the Pareto code takes for many records, by how they lie; compared: 1,000 records with 100,000.

python benchmarks/pareto_scale.py [--records 1000 10000 100000]
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import numpy as np

from raydistill.records import FINISHED, EpochMetrics, TrialRecord
from raydistill.search import front_rows, knee, pareto_rank, parse_objectives
from raydistill.tasks.classification.metrics import METRICS

OBJECTIVES = parse_objectives({"top1": "max", "sparsity": "max"}, "objectives", METRICS)
CLOUDS: dict[str, Callable[[np.random.Generator, int], np.ndarray]] = {
    "at random": lambda rng, n: rng.random((n, 2)),
    "all on one front": lambda rng, n: np.stack([np.linspace(0, 1, n), np.linspace(1, 0, n)], axis=1),
    "all in one chain": lambda rng, n: np.stack([np.linspace(0, 1, n)] * 2, axis=1),
    "all the same": lambda rng, n: np.full((n, 2), 0.5),
}


def record(number: int, top1: float, sparsity: float) -> TrialRecord:
    last = EpochMetrics(
        4, 5, 1.0, {"top1": top1, "top5": 1.0, "loss": 1.0}, 0.1, sparsity, {}, 1.0, 1.0, 1_700_000_000_000
    )
    return TrialRecord(f"t{number:06d}", {}, FINISHED, "simplenet_cifar", "digits", 0, epochs=5, last=last)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, nargs="+", default=[1000, 10_000, 100_000])
    options = parser.parse_args()
    print(f"{'points':<18} {'records':>8} {'rank s':>8} {'knee s':>8} {'front_rows s':>13}")
    for name, cloud in CLOUDS.items():
        for count in options.records:
            points = cloud(np.random.default_rng(0), count)
            records = [record(i, float(x), float(y)) for i, (x, y) in enumerate(points)]
            seconds = []
            for work in (
                lambda points=points: pareto_rank(points, ["max", "max"]),
                lambda points=points: knee(points, ["max", "max"]),
                lambda records=records: front_rows(records, OBJECTIVES),
            ):
                begun = time.perf_counter()
                work()
                seconds.append(time.perf_counter() - begun)
            print(f"{name:<18} {count:>8,} {seconds[0]:>8.3f} {seconds[1]:>8.3f} {seconds[2]:>13.3f}", flush=True)


if __name__ == "__main__":
    main()
