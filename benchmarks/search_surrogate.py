"""A surface that was learned from trials really trained: thousands of trials as real ones would be, in seconds.

Trials drawn by a Sobol sequence are trained once (simplenet on a part of CIFAR-10). A Gaussian process over the
searched values, with one length a dimension, gives the mean of each epoch's validation top1; a trial adds the
leave-one-out residuals of one of the real trials, so that noise has the size it has in truth and one epoch's goes with
the next's. Sparsity is not learned: the schedule says it.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, ConstantKernel, WhiteKernel

from raydistill.compression.masks import pruned_count
from raydistill.records import Scalar
from raydistill.search import SearchSpace
from raydistill.search.searchers.sobol import SobolSearcher

if TYPE_CHECKING:
    from search_quality import Curve, Simplenet


class Surrogate:
    """real: trains the `table` trials that the surface is learned from, all with the seed 0; kept ones are not again.

    error: the leave-one-out error at the last epoch, root mean square, in top1. spread: the standard deviation of the
    real trials' top1 there.
    """

    def __init__(self, real: Simplenet, table: int) -> None:
        self.epochs = real.epochs
        self._space = real.space()
        self._sizes = {name: int(np.prod(shape)) for name, shape in real.weights()}
        units, curves = [], []
        searcher = SobolSearcher(self._space, 0)
        for number in range(table):
            values = searcher.suggest(number, (), ())
            curve = [figures["top1"] for figures in real.train(0, values, 0)]
            units.append(self._space.to_unit(values))
            curves.append(curve)
            if (number + 1) % 10 == 0:
                print(f"  {number + 1} of {table} real trials", flush=True)
        x, y = np.array(units), np.array(curves)
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
        self.error = float(np.sqrt(np.mean(self._residuals[:, -1] ** 2)))
        self.spread = float(self._scale[-1])

    def space(self) -> SearchSpace:
        return self._space

    def train(self, seed: int, values: Mapping[str, Scalar], known: int) -> Curve:
        unit = self._space.to_unit(values)
        key = hashlib.sha256(f"{seed}{sorted(values.items())}".encode()).digest()
        rng = np.random.default_rng(int.from_bytes(key[:8], "little"))
        mean = self._process.predict(unit[None])[0] * self._scale + self._mean
        top1 = mean + self._residuals[int(rng.integers(len(self._residuals)))]
        planned = self._planned(values)
        for epoch in range(known, self.epochs):
            yield {"top1": float(top1[epoch]), "sparsity": planned, "planned_sparsity": planned}

    def _planned(self, values: Mapping[str, Scalar]) -> float:
        """The sparsity that the trial's schedule ends with."""
        levels = {name: float(values.get(f"per_layer.{name}.final_sparsity", 0.0)) for name in self._sizes}
        return sum(pruned_count(level, self._sizes[name]) for name, level in levels.items()) / sum(self._sizes.values())
