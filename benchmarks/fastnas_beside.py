"""FastNAS of NVIDIA's ModelOpt beside a goal of MACs: which network with so many of them is better after fine-tuning?

    raydistill compress decay.yaml --arch resnet20_cifar --data-dir CIFAR10 --epochs 8 --lr 0.1 -b 128 -o dense
    python benchmarks/fastnas_beside.py dense/.../checkpoint.pt --data-dir CIFAR10 [--macs 0.5 0.35] [--seeds 3]
        [--trials 8] [--epochs 2] [--part 0.25] [--work FOLDER]

All begin with the same dense network and are fine-tuned alike: so many epochs on a part of the training split, SGD, a
rate that falls to zero along a cosine, and for each seed another order of the images and another augmentation.

dense: nothing is pruned. uniform: of every layer the same share of filters goes, by bisection to the bound; ranked: of
all layers those with the smallest norms, one threshold. Both are pruned in the first half of the fine-tuning, as trials
are. FastNAS: a channel divisor of 4, the score is top1 of --samples images of the validation split, its batch norms are
recalibrated by 10 minibatches of 128 training images; its network is fine-tuned afterwards. levels: FastNAS's numbers
of channels, pruned as a trial. raydistill: what the goal's sweep of --trials trials chooses, on the validation split,
trials being the fine-tuning.

Printed: MACs of what is left, of the dense network's; top1 of that very network on the test split, mean and range over
seeds; seconds for one seed, FastNAS's search apart, which the second bound finds done. Results are kept in the work
folder, and are not computed again.
ModelOpt is not a dependency: install it beside, `pip install --no-deps --target FOLDER nvidia-modelopt omegaconf
antlr4-python3-runtime==4.9.3 'pulp<4' nvidia-ml-py ninja regex 'torchprofile<0.1'`, and name FOLDER in PYTHONPATH.
"""

from __future__ import annotations

import argparse
import copy
import itertools
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import torch
import yaml
from amc import Judge, uniform
from quantization_accuracy import on_test
from torch import nn

from raydistill.compression.deployment import deploy
from raydistill.compression.summaries import total_macs
from raydistill.schedule import ScheduleSpec, parse_schedule
from raydistill.search.decisions import planned_name
from raydistill.search.pick import pick
from raydistill.sweep.file.load import Overrides, load_sweep
from raydistill.sweep.from_python import run_sweep
from raydistill.sweep.planning.foresight import foreseen
from raydistill.tasks import Loading
from raydistill.tasks.feeds import training_batches
from raydistill.training import RunConfig, fit, load_model

DIVISOR, CALIBRATION = 4, 10
BISECTIONS = 10


class Beside:
    """One bound. Every way takes a seed and returns a checkpoint of what is delivered."""

    def __init__(self, given: argparse.Namespace, density: float) -> None:
        self.given, self.density = given, density
        self.name = f"macs_{density:g}_{given.trials}x{given.epochs}x{given.part:g}"
        self.file = given.work / f"{self.name}.yaml"
        training = {"epochs": given.epochs, "lr": given.lr, "batch_size": 128, "effective_train_size": given.part}
        said = {
            "version": 1,
            "name": self.name,
            "goal": f"macs <= {density}x",
            "model": {"arch": "resnet20_cifar"},
            "dataset": {"name": "cifar10", "data_dir": str(given.data_dir.resolve())},
            "baseline": {"checkpoint": str(given.checkpoint.resolve())},
            "training": training,
            "num_samples": given.trials,
        }
        self.file.write_text(yaml.safe_dump(said, sort_keys=False))
        self.judge = Judge(load_sweep(self.file), given.checkpoint, density, given.samples)

    def fine_tuned(self, title: str, seed: int, schedule: ScheduleSpec, start: Path | None = None) -> Path:
        """The checkpoint after so many epochs; start: in place of the dense one."""
        run: RunConfig = self.judge.plan.draw(0, self._levels(0.0)).run
        folder = self.given.work / f"{self.name}_{title}_{seed}"
        run = replace(
            run, init_from=str(start or self.given.checkpoint), schedule=schedule, seed=seed, out_dir=str(folder),
            tensorboard=False, device="cpu", threads=1,
        )  # fmt: skip
        *_, last = fit(run, task=self.judge.task)
        assert last.checkpoint is not None
        return Path(last.checkpoint)

    def tuning(self, pruner: Mapping[str, object] | None = None) -> ScheduleSpec:
        """A rate that falls to zero; the pruner acts in the first half, as in a trial."""
        epochs = self.given.epochs
        span = {"starting_epoch": 0, "ending_epoch": epochs, "frequency": 1}
        falls = {"class": "CosineAnnealingLR", "T_max": epochs}
        policies: list[dict[str, object]] = [{"lr_scheduler": {"instance_name": "decay"}, **span}]
        said: dict[str, object] = {"version": 1, "lr_schedulers": {"decay": falls}, "policies": policies}
        if pruner is not None:
            said["pruners"] = {"structures": dict(pruner)}
            acts = {"pruner": {"instance_name": "structures"}, **span, "ending_epoch": max(1, epochs // 2)}
            policies.insert(0, acts)
        return parse_schedule(said, "fine-tuning")

    def _levels(self, level: float) -> dict[str, float]:
        return {dimension.path: level for dimension in self.judge.plan.space.dimensions}

    def dense(self, seed: int) -> Path:
        return self.fine_tuned("dense", seed, self.tuning())

    def uniform(self, seed: int) -> Path:
        ((values, _, _),) = uniform(self.judge)
        return self.fine_tuned("uniform", seed, self.judge.plan.draw(0, values).run.schedule)

    def ranked(self, seed: int) -> Path:
        low, high = 0.0, 0.95
        for _ in range(BISECTIONS):
            middle = (low + high) / 2
            macs = foreseen(self.by_rank(middle), self.judge.model, self.judge.example)[planned_name("macs")]
            low, high = (low, middle) if macs <= self.judge.bound else (middle, high)
        return self.fine_tuned("ranked", seed, self.by_rank(high))

    def by_rank(self, level: float) -> ScheduleSpec:
        weights = [str(dimension.weight) for dimension in self.judge.plan.space.dimensions]
        said = {"class": "CoupledPruner", "scope": "global", "ranking": "magnitude", "weights": weights}
        return self.tuning({**said, "initial_sparsity": 0.0, "final_sparsity": level})

    def found_by_fastnas(self) -> Path:
        """Its network, before it is fine-tuned, in a file whose shapes say what it has left."""
        kept: Path = self.given.work / f"fastnas_{self.density:g}_{self.given.samples}.pth.tar"
        if kept.exists():
            return kept
        import modelopt.torch.prune as mtp  # type: ignore[import-not-found]

        begun = time.perf_counter()
        judge, loading = self.judge, Loading(torch.device("cpu"), 128, 0)
        batches = [batch[0] for batch in itertools.islice(training_batches(judge.task, loading)(), CALIBRATION)]

        def score(model: nn.Module) -> float:
            return float(judge.task.evaluate(model.eval(), judge.feed, judge.loading)["top1"])

        rules = {f"nn.{kind}": {"*": {f"{what}_divisor": DIVISOR}} for kind, what in
                 (("Conv2d", "channel"), ("BatchNorm2d", "feature"), ("Linear", "feature"))}  # fmt: skip
        network, _ = mtp.prune(
            copy.deepcopy(judge.model), mode=[("fastnas", rules)], constraints={"flops": f"{100 * self.density:g}%"},
            dummy_input=judge.example[0],
            config={"data_loader": batches, "score_func": score, "collect_func": lambda batch: batch,
                    "max_iter_data_loader": CALIBRATION, "verbose": False,
                    "checkpoint": str(self.given.work / f"fastnas_{self.given.samples}.search")},
        )  # fmt: skip
        torch.save({"arch": "resnet20_cifar", "epoch": 0, "state_dict": dict(network.state_dict())}, kept)
        print(f"{self.density:<7}FastNAS searched for {time.perf_counter() - begun:.0f} s", flush=True)
        return kept

    def fastnas(self, seed: int) -> Path:
        return self.fine_tuned("fastnas", seed, self.tuning(), self.found_by_fastnas())

    def levels(self, seed: int) -> Path:
        """A little less than what FastNAS takes, so that rounding up removes no filter more."""
        state = torch.load(self.found_by_fastnas(), weights_only=True)["state_dict"]
        values = {}
        for dimension in self.judge.plan.space.dimensions:
            left, all_ = len(state[str(dimension.weight)]), len(self.judge.model.state_dict()[str(dimension.weight)])
            values[dimension.path] = min(0.9, max(0.0, 1 - (left + 0.01) / all_))
        return self.fine_tuned("levels", seed, self.judge.plan.draw(0, values).run.schedule)

    def raydistill(self, seed: int) -> Path:
        name = f"{self.name}_{seed}"
        resume = (self.given.work / "sweeps" / name / "journal.jsonl").exists()
        sweep = load_sweep(self.file, Overrides(seed=seed, name=name))
        outcome = run_sweep(self.file, self.given.work / "sweeps", resume=resume, seed=seed, name=name, cpu=True)
        rule = next(alias.rule for alias in sweep.aliases)
        found = pick(outcome.rows, rule, sweep.metrics, sweep.objectives, outcome.records).record
        return Path(str(found.checkpoint))

    def told(self, way: str, seed: int) -> tuple[float, float, float]:
        """(Share of the MACs, top1 on the test split, seconds)."""
        kept: Path = self.given.work / f"{self.name}_{way}_{seed}.json"
        if not kept.exists():
            if way in ("FastNAS", "levels"):
                self.found_by_fastnas()  # once for all seeds, and told apart
            begun = time.perf_counter()
            checkpoint = WAYS[way](self, seed)
            took = time.perf_counter() - begun
            model = load_model(checkpoint, "resnet20_cifar").eval()
            deploy(model, self.judge.example)
            macs = total_macs(model, self.judge.example) / total_macs(self.judge.model, self.judge.example)
            kept.write_text(json.dumps([macs, on_test(model, self.judge.task), took]))
        share, top1, took = json.loads(kept.read_text())
        return share, top1, took


WAYS: dict[str, Callable[[Beside, int], Path]] = {
    "dense": Beside.dense,
    "uniform": Beside.uniform,
    "ranked": Beside.ranked,
    "FastNAS": Beside.fastnas,
    "levels": Beside.levels,
    "raydistill": Beside.raydistill,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--macs", type=float, nargs="+", default=[0.5, 0.35])
    parser.add_argument("--only", nargs="+", choices=list(WAYS), default=list(WAYS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--trials", type=int, default=8)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--part", type=float, default=0.25, help="of the training split, in each epoch")
    parser.add_argument("--lr", type=float, default=0.02)
    parser.add_argument("--samples", type=int, default=1000, help="of the validation split, for FastNAS's scores")
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "fastnas_beside")
    given = parser.parse_args()
    given.work.mkdir(parents=True, exist_ok=True)
    print(f"{'bound':<7}{'':12}{'MACs %':>8}{'top1 % on test':>16}{'':>18}{'seconds':>9}")
    for density in given.macs:
        beside = Beside(given, density)
        for way in given.only:
            runs = [beside.told(way, seed) for seed in range(given.seeds)]
            shares, tops, seconds = zip(*runs, strict=True)
            top1 = [100 * top for top in tops]
            ranged = f"{min(top1):.2f} to {max(top1):.2f}"
            line = f"{100 * statistics.mean(shares):>8.1f}{statistics.mean(top1):>16.2f}{ranged:>18}"
            print(f"{density:<7}{way:12}{line}{statistics.mean(seconds):>9.0f}", flush=True)


if __name__ == "__main__":
    main()
