"""Loss-aware quantization after training: clipping values are searched together, by the loss of the network.

Nahshan et al. 2019 (LAPQ, arXiv 1911.07190): first each tensor's clipping value for which the p-norm of its own
rounding error is least (section 4.1), p by a parabola through the losses that several give (4.2), then all of them
together by Powell's method (4.3).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import nn

from raydistill.compression.quantizers.activations import FixedGrid
from raydistill.compression.quantizers.grid import Grid
from raydistill.compression.quantizers.histograms import Histogram, histogram_of
from raydistill.compression.quantizers.network import Quantization
from raydistill.compression.quantizers.weights import FixedWeight, LinearWeight
from raydistill.errors import ConfigError, Fault

NORMS = (2.0, 2.5, 3.0, 3.5, 4.0)
"""The p that section 4.2 fits a parabola through."""
METHODS = ("Powell", "Nelder-Mead", "COBYLA")
_LEAST, _MOST = 0.05, 1.5
_SHARES = 80


@dataclass(frozen=True)
class Clipping:
    """What the search may change: the range of one tensor. key: of its point, or the weight's name. grid: as the
    search begins. values: of the tensor, counted; None where they are not at hand."""

    key: str
    grid: Grid
    take: Callable[[Grid], None]
    values: Histogram | None = None

    @property
    def two_sided(self) -> bool:
        """Whether both ends are told apart."""
        return bool((self.grid.zero_point != 0).any()) and not bool((self.grid.zero_point == self.grid.low).all())


@dataclass(frozen=True)
class Search:
    """What was found. scales: by the key of each tensor, what its range was multiplied by, below and above zero.
    losses: before the search, after each tensor's own step, and at the end."""

    scales: Mapping[str, tuple[float, float]]
    losses: Mapping[str, float] = field(default_factory=dict)
    evaluations: int = 0


def stretched(grid: Grid, below: float, above: float) -> Grid:
    """The grid whose range is so many times as wide on either side of zero."""
    if below == above:
        return Grid(grid.scale * above, grid.zero_point, grid.low, grid.high)
    lowest = (grid.low - grid.zero_point) * grid.scale * below
    highest = (grid.high - grid.zero_point) * grid.scale * above
    scale = (highest - lowest) / (grid.high - grid.low)
    return Grid(scale, grid.low - torch.round(lowest / scale), grid.low, grid.high)


def clippings(
    model: nn.Module, held: Quantization, histograms: Mapping[str, Histogram] | None = None
) -> list[Clipping]:
    """The ranges of a quantized network that can be searched; weights over their own range have a fixed one from now
    on. histograms: of activations, by the key of their point."""
    found: list[Clipping] = []
    for point in held.points:
        quantizer = held.activation(point)
        if isinstance(quantizer, FixedGrid):
            values = (histograms or {}).get(point.key)
            found.append(Clipping(point.key, _copied(quantizer.grid()), quantizer.take, values))
    for name in held.weight_names():
        weight, own = model.get_parameter(name).detach(), held.weight(name)
        if isinstance(own, LinearWeight) and own.group is None:
            grid = own.grid(weight)
            shape = list(grid.scale.shape) if grid.scale.numel() > 1 else [1] * weight.dim()
            own = FixedWeight(own.bits, grid.low, grid.high, shape).to(weight.device)
            own.take(grid)
            held.replace_weight(name, own)
        if isinstance(own, FixedWeight):
            counted = histogram_of(weight, float(weight.min()), float(weight.max()))
            found.append(Clipping(name, _copied(own.grid(weight)), own.take, counted))
    return found


def least_norm(clipping: Clipping, p: float) -> float:
    """By what the range is multiplied where the p-norm of the tensor's own rounding error is least; 1 where nothing is
    known of its values. Of several channels all values count together, over their widest range."""
    if clipping.values is None:
        return 1.0
    values, counts = clipping.values.middles.float(), clipping.values.counts
    grid = Grid(clipping.grid.scale.max().cpu(), clipping.grid.zero_point.flatten()[:1].cpu(), *_ends(clipping.grid))
    best, least = 1.0, math.inf
    for step in range(_SHARES, 0, -1):
        share = step / _SHARES
        off = (stretched(grid, share, share).nearest(values) - values).abs().double()
        error = float((counts * off**p).sum())
        if error < least:
            best, least = share, error
    return max(best, _LEAST)


def best_norm(norms: Sequence[float], losses: Sequence[float]) -> float:
    """Where a parabola through these losses is lowest, within their range; the best of them where it has no lowest."""
    points = torch.tensor(list(norms), dtype=torch.float64)
    design = torch.stack([points**2, points, torch.ones_like(points)], dim=1)
    a, b, _ = torch.linalg.lstsq(design, torch.tensor(list(losses), dtype=torch.float64)[:, None]).solution[:, 0]
    if float(a) <= 0:
        return float(norms[min(range(len(losses)), key=lambda at: losses[at])])
    return float((-b / (2 * a)).clamp(min(norms), max(norms)))


@torch.no_grad()
def search_clipping(
    found: Sequence[Clipping],
    loss: Callable[[], float],
    init: str | float = "LP",
    method: str = "Powell",
    max_iterations: int | None = None,
    max_evaluations: int | None = None,
    both_ends: bool = False,
    basin_hops: int = 0,
) -> Search:
    """Search ranges for the least loss; they are set to the best that was seen.

    loss: of the network on calibration data, with the ranges as they are at that moment. init: where it begins: the p
    of each tensor's own error; ``LP``: the best p of several; ``NONE``: where the ranges are. both_ends: ranges with
    zero inside have a value on each side. basin_hops: how often it begins again somewhere near (basin hopping).

    Raises:
        ConfigError: the method or where it begins is not known, or there is nothing to search.
    """
    if not found:
        raise ConfigError(Fault("lapq", "has no ranges to search: it needs statistics, and bits below 32"))
    if method not in METHODS:
        raise ConfigError(Fault("lapq_method", f"must be one of {', '.join(METHODS)}", method))
    tried = _Tried(found, loss, both_ends)
    losses = {"before": tried([1.0] * tried.size)}
    if init == "LP":
        each = [tried(tried.vector(p)) for p in NORMS]
        p: float | None = best_norm(NORMS, each)
    elif isinstance(init, str) and init != "NONE":
        raise ConfigError(Fault("lapq_init_mode", "must be LP, NONE or a number, the p of a norm", init))
    else:
        p = None if init == "NONE" else float(init)
    start = [1.0] * tried.size if p is None else tried.vector(p)
    losses["each by itself"] = tried(start)
    start = tried.best
    if max_evaluations is None or tried.count < max_evaluations:
        _minimize(tried, start, method, max_iterations, max_evaluations, basin_hops)
    losses["together"] = tried(tried.best)
    return Search(tried.scales(tried.best), losses, tried.count)


class _Tried:
    """The loss as a function of what ranges are multiplied by; the best that was seen."""

    def __init__(self, found: Sequence[Clipping], loss: Callable[[], float], both_ends: bool) -> None:
        self.found, self._loss = found, loss
        self._sides = [2 if both_ends and clipping.two_sided else 1 for clipping in found]
        self.size, self.count = sum(self._sides), 0
        self.best, self.least = [1.0] * self.size, math.inf

    def vector(self, p: float) -> list[float]:
        each = [least_norm(clipping, p) for clipping in self.found]
        return [value for value, sides in zip(each, self._sides, strict=True) for _ in range(sides)]

    def scales(self, vector: Sequence[float]) -> dict[str, tuple[float, float]]:
        found, at = {}, 0
        for clipping, sides in zip(self.found, self._sides, strict=True):
            found[clipping.key] = (float(vector[at]), float(vector[at + sides - 1]))
            at += sides
        return found

    def __call__(self, vector: Sequence[float]) -> float:
        vector = [min(max(float(value), _LEAST), _MOST) for value in vector]
        for clipping, (below, above) in zip(self.found, self.scales(vector).values(), strict=True):
            clipping.take(stretched(clipping.grid, below, above))
        self.count += 1
        loss = self._loss()
        if math.isfinite(loss) and loss < self.least:
            self.best, self.least = list(vector), loss
        return loss if math.isfinite(loss) else 1e30


def _minimize(
    tried: _Tried, start: list[float], method: str, iterations: int | None, evaluations: int | None, hops: int
) -> None:
    from scipy import optimize  # a second to import, which nobody else has to wait for

    options: dict[str, Any] = {} if iterations is None else {"maxiter": iterations}
    if evaluations is not None:
        options["maxiter" if method == "COBYLA" else "maxfev"] = max(evaluations - tried.count, 1)
    bounds = [(_LEAST, _MOST)] * tried.size
    arguments = {"method": method, "options": options, "bounds": bounds}
    if hops:
        optimize.basinhopping(tried, start, niter=hops, stepsize=0.1, minimizer_kwargs=arguments, seed=0)
    else:
        optimize.minimize(tried, start, **arguments)


def _copied(grid: Grid) -> Grid:
    return replace(grid, scale=grid.scale.clone(), zero_point=grid.zero_point.clone())


def _ends(grid: Grid) -> tuple[int, int]:
    return grid.low, grid.high
