"""Trials really trained, for `search_quality.py`: simplenet with every layer's sparsity from 0 to 0.99.

Each trial goes on from a dense baseline that is trained on all images, as long as the sweep file says; the trial itself
is shortened, and trains on a part of them. What it is truly worth is its top1 on the test split. Trials are kept in the
folder of `--work` and are not trained twice.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from search_surfaces import LARGEST, POINTS, Curve, Curves

from raydistill import datasets
from raydistill.analysis.network import read_network
from raydistill.compression.masks import pruned_count
from raydistill.records import Scalar
from raydistill.sweep.file.load import Overrides, load_sweep
from raydistill.sweep.planning.plan import plan_sweep
from raydistill.sweep.planning.runs import baseline_config
from raydistill.tasks.classification import Classification
from raydistill.training import evaluate_checkpoint, fit, read_history


class Simplenet:
    """The surface of real trials from the baseline of one seed. options: of the command."""

    evaluation = 0.04

    def __init__(self, options: argparse.Namespace, seed: int = 0) -> None:
        name = "cifar10" if options.data_dir else "digits"
        self.epochs, self._work, self._seed = options.epochs, options.work, seed
        self._part = options.part or (0.1 if options.data_dir else 1.0)
        whole = Overrides(dataset=name, data_dir=options.data_dir)
        self._dense = load_sweep(options.space, whole)
        self._sweep = load_sweep(_broad(options.space, options.work), replace(whole, epochs=options.epochs))
        self._task = Classification(datasets.load(self._sweep.dataset))
        self._plan = plan_sweep(self._sweep, self._task)
        self.space = self._plan.space
        self.sizes = {weight: int(np.prod(shape)) for weight, shape in self._plan.weights}
        self.weights = {str(d.weight): self.sizes[str(d.weight)] for d in self.space.dimensions if d.weight}
        self.pruned = 1 + max(p.last_epoch for p in self._sweep.schedule.policies if p.kind == "pruner")
        about = [self._sweep.config()["schedule"], name, options.epochs, self._part, str(options.baseline)]
        self.about = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:8]
        self._baseline = options.baseline or self._trained()
        self.dense = self._top1(self._baseline, "test")

    def train(self, seed: int, values: Mapping[str, Scalar], known: int) -> Curve:
        """The figures of the epochs after those that are known; they are trained where they are not kept."""
        plan = self._plan.draw(0, values)
        folder = self._folder(seed, values)
        placed = plan.placed(str(self._baseline), str(folder), 1, "cpu", "fp32")
        run = replace(placed.run, seed=seed, effective_train_size=self._part, tensorboard=False)
        checkpoint = folder / "checkpoint.pt"
        kept = list(read_history(checkpoint)) if checkpoint.exists() else []
        for metrics in kept[known:]:
            yield self._figures(metrics, plan.planned_sparsity)
        if len(kept) < self.epochs:
            with closing(fit(run, task=self._task)) as epochs:
                for metrics in epochs:
                    yield self._figures(metrics, plan.planned_sparsity)

    def delivered(self, seed: int, values: Mapping[str, Scalar]) -> np.ndarray:
        """(top1 on the test split, sparsity) of a trial that finished."""
        return np.array([self._top1(self._folder(seed, values) / "checkpoint.pt", "test"), self.planned(values)])

    def planned(self, values: Mapping[str, Scalar]) -> float:
        """The sparsity that the trial's schedule ends with."""
        levels = {name: float(values.get(f"per_layer.{name}.final_sparsity", 0.0)) for name in self.sizes}
        return sum(pruned_count(level, self.sizes[name]) for name, level in levels.items()) / sum(self.sizes.values())

    def measured(self, levels: Sequence[float], seed: int) -> tuple[Curves, float]:
        """Every layer's one-shot curve on the validation split, by magnitude, and the epochs that it cost."""
        from raydistill.tasks import Loading

        network = read_network(Path(self._baseline))
        model = network.model.cpu()
        loading = Loading(next(model.parameters()).device, 1024)
        feed = self._task.feed("validation", loading)
        dense = float(self._task.evaluate(model, feed, loading)["top1"])
        curves: dict[str, list[tuple[float, float]]] = {}
        for name, weight in model.named_parameters():
            if name not in self.weights:
                continue
            whole = weight.detach().clone()
            for level in levels:
                order = whole.abs().flatten().argsort()
                weight.data.view(-1)[order[: pruned_count(level, whole.numel())]] = 0.0
                lost = dense - float(self._task.evaluate(model, feed, loading)["top1"])
                curves.setdefault(name, []).append((level, lost))
                weight.data.copy_(whole)
        return curves, self.evaluation * (1 + len(levels) * len(self.weights))

    def validation(self) -> float:
        """The dense network's top1 on the validation split."""
        return self._top1(self._baseline, "validation")

    def forget(self) -> None:
        """What is kept of trials is in the folder."""

    def possible(self) -> dict[str, float]:
        """Nobody knows: all of the box, no loss at full sparsity."""
        return dict(POINTS)

    def _trained(self) -> Path:
        folder = self._work / f"baseline-{self._task.name}-{self._seed}"
        run = replace(
            baseline_config(self._dense), seed=self._seed, out_dir=str(folder), precision="fp32", tensorboard=False
        )
        for _ in fit(run, task=self._task):
            pass
        return folder / "checkpoint.pt"

    def _top1(self, checkpoint: Path | str, split: str) -> float:
        return float(evaluate_checkpoint(str(checkpoint), self._task, split, "cpu").metrics["top1"])

    def _folder(self, seed: int, values: Mapping[str, Scalar]) -> Path:
        what = json.dumps([self.about, self._seed, seed, sorted(values.items())])
        return self._work / hashlib.sha256(what.encode()).hexdigest()[:20]

    def _figures(self, metrics: Any, planned: float) -> dict[str, float]:
        return {"top1": metrics.metrics["top1"], "sparsity": metrics.sparsity, "planned_sparsity": planned}


def _broad(file: Path, work: Path) -> Path:
    """The sweep file, with every layer's sparsity searched from 0 to `LARGEST`, as its pruners begin at 0 too."""
    said = yaml.safe_load(file.read_text())
    for entry in said["search"]["per_layer"]:
        entry["final_sparsity"] = {"uniform": [0.0, LARGEST]}
    for pruner in said["schedule"]["pruners"].values():
        if "initial_sparsity" in pruner:
            pruner["initial_sparsity"] = 0.0
    work.mkdir(parents=True, exist_ok=True)
    broad = work / file.name
    broad.write_text(yaml.safe_dump(said))
    return broad
