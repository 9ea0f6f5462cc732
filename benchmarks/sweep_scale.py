"""What the driver of a sweep costs: trials without training on a simulated cluster of 4 nodes with 8 logical GPUs each.

    python benchmarks/sweep_scale.py [--trials 100 1000] [--mlflow]

The real driver path (planning, search, Ray Tune, journal, ledger; with --mlflow also MLflow's SQLite store, the front
and its plots) with trials that report three epochs and train nothing. Compared: few trials with many; the cost of a
trial should stay flat. The cost of starting 32 processes is in the first fifth.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil
import ray
from ray import tune
from ray.cluster_utils import Cluster

from raydistill import datasets
from raydistill.cluster.nodes import Node
from raydistill.cluster.quiet import quieten
from raydistill.records import BASELINE, ENDED, EpochMetrics, TrialRecord
from raydistill.storage import Folder
from raydistill.sweep.baseline import baseline_record
from raydistill.sweep.file.load import Overrides, load_sweep
from raydistill.sweep.planning.plan import plan_sweep
from raydistill.sweep.planning.resources import Share
from raydistill.sweep.planning.runs import baseline_config
from raydistill.sweep.record.journal import Journal, read_journal
from raydistill.sweep.record.ledger import Ledger
from raydistill.sweep.record.observer import Observer
from raydistill.sweep.session import Session
from raydistill.sweep.trials import run_trials
from raydistill.sweep.tune.interrupt import Interrupt
from raydistill.tasks.classification import Classification
from raydistill.tracking import SweepLog

NODES, GPUS, EPOCHS = 4, 8, 3
SPACE = Path(__file__).parents[1] / "search_spaces" / "simplenet.yaml"


def idle(config: Mapping[str, Any], *, shared: list[Any], **other: Any) -> None:
    """Reports what a trial would, at once. It imports nothing of torch, so that 32 of them fit on a small machine."""
    number = int(config["trial_id"][1:])
    for epoch in range(config["known"], EPOCHS):
        metrics = {
            "epoch": epoch, "epochs": EPOCHS, "train_loss": 1.0, "learning_rate": 0.1,
            "metrics": {"top1": 0.5 + (number * 37 % 1000) / 4000, "top5": 1.0, "loss": 1.0},
            "sparsity": 0.1 + (number * 61 % 1000) / 1200,
            "layer_sparsity": {"fc1.weight": 0.5}, "samples_per_second": 1.0, "seconds": 1.0,
            "timestamp_ms": 1_700_000_000_000 + epoch, "checkpoint": None, "footprint": {},
        }  # fmt: skip
        tune.report({"epoch_metrics": json.dumps(metrics)})


class Unlogged:
    """Stands where MLflow's log would."""

    uri = ""

    def __getattr__(self, name: str) -> Any:
        return lambda *arguments, **named: 0


class Clock(Observer):
    """(wall, driver CPU) seconds at each trial's end."""

    def __init__(self) -> None:
        self.ends = [(time.perf_counter(), time.process_time())]

    def trial(self, record: TrialRecord) -> None:
        if record.state in ENDED and record.trial_id != BASELINE:
            self.ends.append((time.perf_counter(), time.process_time()))


def measure(trials: int, mlflow: bool) -> str:
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        dense = folder / "dense.pt"
        dense.touch()
        text = SPACE.read_text().split("baseline:")
        space = folder / "space.yaml"
        space.write_text(text[0] + f"baseline: {{checkpoint: {dense}}}\nschedule:" + text[1].split("\nschedule:", 1)[1])
        sweep = load_sweep(space, Overrides(dataset="digits", num_samples=trials, epochs=EPOCHS))
        task = Classification(datasets.load(sweep.dataset))
        plan = plan_sweep(sweep, task)
        clock = Clock()
        log: Any = Unlogged()
        if mlflow:
            log = SweepLog(None, folder, "scale", "scale", {}, {}, lambda text: print(text))
            log.start()
        with Journal(folder / "journal.jsonl") as journal:
            journal.append("sweep_started", format=1, sweep_id="scale", config={}, dataset={}, versions={})
            ledger = Ledger(journal, read_journal(journal.path), log, clock, sweep.objectives, sweep.metrics)
            last = EpochMetrics(
                0,
                1,
                1.0,
                {"top1": 0.7, "top5": 1.0, "loss": 1.0},
                0.1,
                0.0,
                {},
                1.0,
                1.0,
                1_700_000_000_000,
                checkpoint=None,
            )
            ledger.baseline(baseline_record(baseline_config(sweep), task.name, last, "made up"), [last])
            nodes = [Node(GPUS, GPUS)] * NODES
            store, share = Folder(folder), Share(1.0, 1.0)
            session = Session(sweep, store, folder, task, "", plan, ledger, clock, Interrupt(), nodes, share, [None])
            clock.ends = [(time.perf_counter(), time.process_time())]
            run_trials(session, read_journal(journal.path), idle)
            wall, cpu = (after - before for before, after in zip(clock.ends[0], clock.ends[-1], strict=True))
            begun = time.perf_counter()
            left = 0
            if mlflow:
                log.front(ledger.front(), sweep.objectives, sweep.metrics)
                left = log.finish("finished", 600.0)
            delivery = time.perf_counter() - begun
            if len(clock.ends) != trials + 1 or left:
                raise SystemExit(f"{len(clock.ends) - 1} of {trials} trials ended, {left} records were not delivered")
            size = journal.path.stat().st_size
    fifth = max(1, trials // 5)
    first = 1000 * (clock.ends[fifth][1] - clock.ends[0][1]) / fifth
    final = 1000 * (clock.ends[-1][1] - clock.ends[-1 - fifth][1]) / fifth
    rss = psutil.Process().memory_info().rss / 2**20
    return (
        f"{trials:>6} {wall:>7.1f} {EPOCHS * trials / wall:>9.0f} {cpu:>8.1f} {1000 * cpu / trials:>8.1f} "
        f"{first:>7.1f} {final:>7.1f} {delivery:>9.1f} {size // 1024:>8,} {rss:>6.0f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, nargs="+", default=[100, 1000])
    parser.add_argument("--mlflow", action="store_true")
    options = parser.parse_args()
    quieten()
    print(f"{NODES} nodes of {GPUS} logical GPUs, {EPOCHS} reports a trial, MLflow {'on' if options.mlflow else 'off'}")
    print("                         driver CPU  ms a trial, CPU  delivery  journal driver")
    print("trials  wall s reports/s        s      all  1/5  5/5         s      KiB    MiB")
    cluster = Cluster()
    for _ in range(NODES):
        cluster.add_node(num_cpus=GPUS, num_gpus=GPUS, include_dashboard=False, object_store_memory=100 * 2**20)
    ray.init(address=cluster.address, log_to_driver=False, logging_level="CRITICAL")
    try:
        for trials in options.trials:
            print(measure(trials, options.mlflow), flush=True)
    finally:
        ray.shutdown()
        cluster.shutdown()


if __name__ == "__main__":
    main()
