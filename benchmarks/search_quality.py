"""Epochs that each searcher and trial scheduler needs for the front that full-length random search finds.

Random search trains N trials to their end; the hypervolume of its front (validation top1 and sparsity, bounded by its
worst trial in each) is the goal. Every combination then searches with at most N trials. ratio: the epochs it trained
until the front of its finished trials had 99 % of the goal, over the epochs of the random search (``inf``: it never
had). Printed are the median and the range over seeds.

    python benchmarks/search_quality.py --synthetic            # a made-up surface: thousands of trials, no training
    python benchmarks/search_quality.py --data-dir DIR         # simplenet really trained on (a part of) CIFAR-10
    python benchmarks/search_quality.py --data-dir DIR --table 200   # the surface of 200 trials really trained

Decisions are the sweep's own (`raydistill.search`), driven here without Ray, so that an epoch counts as one whatever
the machine does meanwhile. Real trials are kept in --work and are not trained twice.
"""

from __future__ import annotations

import argparse
import hashlib
import heapq
import json
import math
import statistics
import sys
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from raydistill.records import Scalar
from raydistill.search import Dimension, LogUniform, Objective, SearchSpace, Uniform, hypervolume
from raydistill.search.decisions import GO_ON, PAUSE
from raydistill.search.search import NEW, RESUME
from raydistill.sweep.file.spec import SearcherSection, TrialSchedulerSection
from raydistill.sweep.planning.methods import make_search, make_searcher
from raydistill.tasks.classification import Classification

if TYPE_CHECKING:
    from search_surrogate import Surrogate

OBJECTIVES = (Objective("top1", "max"), Objective("sparsity", "max"))
BASE = "random+none"
SCHEDULERS: dict[str, dict[str, Any]] = {
    "none": {"name": "none"},
    "asha": {"name": "asha"},
    "hyperband": {"name": "hyperband"},
    "median": {"name": "median"},
    "moasha": {"name": "moasha"},
    "moasha_hv": {"name": "moasha", "spread": "hypervolume"},
    "moasha_crowding": {"name": "moasha", "spread": "crowding"},
    "promote": {"name": "moasha", "mode": "promote"},
    "promote_hv": {"name": "moasha", "mode": "promote", "spread": "hypervolume"},
}
SYNTHETIC = [
    "sobol+none", "grid+none", "evolution+none", "nsga2+none", "motpe+none", "tpe+none", "random+asha",
    "random+hyperband", "random+median", "random+moasha", "random+moasha_hv", "random+moasha_crowding",
    "random+promote", "random+promote_hv", "evolution+asha", "evolution+moasha", "evolution+moasha_hv",
    "evolution+promote", "evolution+promote_hv", "nsga2+promote_hv",
]  # fmt: skip
REAL = [
    "random+asha", "random+hyperband", "random+median", "random+moasha", "random+moasha_hv", "random+promote",
    "random+promote_hv", "sobol+none", "gp+none", "evolution+none", "gp+promote_hv", "evolution+promote_hv",
    "motpe+none", "nsga2+none", "tpe+none", "grid+none",
]  # fmt: skip

Curve = Generator[dict[str, float], None, None]
Train = Callable[[int, Mapping[str, Scalar], int], Curve]
"""(seed, values, epochs known) to the figures of the epochs after them, planned_sparsity among them."""


def search_once(
    name: str, space: SearchSpace, train: Train, epochs: int, trials: int, seed: int, workers: int
) -> Iterator[tuple[int, float, float]]:
    """(epochs trained so far in all, top1, sparsity) of each trial that finishes, as they do; workers train in step."""
    searching, _, scheduling = name.partition("+")
    section, scheduler = SearcherSection(name=searching), TrialSchedulerSection(**SCHEDULERS[scheduling])
    searcher = make_searcher(section, space, seed, trials)
    search = make_search(section, scheduler, searcher, OBJECTIVES, epochs, trials)
    curves: dict[int, Curve] = {}
    done: dict[int, int] = {}
    queue: list[tuple[int, int, int]] = []  # (the step that the epoch ends in, order, trial)
    spent = order = now = 0
    while True:
        while len(queue) < workers and (wanted := search.next()).kind in (NEW, RESUME):
            trial = wanted.trial
            values = search.observations[trial].values
            curves[trial] = train(seed, values, done.setdefault(trial, 0))
            order += 1
            heapq.heappush(queue, (now + 1, order, trial))
        if not queue:
            return
        now, _, trial = heapq.heappop(queue)
        figures = next(curves[trial])
        spent += 1
        done[trial] += 1
        verdict = search.result(trial, done[trial], figures)
        if verdict.action == GO_ON and done[trial] < epochs:
            order += 1
            heapq.heappush(queue, (now + 1, order, trial))
            continue
        curves.pop(trial).close()
        if verdict.action == PAUSE:
            search.pause(trial)
            continue
        search.ended(trial)
        if verdict.action == GO_ON:
            yield spent, figures["top1"], figures["sparsity"]


class Surface:
    """A made-up network of five layers: sizes of simplenet's, top1 that falls slowly, then fast, with each sparsity.

    A trial prunes gradually over three quarters of its epochs. While it does, top1 suffers from the pruning of late and
    recovers by and by; each epoch's figure has the noise of a validation set, each trial that of its seed.
    """

    epochs = 60
    sizes = np.array([450.0, 2400.0, 48000.0, 10080.0, 840.0])
    weight = np.array([0.030, 0.035, 0.030, 0.020, 0.020])
    power = np.array([2.0, 3.0, 8.0, 6.0, 3.0])
    low, high = (0.05, 0.2, 0.4, 0.4, 0.2), (0.6, 0.95, 0.995, 0.995, 0.95)

    def space(self) -> SearchSpace:
        layers = [
            Dimension(f"s{i}", Uniform(low, high))
            for i, (low, high) in enumerate(zip(self.low, self.high, strict=True))
        ]
        return SearchSpace((*layers, Dimension("lr", LogUniform(0.002, 0.1))))

    def damage(self, sparsity: np.ndarray) -> float:
        """What top1 loses for good."""
        starved = np.log10(0.05 / np.maximum(1.0 - sparsity, 1e-3))
        loss = float((3 * self.weight * sparsity**self.power + 0.004 * np.maximum(0.0, starved)).sum())
        return loss + 0.5 * loss**2

    def train(self, seed: int, values: Mapping[str, Scalar], known: int) -> Curve:
        final = np.array([float(values[f"s{i}"]) for i in range(5)])
        lr = float(values["lr"])
        share = self.sizes / self.sizes.sum()
        key = hashlib.sha256(f"{seed}{sorted(values.items())}".encode()).digest()
        rng = np.random.default_rng(int.from_bytes(key[:8], "little"))
        offset = rng.normal(0.0, 0.003)
        lost = 0.0
        for epoch in range(1, self.epochs + 1):
            pruned = min(1.0, epoch / (0.75 * self.epochs))
            now = final * (1.0 - (1.0 - pruned) ** 3)
            target = self.damage(now)
            lost = max(target, lost + 0.35 * (target - lost))
            shock = 0.6 * (1.0 - pruned) * pruned * target
            untuned = 0.01 * math.log10(lr / 0.02) ** 2 + 0.03 * math.sqrt(lr / 0.02) * (1.0 - epoch / self.epochs)
            top1 = 0.70 - lost - shock - untuned + offset + rng.normal(0.0, 0.002)
            figures = {"top1": top1, "sparsity": float(share @ now), "planned_sparsity": float(share @ final)}
            if epoch > known:
                yield figures


class Simplenet:
    """search_spaces/simplenet.yaml, shortened, really trained from a dense baseline that is trained on all images.

    baseline: a checkpoint that all seeds start from; None trains one for each seed, as long as the file says.
    """

    def __init__(
        self, data_dir: str | None, epochs: int, part: float, work: Path, file: Path, baseline: Path | None = None
    ) -> None:
        from raydistill import datasets
        from raydistill.sweep.file.load import Overrides, load_sweep
        from raydistill.sweep.planning.plan import plan_sweep

        name = "cifar10" if data_dir else "digits"
        self.epochs, self._part, self._work, self._given = epochs, part, work, baseline
        whole = Overrides(dataset=name, data_dir=data_dir)
        self._dense = load_sweep(file, whole)
        self._sweep = load_sweep(file, replace(whole, epochs=epochs))
        self._dataset = datasets.load(self._sweep.dataset)
        self._plan = plan_sweep(self._sweep, Classification(self._dataset))
        about = [self._sweep.config()["schedule"], name, epochs, part, str(baseline)]
        self._about = json.dumps(about, sort_keys=True)

    def space(self) -> SearchSpace:
        return self._plan.space

    def weights(self) -> tuple[tuple[str, tuple[int, ...]], ...]:
        """(name, shape) of each."""
        return self._plan.weights

    def baseline(self, seed: int) -> str:
        from raydistill.sweep.planning.plan import baseline_config
        from raydistill.training import fit

        if self._given is not None:
            return str(self._given)
        folder = self._work / f"baseline-{seed}"
        run = replace(baseline_config(self._dense), seed=seed, out_dir=str(folder), precision="fp32", tensorboard=False)
        for _ in fit(run, task=Classification(self._dataset)):
            pass
        return str(folder / "checkpoint.pt")

    def train(self, seed: int, values: Mapping[str, Scalar], known: int) -> Curve:
        from raydistill.training import fit, read_history

        plan = self._plan.draw(0, values)
        folder = self._folder(json.dumps(sorted(values.items())), seed)
        placed = plan.placed(self.baseline(seed), folder, 1, "cpu", "fp32")
        run = replace(placed.run, seed=seed, effective_train_size=self._part, tensorboard=False)
        checkpoint = folder / "checkpoint.pt"
        kept = list(read_history(checkpoint)) if checkpoint.exists() else []
        for metrics in kept[known:]:
            yield self._figures(metrics, plan.planned_sparsity)
        if len(kept) < self.epochs:
            with closing(fit(run, task=Classification(self._dataset))) as epochs:
                for metrics in epochs:
                    yield self._figures(metrics, plan.planned_sparsity)

    def _folder(self, what: str, seed: int) -> Path:
        return self._work / hashlib.sha256(f"{self._about}{what}{seed}".encode()).hexdigest()[:20]

    def _figures(self, metrics: Any, planned: float) -> dict[str, float]:
        return {"top1": metrics.metrics["top1"], "sparsity": metrics.sparsity, "planned_sparsity": planned}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--synthetic", action="store_true")
    parser.add_argument("--data-dir", help="CIFAR-10; left out, scikit-learn's digits")
    parser.add_argument("--space", type=Path, default=Path(__file__).parents[1] / "search_spaces" / "simplenet.yaml")
    parser.add_argument("--trials", type=int, help="N; default 600 synthetic, 24 real")
    parser.add_argument("--epochs", type=int, default=12, help="of a real trial")
    parser.add_argument("--baseline", type=Path, help="a dense checkpoint; left out, one is trained for each seed")
    parser.add_argument("--table", type=int, help="real trials that a surface is learned from; 600 trials run on that")
    parser.add_argument("--part", type=float, default=0.1, help="of the training images, in each epoch of a real trial")
    parser.add_argument("--seeds", type=int, help="default 5 synthetic, 3 real")
    parser.add_argument("--workers", type=int, default=4, help="trials at once, as the decisions see it")
    parser.add_argument("--only", nargs="+", help="combinations, as evolution+promote_hv")
    parser.add_argument("--work", type=Path, default=Path("search_quality"), help="where real trials are kept")
    parser.add_argument("--plot", type=Path, default=Path("search_quality.png"))
    options = parser.parse_args()
    source: Surface | Simplenet | Surrogate
    if options.synthetic:
        source = Surface()
    else:
        source = Simplenet(
            options.data_dir, options.epochs, options.part, options.work, options.space, options.baseline
        )
        if options.table:
            from search_surrogate import Surrogate

            source = Surrogate(source, options.table)
            print(
                f"surface of {options.table} real trials: top1 varies by {source.spread:.4f} (standard deviation) over "
                f"the space, the fit is wrong by {source.error:.4f} (leave-one-out)"
            )
    quick = options.synthetic or bool(options.table)
    trials = options.trials or (600 if quick else 24)
    seeds = options.seeds or (5 if quick else 3)
    names = options.only or list(SYNTHETIC if quick else REAL)
    unknown = [name for name in names if name.partition("+")[2] not in SCHEDULERS]
    if unknown:
        sys.exit(f"--only: unknown combination {unknown[0]}; schedulers: {', '.join(SCHEDULERS)}")
    space = source.space()

    def finished(name: str, seed: int) -> list[tuple[int, float, float]]:
        return list(search_once(name, space, source.train, source.epochs, trials, seed, options.workers))

    whole = trials * source.epochs
    print(
        f"{trials} trials of {source.epochs} epochs, {options.workers} at once; random search trains {whole:,} epochs"
    )
    goals = {}
    lines: dict[str, list[list[tuple[float, float]]]] = {}
    for seed in range(seeds):
        points = np.array([point[1:] for point in finished(BASE, seed)])
        reference = points.min(axis=0)
        goals[seed] = (reference, hypervolume(points, ["max", "max"], reference))
    for name in [BASE, *names]:
        lines[name] = [growth(finished(name, seed), *goals[seed], whole) for seed in range(seeds)]
        print(row(name, lines[name]), flush=True)
    plot(lines, options.plot)
    print(f"plot: {options.plot}")


def growth(
    finished: list[tuple[int, float, float]], reference: np.ndarray, goal: float, whole: int
) -> list[tuple[float, float]]:
    """(epochs as a share of random search's, hypervolume as a share of its) at each finished trial."""
    found, line = [], [(0.0, 0.0)]
    for spent, *point in finished:
        found.append(point)
        line.append((spent / whole, hypervolume(found, ["max", "max"], reference) / goal))
    return line


def reached(line: list[tuple[float, float]], share: float) -> float:
    return next((epochs for epochs, volume in line if volume >= share), math.inf)


def row(name: str, lines: list[list[tuple[float, float]]]) -> str:
    at99, at95 = ([reached(line, share) for line in lines] for share in (0.99, 0.95))
    end = statistics.mean(line[-1][1] for line in lines)
    spent = statistics.mean(line[-1][0] for line in lines)
    spread = f"{min(at99):.2f} to {max(at99):.2f}"
    return (
        f"{name} ratio={statistics.median(at99):.2f} seeds={len(lines)}  ({spread}; to 95 %: "
        f"{statistics.median(at95):.2f}; at the end {end:.2f} of the volume for {spent:.2f} of the epochs)"
    )


def plot(lines: dict[str, list[list[tuple[float, float]]]], file: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(9, 6), layout="constrained")
    order = sorted(lines, key=lambda name: statistics.median(reached(line, 0.99) for line in lines[name]))
    grid = np.linspace(0.0, 1.0, 201)
    colours = plt.get_cmap("tab10")
    shown = [*order[:6], *([BASE] if BASE not in order[:6] else [])]
    for name in order:
        curves = [np.array([max((v for e, v in line if e <= x), default=0.0) for x in grid]) for line in lines[name]]
        colour = colours(shown.index(name)) if name in shown else "0.85"
        axes.step(
            grid, np.median(curves, axis=0), where="post", color=colour, label=name if name in shown else None,
            lw=2 if name in shown else 1, zorder=2 if name in shown else 1,
        )  # fmt: skip
    axes.axhline(0.99, color="0.5", lw=1, ls="--")
    axes.set(
        xlabel="epochs trained / epochs of the full-length random search", xlim=(0, 1), ylim=(0.5, None),
        ylabel="hypervolume of the finished trials / random search's",
    )  # fmt: skip
    axes.set_title("median over seeds; grey: the other combinations")
    axes.legend(loc="lower right")
    figure.savefig(file, dpi=110)


if __name__ == "__main__":
    main()
