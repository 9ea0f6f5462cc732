"""Does evidence without training pay: pruned at once at the drawn levels and evaluated, before epochs are spent?

simplenet, every layer's sparsity searched from 0 to 0.99. First, of trials really trained, how the order of their final
validation loss is foreseen: by the sparsity, by the sum of the layers' measured curves, by the loss of the network that
is pruned at once (batch norms, where there are any, seeing training data anew). Then what a filter brings: of a pool of
levels those are trained that are best in both one-shot loss and sparsity, as many as fit into the same epochs once the
pool is paid for. Beside it as many trials at random, and as many by the curves, which are paid for too; and a filter of
a pool that half lies around what the curves say, which pays for both.

    python benchmarks/cheap_evidence.py [--data-dir CIFAR10 --baseline dense/checkpoint.pt] [--epochs 6] [--seeds 3]

Counted is the hypervolume of (top1 on the test split, sparsity) of each method's front by validation, over the dense
network's top1 less 5 points and no sparsity. Trials are kept in --work and are not trained twice.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from scipy.stats import spearmanr
from search_quality import front
from search_real import Simplenet
from search_surfaces import volume
from torch import nn

from raydistill.analysis.network import read_network
from raydistill.compression.names import names_of
from raydistill.compression.one_shot import pruned_at_once
from raydistill.records import Scalar
from raydistill.schedule import ScheduleSpec, naming_weights
from raydistill.search.searchers import Aim, SobolSearcher
from raydistill.search.searchers.damages import Damages
from raydistill.search.selection import best
from raydistill.sweep.curves import by_itself, damage_of
from raydistill.tasks import TRAIN, VALIDATION, Loading
from raydistill.training import evaluate_checkpoint, read_history

_SAMPLES = 2048
_RECALIBRATION = 8


class Evidence:
    """The loss of networks that are pruned at once, on a fixed part of the validation split. spent_s: so far."""

    def __init__(self, source: Simplenet) -> None:
        self._source = source
        self._dense = read_network(Path(source._baseline)).model.cpu().eval()
        self._example = source._task.example_input()
        cpu = torch.device("cpu")
        whole = source._task.feed(VALIDATION, Loading(cpu, 1024)).samples
        self._loading = Loading(cpu, 1024, fraction=min(1.0, _SAMPLES / whole))
        self._feed = source._task.feed(VALIDATION, self._loading)
        self.spent_s = 0.0

    def loss(self, values: Mapping[str, Scalar]) -> float:
        begun = time.perf_counter()
        schedule = self._source._plan.draw(0, values).run.schedule
        assert schedule is not None
        pruned = pruned_at_once(schedule, self._dense, self._example).eval()
        if any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in pruned.modules()):
            self._recalibrated(pruned)
        found = float(self._source._task.evaluate(pruned, self._feed, self._loading)["loss"])
        self.spent_s += time.perf_counter() - begun
        return found

    def damages(self) -> tuple[Damages, float]:
        """The layers' curves as a sweep measures them, and the seconds that it took."""
        source, begun = self._source, time.perf_counter()
        schedule = naming_weights(source._sweep.schedule, names_of(self._dense))

        def alone(weight: str, level: float) -> ScheduleSpec:
            return by_itself(schedule, weight, "final_sparsity", level)

        found = damage_of(self._dense, source._task, alone, list(source.weights), device="cpu")
        return Damages(source.space, found.curves, found.sizes, Aim()), time.perf_counter() - begun

    @torch.no_grad()
    def _recalibrated(self, network: nn.Module) -> None:
        feed = self._source._task.feed(TRAIN, Loading(torch.device("cpu"), 256))
        network.train()
        for _, batch in zip(range(_RECALIBRATION), feed.epoch(0), strict=False):
            network(*self._source._task.inputs(batch))
        network.eval()


@dataclass(frozen=True)
class Trained:
    validation: float
    loss: float
    true: np.ndarray
    epoch_s: float


def trained(source: Simplenet, values: Mapping[str, Scalar]) -> Trained:
    *_, last = source.train(0, values, 0)
    checkpoint = source._folder(0, values) / "checkpoint.pt"
    loss = evaluate_checkpoint(str(checkpoint), source._task, VALIDATION, "cpu").metrics["loss"]
    seconds = float(np.mean([metrics.seconds for metrics in read_history(checkpoint)]))
    return Trained(last["top1"], loss, source.delivered(0, values), seconds)


def by_sum(damages: Damages, source: Simplenet, values: Mapping[str, Scalar]) -> float:
    places = damages.places(source.space.to_unit(values)[None])[0]
    return float(damages.damage[np.arange(len(damages.layers)), places].sum())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", help="CIFAR-10; left out, scikit-learn's digits")
    parser.add_argument("--space", type=Path, default=Path(__file__).parents[1] / "search_spaces" / "simplenet.yaml")
    parser.add_argument("--epochs", type=int, default=6, help="of a trial")
    parser.add_argument("--part", type=float, help="of the training images, in each epoch; default 0.1, of digits all")
    parser.add_argument("--baseline", type=Path, help="a dense checkpoint; left out, one is trained for each seed")
    parser.add_argument("--trials", type=int, default=8, help="that the budget is for, all else counted")
    parser.add_argument("--pool", type=int, default=100, help="drawn levels that are evaluated")
    parser.add_argument("--ranked", type=int, default=24, help="trials that the order is foreseen of")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--work", type=Path, default=Path("cheap_evidence"))
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    orders: dict[str, list[float]] = {}
    volumes: dict[str, list[float]] = {}
    for seed in range(options.seeds):
        source = Simplenet(options, seed)
        evidence, sobol = Evidence(source), SobolSearcher(source.space, seed)
        damages, cost = evidence.damages()
        drawn = [sobol.suggest(number, (), ()) for number in range(options.pool)]
        ranked = drawn[: options.ranked]
        results = [trained(source, values) for values in ranked]
        epoch_s = float(np.mean([result.epoch_s for result in results]))
        foreseen = {
            "sparsity": [source.planned(values) for values in ranked],
            "sum of curves": [by_sum(damages, source, values) for values in ranked],
            "one-shot loss": [evidence.loss(values) for values in ranked],
        }
        for name, figures in foreseen.items():
            orders.setdefault(name, []).append(float(spearmanr(figures, [r.loss for r in results]).statistic))
        around = [*drawn[: options.pool // 2], *_around(source, damages, drawn[options.pool // 2 :], seed)]
        chosen, paid = {}, {}
        for name, pool in (("filtered", drawn), ("filtered around", around)):
            evidence.spent_s = 0.0
            losses = np.array([evidence.loss(values) for values in pool])
            paid[name] = evidence.spent_s / epoch_s / options.epochs  # in trials
            sparsities = np.array([source.planned(values) for values in pool])
            chosen[name] = [pool[i] for i in _spread(losses, sparsities, options.trials)]
        units = [source.space.to_unit(values) for values in drawn]
        placed = [
            source.space.from_unit(damages.by_curves(units[number], damages.share(seed, number)))
            for number in range(options.trials)
        ]
        curves_paid = cost / epoch_s / options.epochs
        for name, values, price in (
            ("random", drawn, 0.0),
            ("filtered", chosen["filtered"], paid["filtered"]),
            ("by the curves", placed, curves_paid),
            ("filtered around", chosen["filtered around"], paid["filtered around"] + curves_paid),
        ):
            count = max(1, int(options.trials - price))
            volumes.setdefault(name, []).append(_volume(source, values[:count]))
        print(f"seed {seed}: the pool cost {paid['filtered']:.2f} trials, the curves {curves_paid:.2f}", flush=True)
    print(f"\n{options.seeds} seeds, {options.epochs} epochs a trial, digits or part of the images")
    for name, found in orders.items():
        print(f"rank correlation with the loss in the end  {name:16} {_said(found)}")
    for name, found in volumes.items():
        ratios = [one / base for one, base in zip(found, volumes["random"], strict=True) if base > 0.0]
        print(f"volume over random's, {options.trials} trials          {name:16} {_said(ratios)}")


def _around(
    source: Simplenet, damages: Damages, drawn: Sequence[Mapping[str, Scalar]], seed: int
) -> list[Mapping[str, Scalar]]:
    """What the curves say at totals along the front, each level moved."""
    rng, found = np.random.default_rng(seed), []
    for values in drawn:
        units = damages.by_curves(source.space.to_unit(values), float(rng.random()))
        units[damages.layers] = np.clip(units[damages.layers] + rng.normal(0.0, 0.1, len(damages.layers)), 0.0, 1.0)
        found.append(source.space.from_unit(units))
    return found


def _spread(losses: np.ndarray, sparsities: np.ndarray, count: int) -> list[int]:
    """Those of the pool that are best in both, the most even first."""
    points = np.stack([-np.log(np.maximum(losses, 1e-3)), -np.log(1.0 - np.minimum(sparsities, 0.999))], axis=1)
    chosen = np.flatnonzero(best(points, count, "hypervolume"))
    order = chosen[np.argsort(sparsities[chosen])]
    return [int(i) for i in np.concatenate([order[1::2], order[::2]])]


def _volume(source: Simplenet, values: Sequence[Mapping[str, Scalar]]) -> float:
    results = [trained(source, each) for each in values]
    seen = [np.array([result.validation, source.planned(each)]) for result, each in zip(results, values, strict=True)]
    return volume([results[i].true for i in front(seen)], source.dense, 0.05)


def _said(found: Sequence[float]) -> str:
    return f"{np.mean(found):5.2f} ({min(found):.2f} to {max(found):.2f})" if len(found) else "  -"


if __name__ == "__main__":
    main()
