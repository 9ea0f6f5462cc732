"""What does pruning after training cost a language model: magnitude, Wanda, SparseGPT, and levels found by a sweep?

    python benchmarks/one_shot.py --data-dir TEXT --keep FOLDER

TEXT is a text file (split 80/10/10) or a folder of them. A small decoder-only transformer of bytes is trained for each
seed; its blocks' matrices are pruned at once, without an epoch of training, and once more with a short recovery in
which the masks stay: of all weights, or of low-rank adapters alone (with --adapters). What is found is kept in FOLDER:
a later call goes on where one ended. Each kind of recovery has one learning rate for all methods, so that validation
selects nothing but a sweep's point; the table is of the test part.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from raydistill import tasks
from raydistill.datasets import DatasetConfig
from raydistill.files import write_atomically
from raydistill.parts import Optimizer
from raydistill.schedule import parse_schedule
from raydistill.schedule.yaml_file import dump_yaml
from raydistill.tasks import TaskConfig, Weights
from raydistill.training import RunConfig, evaluate_checkpoint, fit, read_history

ARCH = "decoder_lm"
BLOCKS = "blocks.*.weight"
METHODS = ("magnitude", "Wanda", "Wanda-layer", "SparseGPT")
"""The second compares weights of one row, as the paper has it, the third those of a layer, as magnitude does."""
LEVELS: dict[str, float | tuple[int, int]] = {"50 %": 0.5, "70 %": 0.7, "2:4": (2, 4)}
PERPLEXITY = "perplexity"
RECOVERIES = {"": "no", "recovered": "short", "adapters": "lora"}
"""By the end of a cell's name what the table calls it."""


@dataclass(frozen=True)
class Cell:
    """One network. level: a key of LEVELS; recovery: a key of RECOVERIES, how it is trained a little with its masks."""

    seed: int
    method: str = "dense"
    level: str = ""
    recovery: str = ""

    @property
    def name(self) -> str:
        level = self.level.replace(" ", "").replace(":", "of").replace("%", "")
        return "-".join(part for part in (f"s{self.seed}", self.method, level, self.recovery) if part)


def cosine(epochs: int) -> dict[str, Any]:
    when = {"starting_epoch": 0, "ending_epoch": epochs, "frequency": 1}
    return {
        "lr_schedulers": {"decay": {"class": "CosineAnnealingLR", "T_max": epochs}},
        "policies": [{"lr_scheduler": {"instance_name": "decay"}, **when}],
    }


def pruner(method: str, level: float | tuple[int, int]) -> dict[str, Any]:
    classes = {"magnitude": "SparsityLevelParameterPruner", "SparseGPT": "SparseGPTPruner"}
    classes |= dict.fromkeys(("Wanda", "Wanda-layer"), "WandaPruner")
    if not isinstance(level, tuple):
        compared = {"compare": "layer"} if method == "Wanda-layer" else {}
        return {"class": classes[method], "levels": {BLOCKS: level}, **compared}
    kind = "NMPruner" if method == "magnitude" else classes[method]
    return {"class": kind, "weights": [BLOCKS], "n": level[0], "m": level[1]}


class Bench:
    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.keep = Path(options.keep)
        self.data = DatasetConfig(data_dir=str(Path(options.data_dir).resolve()))
        self.said = TaskConfig("language_model", {"tokens": "bytes", "bptt": options.context, "eval_batch_size": 64})
        self.task = tasks.load(self.said, self.data, Weights(ARCH))

    def file(self, cell: Cell) -> Path:
        return self.keep / "cells" / f"{cell.name}.json"

    def run(self, cell: Cell) -> dict[str, float]:
        """What a cell comes to, from its file where it has one."""
        kept = self.file(cell)
        if kept.exists():
            return json.loads(kept.read_text())
        begun = time.perf_counter()
        folder = self.keep / "runs" / cell.name
        *_, last = fit(self.config(cell, folder), task=self.task)
        test = evaluate_checkpoint(last.checkpoint, self.task, "test", "cpu").metrics[PERPLEXITY]
        found = {"validation": last.metrics[PERPLEXITY], "test": test, "seconds": time.perf_counter() - begun}
        write_atomically(kept, json.dumps(found))
        print(f"{cell.name}: {found}", flush=True)
        return found

    def config(self, cell: Cell, folder: Path) -> RunConfig:
        options = self.options
        shared = {
            "dataset": self.data, "task": self.said, "seed": cell.seed, "batch_size": options.batch, "device": "cpu",
            "precision": "fp32", "threads": 1, "out_dir": str(folder), "tensorboard": False,
            "model_args": {
                "width": options.width, "depth": options.depth, "heads": 4, "dropout": 0.0, "context": options.context
            },
        }  # fmt: skip
        if cell.method == "dense":
            schedule = {"version": 1, **cosine(options.epochs)}
            optimizer = Optimizer(name="AdamW", lr=options.lr, clip_norm=1.0, warmup_epochs=0.1)
            shared |= {"epochs": options.epochs, "optimizer": optimizer}
        else:
            schedule = {"version": 1, "pruners": {"p": pruner(cell.method, LEVELS[cell.level])}, "policies": []}
            schedule["policies"] = [{"pruner": {"instance_name": "p"}, "epochs": [0]}]
            if cell.recovery == "adapters":
                adapters = {"class": "LowRankRecovery", "rank": options.rank, "lr": options.adapter_lr}
                schedule["extensions"] = {"adapters": adapters}
                schedule["policies"].append({"extension": {"instance_name": "adapters"}, "epochs": [0]})
            optimizer = Optimizer(name="AdamW", lr=options.lr / 4, clip_norm=1.0)
            shared |= {"epochs": 1 if cell.recovery else 0, "effective_train_size": options.recovery}
            shared |= {"optimizer": optimizer, "init_from": str(folder.parent / f"s{cell.seed}-dense/checkpoint.pt")}
        return RunConfig(ARCH, schedule=parse_schedule(schedule, "schedule"), **shared)

    def swept(self, seed: int) -> dict[str, float]:
        """The best point of a post-training sweep that is at least as sparse as SparseGPT at 70 %: attention and MLP of
        each block have a level of their own. Validation selects it, test is reported."""
        kept = self.keep / "cells" / f"s{seed}-swept-70.json"
        if kept.exists():
            return json.loads(kept.read_text())
        from raydistill.sweep.from_python import run_sweep

        uniform = read_history(self.keep / f"runs/s{seed}-SparseGPT-70/checkpoint.pt")[-1].sparsity
        file = self.keep / f"sweep-s{seed}.yaml"
        file.write_text(dump_yaml(self.space(seed, math.floor(uniform * 1e4) / 1e4)))
        outcome = run_sweep(file, self.keep / "sweeps", cpu=True, resume=(self.keep / "sweeps" / f"s{seed}").exists())
        finished = [r for r in outcome.records.values() if r.trial_id != "baseline" and r.last is not None]
        enough = [r for r in finished if r.last.sparsity >= uniform - 1e-4]
        best = min(enough, key=lambda record: record.last.metrics[PERPLEXITY])
        test = evaluate_checkpoint(best.checkpoint, self.task, "test", "cpu").metrics[PERPLEXITY]
        found = {"validation": best.last.metrics[PERPLEXITY], "test": test, "sparsity": best.last.sparsity}
        write_atomically(kept, json.dumps({**found, "trials": len(finished), "values": dict(best.values)}))
        return json.loads(kept.read_text())

    def space(self, seed: int, least: float) -> dict[str, Any]:
        options, parts = self.options, {}
        for block in range(options.depth):
            for part in ("attention", "mlp"):
                weights = [f"blocks.{block}.{part}.*.weight"]
                parts[f"b{block}_{part}"] = {"class": "SparseGPTPruner", "weights": weights, "final_sparsity": 0.7}
        config = self.config(Cell(seed, "SparseGPT", "70 %"), self.keep / "runs" / "none")
        paths = [f"pruners.{name}.final_sparsity" for name in parts]
        return {
            "version": 1,
            "name": f"s{seed}",
            "model": {"arch": ARCH, "args": dict(config.model_args)},
            "task": {"name": "language_model", "args": dict(self.said.args)},
            "dataset": {"data_dir": self.data.data_dir},
            "training": {"epochs": 0, "batch_size": options.batch, "precision": "fp32"},
            "baseline": {"checkpoint": str((self.keep / f"runs/s{seed}-dense/checkpoint.pt").resolve())},
            "schedule": {
                "version": 1,
                "pruners": parts,
                "policies": [{"pruner": {"instance_name": name}, "epochs": [0]} for name in parts],
            },
            "search": {path: {"uniform": [0.4, 0.9]} for path in paths},
            "objectives": {PERPLEXITY: "min", "sparsity": "max"},
            "constraints": [f"sparsity >= {least}"],
            "searcher": {"name": options.searcher},
            "trial_scheduler": {"name": "none"},
            "warm_start": [dict.fromkeys(paths, 0.7)],
            "num_samples": options.trials,
            "seed": seed,
        }


def there(method: str, level: str) -> bool:
    """Of N:M patterns every method compares the same M weights."""
    return not (method == "Wanda-layer" and isinstance(LEVELS[level], tuple))


def cells(seeds: list[int], recoveries: list[str]) -> Iterator[Cell]:
    for seed in seeds:
        yield Cell(seed)
        for recovery in recoveries:
            for level in LEVELS:
                yield from (Cell(seed, method, level, recovery) for method in METHODS if there(method, level))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", required=True)
    parser.add_argument("--keep", required=True, help="where finished cells are kept")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--only", help="of the cells, those whose name holds this")
    for name, value in (("width", 96), ("depth", 4), ("context", 64), ("batch", 16), ("epochs", 3), ("trials", 24)):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--finished", action="store_true", help="print what is kept, run nothing")
    parser.add_argument("--sweep", action="store_true", help="also levels found by a sweep, for the seeds")
    parser.add_argument("--searcher", default="gp")
    parser.add_argument("--lr", type=float, default=0.004)
    parser.add_argument("--recovery", type=float, default=0.1, help="of an epoch")
    parser.add_argument("--adapters", action="store_true", help="also a recovery of low-rank adapters alone")
    parser.add_argument("--rank", type=int, default=8, help="of the adapters")
    parser.add_argument("--adapter-lr", type=float, default=1e-3)
    options = parser.parse_args()
    bench = Bench(options)
    recoveries = [name for name in RECOVERIES if name != "adapters" or options.adapters]
    every = cells(options.seeds, recoveries)
    wanted = [cell for cell in every if options.only is None or cell.method == "dense" or options.only in cell.name]
    if not options.finished:
        for cell in wanted:
            bench.run(cell)
    table({cell: bench.run(cell) for cell in wanted if bench.file(cell).exists()})
    if options.sweep:
        levels(bench, options.seeds)


def levels(bench: Bench, seeds: list[int]) -> None:
    print("SparseGPT at 70 %: one level for all against levels found by a sweep without training (test part)")
    print(f"{'seed':<6}{'uniform':>9}{'swept':>9}{'ratio':>8}{'sparsity %':>12}{'trials':>8}")
    for seed in seeds:
        uniform, swept = bench.run(Cell(seed, "SparseGPT", "70 %"))["test"], bench.swept(seed)
        shown = f"{swept['test']:>9.3f}{swept['test'] / uniform:>8.3f}{100 * swept['sparsity']:>12.2f}"
        print(f"{seed:<6}{uniform:>9.3f}{shown}{swept['trials']:>8.0f}", flush=True)


def table(found: dict[Cell, dict[str, float]]) -> None:
    """Means over the seeds that have all methods of a line."""
    every = sorted({cell.seed for cell in found})
    dense = [found[Cell(seed)]["test"] for seed in every if Cell(seed) in found]
    if not dense:
        return
    print(f"perplexity of bytes on the test part; dense {told(dense)}")
    heads = "".join(f"{method:>14}" for method in METHODS)
    print(f"{'at':<5}{'tuned':<6}{heads}{'S./m.':>7}{'seeds':>6}")
    for recovery, name in RECOVERIES.items():
        for level in LEVELS:
            methods = [method for method in METHODS if there(method, level)]
            seeds = [s for s in every if all(Cell(s, method, level, recovery) in found for method in methods)]
            if seeds:
                each = {m: [found[Cell(seed, m, level, recovery)]["test"] for seed in seeds] for m in methods}
                ratio = statistics.mean(each["SparseGPT"]) / statistics.mean(each["magnitude"])
                shown = "".join(f"{told(each[m]) if m in each else '':>14}" for m in METHODS)
                print(f"{level:<5}{name:<6}{shown}{ratio:>7.3f}{len(seeds):>6}")


def told(values: list[float]) -> str:
    return f"{statistics.mean(values):.3f} ± {statistics.stdev(values) if len(values) > 1 else 0.0:.3f}"


if __name__ == "__main__":
    main()
