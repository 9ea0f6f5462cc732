"""Gaussian processes of what trials came to, and the point that is expected to add the most hypervolume, by BoTorch.

Noisy expected hypervolume improvement: Daulton, Balandat, Bakshy 2021 (arXiv 2105.08195); its logarithm: Ament et al.
2023 (arXiv 2310.20708). For one objective it is noisy expected improvement.

Where layers' curves are told, the metric is a trend and a process around it: the dense network's, less the layers'
damages (`searchers.damages`) times one factor, both with a normal prior (Rasmussen and Williams 2006, section 2.7:
explicit basis functions), and a Matern process for all that damages do not explain. Where layers' sizes are told, the
figure of the network is what the layers bring in sum, and what that lacks at known trials between them: a deterministic
model, of which no noise is drawn.

Importing this imports BoTorch: a searcher does so when it needs it. Points lie in the unit cube, (n, dimensions);
outcomes are (n, objectives), the larger the better; tensors are of double precision, on the CPU.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from botorch.acquisition import qLogNoisyExpectedImprovement
from botorch.acquisition.multi_objective import logei, qLogNoisyExpectedHypervolumeImprovement
from botorch.acquisition.multi_objective.objective import GenericMCMultiOutputObjective
from botorch.exceptions import ModelFittingError
from botorch.fit import fit_gpytorch_mll
from botorch.generation.gen import gen_candidates_scipy
from botorch.models import ModelList, SingleTaskGP
from botorch.models.deterministic import DeterministicModel
from botorch.models.model import Model
from botorch.models.transforms.input import InputTransform
from botorch.models.transforms.outcome import Standardize
from botorch.sampling.get_sampler import get_sampler
from botorch.utils.multi_objective import infer_reference_point, is_non_dominated
from gpytorch.constraints import GreaterThan
from gpytorch.kernels import Kernel, MaternKernel, ScaleKernel
from gpytorch.likelihoods import FixedNoiseGaussianLikelihood
from gpytorch.means import Mean
from gpytorch.mlls import ExactMarginalLogLikelihood
from gpytorch.priors import LogNormalPrior
from torch import Tensor

_STARTS = 2
_SAMPLES = 32
_FEWER = 24
"""Monte Carlo samples with three objectives or more, whose boxes are many."""
_FIT = {"maxiter": 30}
_MOVE = {"maxiter": 8, "maxls": 5, "max_optimization_problem_aggregation_size": 1}
"""Few steps: tables have kinks, at which a line search would go on for long."""
_CHUNK = 128
"""Candidates that are judged at once."""
_NOISE = 0.05
"""Of a trial's metric, in units of what is accepted to be lost, before trials say it."""
_BEYOND = 0.2
"""Of what a trial lost: how far it may lie off the trend. Large ones add up to less, and would bend the rest."""
_DIFFERS = 0.5
"""Standard deviation of the factor around the trend's, as a share of it."""
_RESIDUAL = 0.05
"""Variance of what damages do not explain, in the same units squared, before trials say it."""
_DENSE = 0.6
"""Of the dense metric, in the same units."""
_REACH = 0.5
"""The length scale between known trials of what the sum of the layers lacks, for each root of a dimension."""

# BoTorch would compile a kernel of its own at the first suggestion: seconds, a compiler, and other last digits.
logei._load_attempted = True


@dataclass(frozen=True)
class Table:
    """A sum over layers of what is tabled on a grid of the unit interval. columns: the layers' dimensions. values:
    (layers, grid)."""

    columns: Sequence[int]
    values: np.ndarray

    def each(self, x: Tensor) -> Tensor:
        """(..., layers) of (..., dimensions): between two places of the grid the line that joins them."""
        table = torch.as_tensor(self.values, dtype=x.dtype)
        places = x[..., list(self.columns)].clamp(0.0, 1.0) * (table.shape[1] - 1)
        below = places.detach().floor().clamp(max=table.shape[1] - 2).long()
        rows = torch.arange(len(table)).expand_as(below)
        low, high = table[rows, below], table[rows, below + 1]
        return low + (high - low) * (places - below)


@dataclass(frozen=True)
class Trend:
    """What the metric is expected to be. dense: of the network that nothing is pruned of. slope: what it loses for each
    unit of damage. accepted: what may be lost, its unit. damage: see `Damages`."""

    dense: float
    slope: float
    accepted: float
    damage: Table


@dataclass(frozen=True)
class Known:
    """units: of trials, and points: (n, objectives) what they came to. running: of trials that nothing is known of.
    words: the number of options by dimension, where these have no order."""

    units: np.ndarray
    points: np.ndarray
    running: np.ndarray
    words: dict[int, int]


@dataclass(frozen=True)
class Figure:
    """One of the network, 1 for all of every layer by itself. gain: what each layer brings. known: (n,) what it is of
    the known trials. least: what has to be reached; -inf where nothing has."""

    gain: Table
    known: np.ndarray
    least: float


@dataclass(frozen=True)
class Told:
    """What is known besides trials. floor: the least that the metric may be. trend: of the first objective. figures:
    the second objective, and others that are bounded beside it; none where they have to be learned. more: what it is
    worth to be better than a bound asks for, over what it is worth to keep it."""

    floor: float = -np.inf
    trend: Trend | None = None
    figures: Sequence[Figure] = ()
    more: float = 1.0


@contextmanager
def reproducible(seed: int) -> Iterator[None]:
    """PyTorch's global random state is as before afterwards; no warnings of libraries."""
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings(record=True):
        warnings.simplefilter("ignore")  # and recorded, as BoTorch lets some of its own through
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would seed accelerators too
        yield


class Promise:
    """What a further trial is expected to add, given what is known."""

    def __init__(self, known: Known, told: Told, seed: int) -> None:
        self._seed = seed
        with reproducible(seed):
            units, points = (torch.as_tensor(each, dtype=torch.double) for each in (known.units, known.points))
            running = torch.as_tensor(known.running, dtype=torch.double)
            model, unit = _model(known, told, units, points)
            self._acquisition = _acquisition(model, told, points / unit, units, running, unit, seed)

    def of(self, units: np.ndarray) -> np.ndarray:
        """(n,): the logarithm of the expected gain of each."""
        if not len(units):
            return np.zeros(0)
        with reproducible(self._seed), torch.no_grad():
            parts = torch.as_tensor(units, dtype=torch.double).unsqueeze(-2).split(_CHUNK)
            found = torch.cat([self._acquisition(part) for part in parts]).numpy()
        return np.where(np.isfinite(found), found, -np.inf)

    def moved(self, units: np.ndarray, promise: np.ndarray, fixed: Sequence[int]) -> np.ndarray:
        """(a few, dimensions): the best of `units`, each moved to where it promises the most; `fixed` dimensions stay.
        promise: of `units`."""
        starts = torch.as_tensor(units[np.argsort(-promise, kind="stable")[:_STARTS]], dtype=torch.double)
        with reproducible(self._seed):
            found, _ = gen_candidates_scipy(
                starts.unsqueeze(-2),
                self._acquisition,
                0.0,
                1.0,
                options=_MOVE,
                fixed_features={column: starts[:, column] for column in fixed},
            )
        moved: np.ndarray = found.squeeze(-2).clamp(0.0, 1.0).numpy()
        return moved[np.isfinite(moved).all(axis=1)]


def _model(known: Known, told: Told, units: Tensor, points: Tensor) -> tuple[Model, Tensor]:
    """The model, and (objectives,) the units of its outcomes."""
    unit = torch.ones(points.shape[1], dtype=torch.double)
    learned = points[:, : 1 if told.figures else points.shape[1]].split(1, dim=1)
    models: list[Model] = []
    if told.trend is not None:
        unit[0] = told.trend.accepted
        features = _Features(known.words, units.shape[1], told.trend)
        models.append(_around(told.trend, features, units, learned[0] / unit[0]))
    for each in learned[len(models) :]:
        models.append(_plain(_Features(known.words, units.shape[1], None), units, each))
    if told.figures:
        models.append(_Figures(told.figures, units))
    return (ModelList(*models) if len(models) > 1 else models[0]), unit


def _acquisition(
    model: Model, told: Told, points: Tensor, units: Tensor, running: Tensor, unit: Tensor, seed: int
) -> Any:
    """points: in units of `unit`. BoTorch's acquisition function, of (n, 1, dimensions)."""
    pending = running if len(running) else None
    objectives = points.shape[1]
    samples = torch.Size([_SAMPLES if objectives < 3 else _FEWER])
    sampler = get_sampler(model.posterior(units[:1]), samples, seed=seed)
    if objectives == 1:
        return qLogNoisyExpectedImprovement(
            model, units, sampler=sampler, X_pending=pending, prune_baseline=len(units) > 1, cache_root=False
        )
    floors = [told.floor / float(unit[0]), *(figure.least for figure in told.figures)]
    bounds = {place: floor for place, floor in enumerate(floors) if np.isfinite(floor)}

    def weighed(outcomes: Tensor, X: Tensor | None = None) -> Tensor:
        """What lies beyond a bound counts less: the best that keeps it is wanted, not the far end of the front."""
        kept = list(outcomes[..., :objectives].unbind(-1))
        for place in bounds.keys() & range(objectives):
            kept[place] = kept[place] - (1.0 - told.more) * (kept[place] - bounds[place]).clamp(min=0.0)
        return torch.stack(kept, dim=-1)

    return qLogNoisyExpectedHypervolumeImprovement(
        model,
        _corner(told, points, floors[0]),
        units,
        sampler=sampler,
        objective=GenericMCMultiOutputObjective(weighed),
        constraints=[_kept(place, least) for place, least in bounds.items()] or None,
        X_pending=pending,
        prune_baseline=True,
        cache_root=False,
        alpha=0.0 if objectives < 4 else 10.0 ** (objectives - 6),
    )


def _kept(place: int, least: float) -> Callable[[Tensor], Tensor]:
    """What BoTorch takes for a constraint: it is kept where it is not above 0."""
    return lambda outcomes: least - outcomes[..., place]


def _corner(told: Told, points: Tensor, floor: float) -> Tensor:
    """(objectives,): what is worse than this in one of them is worth nothing."""
    front = points[is_non_dominated(points)]
    corner = torch.minimum(infer_reference_point(front), front.amin(dim=0) - 1e-6)
    if told.trend is not None:
        corner[0] = min(told.trend.dense / told.trend.accepted - 1.0, floor if np.isfinite(floor) else np.inf)
    elif np.isfinite(floor):
        corner[0] = min(float(corner[0]), floor)
    if told.figures:
        corner[1] = 0.0
    return corner


class _Features(InputTransform):
    """Points as kernels see them: dimensions, words as one column for each option, then what the trend is made of.

    near, damage: the columns of the first two, and of each layer's damage.
    """

    is_one_to_many = False

    def __init__(self, words: dict[int, int], dimensions: int, trend: Trend | None) -> None:
        super().__init__()
        self.transform_on_train = self.transform_on_eval = True
        self.transform_on_fantasize = True
        self._words, self._trend = words, trend
        self._ordered = [column for column in range(dimensions) if column not in words]
        near = len(self._ordered) + sum(words.values())
        layers = len(trend.damage.columns) if trend is not None else 0
        self.near, self.damage = tuple(range(near)), tuple(range(near, near + layers))

    def transform(self, X: Tensor) -> Tensor:
        parts = [X[..., self._ordered]]
        for column, options in self._words.items():
            chosen = (X[..., column].detach() * options).long().clamp(0, options - 1)
            parts.append(torch.nn.functional.one_hot(chosen, options).to(X) * 0.5**0.5)
        if self._trend is not None:
            parts.append(self._trend.damage.each(X))
        return torch.cat(parts, dim=-1)


class _Line(Mean):
    """The trend as it is before trials say more, in units of what is accepted."""

    def __init__(self, trend: Trend, damage: Sequence[int]) -> None:
        super().__init__()
        self._dense, self._slope = trend.dense / trend.accepted, trend.slope / trend.accepted
        self._damage = list(damage)

    def forward(self, x: Tensor) -> Tensor:
        return self._dense - self._slope * x[..., self._damage].sum(dim=-1)


class _Shared(Kernel):
    """Of the dense metric and the factor that all layers share, which are what they are before trials say more."""

    def __init__(self, dense: float, slope: float, damage: Sequence[int]) -> None:
        super().__init__()
        self._dense, self._slope, self._damage = dense, slope, list(damage)

    def forward(self, x1: Tensor, x2: Tensor, diag: bool = False, **params: Any) -> Tensor:
        one, other = (x[..., self._damage].sum(dim=-1) * self._slope for x in (x1, x2))
        if diag:
            return self._dense**2 + one * other
        return self._dense**2 + one.unsqueeze(-1) * other.unsqueeze(-2)


def _around(trend: Trend, features: _Features, units: Tensor, metric: Tensor) -> SingleTaskGP:
    """The metric, (n, 1), by a trend; both in units of what is accepted."""
    slope = trend.slope / trend.accepted
    lost = (trend.dense / trend.accepted - metric).clamp(min=0.0)
    shared = _Shared(_DENSE, _DIFFERS * slope, features.damage)
    size = len(features.near)
    near = ScaleKernel(
        MaternKernel(
            nu=2.5,
            active_dims=features.near,
            lengthscale_prior=LogNormalPrior(0.5 * float(np.log(size)), 1.0),
            lengthscale_constraint=GreaterThan(0.05),
        ),
        outputscale_prior=LogNormalPrior(float(np.log(_RESIDUAL)), 1.0),
    )
    near.outputscale, near.base_kernel.lengthscale = _RESIDUAL, size**0.5
    likelihood = FixedNoiseGaussianLikelihood((_BEYOND * lost.squeeze(-1)) ** 2 + 1e-6, learn_additional_noise=True)
    learned = likelihood.second_noise_covar
    learned.register_prior(
        "noise_prior", LogNormalPrior(2.0 * float(np.log(_NOISE)), 0.7), lambda m: m.noise, lambda m, v: None
    )
    likelihood.second_noise = _NOISE**2
    model = SingleTaskGP(
        units,
        metric,
        likelihood=likelihood,
        covar_module=shared + near,
        mean_module=_Line(trend, features.damage),
        outcome_transform=None,
        input_transform=features,
    )
    return _fitted(model.to(torch.double))


def _plain(features: _Features, units: Tensor, outcome: Tensor) -> SingleTaskGP:
    """An objective, (n, 1), by BoTorch's own priors."""
    standard = Standardize(m=1) if len(outcome) > 1 else None
    return _fitted(SingleTaskGP(units, outcome, outcome_transform=standard, input_transform=features))


def _fitted(model: SingleTaskGP) -> SingleTaskGP:
    likelihood = ExactMarginalLogLikelihood(model.likelihood, model)
    with suppress(ModelFittingError):  # no start led anywhere: what the priors say will do
        fit_gpytorch_mll(likelihood, optimizer_kwargs={"options": _FIT})
    return model.eval()


class _Figures(DeterministicModel):
    """Of each figure what the layers bring in sum, and between known trials what that lacks there."""

    def __init__(self, figures: Sequence[Figure], units: Tensor) -> None:
        super().__init__()
        self._num_outputs = len(figures)
        self._gains = [figure.gain for figure in figures]
        self._units = units
        lacking = torch.stack([torch.as_tensor(figure.known, dtype=torch.double) for figure in figures], dim=-1)
        lacking = lacking - self._sums(units)
        small = lacking.abs().amax(dim=0) < 1e-6
        lacking[:, small] = 0.0
        near = self._near(units) + 1e-4 * torch.eye(len(units), dtype=torch.double)
        self._weights = torch.linalg.solve(near, lacking) if not bool(small.all()) else None

    def forward(self, X: Tensor) -> Tensor:
        sums = self._sums(X)
        return sums if self._weights is None else sums + self._near(X) @ self._weights

    def _sums(self, x: Tensor) -> Tensor:
        return torch.stack([gain.each(x).sum(dim=-1) for gain in self._gains], dim=-1)

    def _near(self, x: Tensor) -> Tensor:
        apart = torch.cdist(x, self._units.expand(*x.shape[:-2], *self._units.shape))
        return torch.exp(-0.5 * (apart / (_REACH * x.shape[-1] ** 0.5)) ** 2)
