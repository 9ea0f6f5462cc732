"""A surface that was learned from trials really trained: thousands of trials as real ones would be, in seconds.

Trials drawn by a Sobol sequence are trained once (`search_real.Simplenet`). A Gaussian process, with one length a
dimension, gives the mean of each epoch's validation top1: at the last epoch that is a network's true worth. What it
learns is the logarithm of what is lost against a little more than the best trial, over the logarithm of each layer's
density: top1 itself is flat, then falls off, and a process of that makes up networks better than the dense one. A trial
adds the leave-one-out residuals of one of the real trials, so that noise has the size it has in truth and one epoch's
goes with the next's. Sparsity is not learned: the schedule says it.
"""

from __future__ import annotations

import functools
import hashlib
import json
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from search_real import Simplenet
from search_surfaces import LARGEST, POINTS, Curves, Space, Surface, volume
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, ConstantKernel, WhiteKernel

from raydistill.files import write_atomically
from raydistill.records import Scalar
from raydistill.search.searchers.sobol import SobolSearcher


class Surrogate(Surface):
    """real: trains the `table` trials that the surface is learned from, all with the seed 0; kept ones are not again.

    error: the leave-one-out error of top1 at the last epoch, the median of its absolute value. spread: half of the
    interquartile range of the real trials' top1 there.
    """

    additive = False

    def __init__(self, real: Simplenet, table: int, work: Path) -> None:
        self.epochs, self.pruned, self.dense = real.epochs, real.pruned, real.dense
        self._real, self._trials = real, {}
        self.space, self.sizes, self.weights = Space(real.space.dimensions), real.sizes, real.weights
        self.names, self.layers = list(real.weights), len(real.weights)
        self._of_layer = np.array([bool(d.weight) for d in self.space.dimensions])
        self.share = np.array([self.sizes[str(d.weight)] for d in self.space.dimensions if d.weight])
        self.share = self.share / sum(self.sizes.values())
        kept = work / f"table-{real.about}-{table}.json"
        if not kept.exists():
            write_atomically(kept, json.dumps(self._trained(table)).encode())
        learned = json.loads(kept.read_text())
        x, top1 = self._features(np.array(learned["units"])), np.array(learned["curves"])
        self.dense = float(learned["dense"])
        self._ceiling = top1.max(axis=0) + 0.01
        y = np.log(self._ceiling - top1)
        self._mean, self._scale = y.mean(axis=0), y.std(axis=0)
        kernel = ConstantKernel() * RBF(np.ones(x.shape[1]), (0.05, 100.0)) + WhiteKernel(0.1)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a length at its bound is a value that does not matter
            self._process = GaussianProcessRegressor(kernel, n_restarts_optimizer=2, random_state=0)
            self._process.fit(x, (y - self._mean) / self._scale)
        inverse = np.linalg.inv(self._process.kernel_(x))
        standard = (y - self._mean) / self._scale
        residuals = (inverse @ standard) / np.diag(inverse)[:, None]  # Rasmussen and Williams 2006, equation 5.12
        self._residuals = residuals * self._scale
        predicted = self._ceiling[-1] - np.exp(y[:, -1] - self._residuals[:, -1])
        self.error = float(np.median(np.abs(predicted - top1[:, -1])))
        low, high = np.percentile(top1[:, -1], (25, 75))
        self.spread = float(high - low) / 2

    def _trained(self, table: int) -> dict[str, object]:
        units, curves = [], []
        searcher = SobolSearcher(self.space, 0)
        for number in range(table):
            values = searcher.suggest(number, (), ())
            curves.append([figures["top1"] for figures in self._real.train(0, values, 0)])
            units.append(self.space.to_unit(values).tolist())
            if (number + 1) % 10 == 0:
                print(f"  {number + 1} of {table} real trials", flush=True)
        return {"units": units, "curves": curves, "dense": self._real.validation()}

    def _features(self, units: np.ndarray) -> np.ndarray:
        """(n, dimensions): a level as the logarithm of what it leaves, from 0 to 1; all else as it is."""
        dense = np.log(1.0 - np.where(self._of_layer, units, 0.0) * LARGEST) / np.log(1.0 - LARGEST)
        return np.where(self._of_layer, dense, units)

    def _predicted(self, units: np.ndarray) -> np.ndarray:
        """(n, epochs): the logarithm of what is lost."""
        return self._process.predict(self._features(units)) * self._scale + self._mean

    def levels(self, units: np.ndarray) -> np.ndarray:
        return units[:, self._of_layer] * LARGEST

    def loss(self, units: np.ndarray) -> np.ndarray:
        return self.dense - self._ceiling[-1] + np.exp(self._predicted(units)[:, -1])

    def true(self, units: np.ndarray) -> np.ndarray:
        return np.stack([self.dense - self.loss(units), self.levels(units) @ self.share], axis=1)

    def trial(self, seed: int, values: Mapping[str, Scalar]) -> tuple[list[dict[str, float]], np.ndarray]:
        unit = self.space.to_unit(values)
        key = hashlib.sha256(f"{seed}{sorted(values.items())}".encode()).digest()
        rng = np.random.default_rng(int.from_bytes(key[:8], "little"))
        mean = self._predicted(unit[None])[0]
        top1 = self._ceiling - np.exp(mean + self._residuals[int(rng.integers(len(self._residuals)))])
        planned = self._real.planned(values)
        figures = [{"top1": one, "sparsity": planned, "planned_sparsity": planned} for one in top1.tolist()]
        return figures, np.array([self._ceiling[-1] - np.exp(mean[-1]), planned])

    def measured(self, levels: Sequence[float], seed: int) -> tuple[Curves, float]:
        return self._curves(tuple(levels))

    @functools.cache  # noqa: B019, one surface lives as long as its process
    def _curves(self, levels: tuple[float, ...]) -> tuple[Curves, float]:
        return self._real.measured(levels, 0)

    def possible(self) -> dict[str, float]:
        best = self._best_front
        return {name: volume(best, self.dense, points) for name, points in POINTS.items()}

    @functools.cached_property
    def _best_front(self) -> np.ndarray:
        return self.optimum()
