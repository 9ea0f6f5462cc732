"""Optuna's samplers: the tree-structured Parzen estimator, Gaussian processes and NSGA-II.

TPE: Bergstra et al. 2011, "Algorithms for Hyper-Parameter Optimization" (NeurIPS 24); multi-objective: Ozaki et al.
2020 (GECCO). Gaussian processes: Ament et al. 2023 (arXiv 2310.20708) with expected hypervolume improvement. NSGA-II:
Deb et al. 2002 (IEEE Transactions on Evolutionary Computation 6).

Each suggestion comes of a study made anew from what was seen, by a sampler seeded for this one trial: nothing has to be
saved with a sweep, and a model is made of trials compared at one stage (see `observations.comparable`).
"""

from __future__ import annotations

import copy
import functools
import warnings
from collections.abc import Mapping, Sequence

import numpy as np

from raydistill.records import Scalar
from raydistill.search.distributions import Choice, Distribution, LogUniform, QUniform, RandInt, Uniform
from raydistill.search.observations import Observation, comparable
from raydistill.search.searchers.base import Searcher, generator
from raydistill.search.searchers.sobol import SobolSearcher
from raydistill.search.space import SearchSpace


class _OptunaSearcher(Searcher):
    """startup: trials drawn from a Sobol sequence before there is a model."""

    def __init__(self, space: SearchSpace, seed: int, startup: int = 10) -> None:
        self._space, self._seed, self.startup = space, seed, startup
        self._first = SobolSearcher(space, seed)
        self._made: dict[object, object] = {}  # Optuna's trials of what was seen: a cache, no state

    def suggest(self, trial: int, seen: Sequence[Observation], stages: Sequence[int]) -> Mapping[str, Scalar]:
        usable = comparable(seen, stages, self.startup)
        if not usable:
            return self._first.suggest(trial, seen, stages)
        import optuna  # takes most of a second, and most sweeps do without

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that an option is experimental is not the user's concern
            study = optuna.create_study(
                directions=["maximize"] * len(usable[0][1]),
                sampler=self._sampler(int(generator(self._seed, trial).integers(2**31))),
            )
            distributions = {d.path: _as_optuna(d.distribution) for d in self._space.dimensions}
            study.add_trials(self._trials(usable, seen, distributions))
            asked = study.ask(distributions)
            return {d.path: _from_optuna(d.distribution, asked.params[d.path]) for d in self._space.dimensions}

    def _sampler(self, seed: int):  # type: ignore[no-untyped-def]
        raise NotImplementedError

    def _trials(  # type: ignore[no-untyped-def]
        self, usable: list[tuple[Observation, np.ndarray]], seen: Sequence[Observation], distributions: dict
    ) -> list:
        from optuna.trial import TrialState

        return [
            self._trial(observation, distributions, TrialState.COMPLETE, tuple(map(float, point)), place)
            for place, (observation, point) in enumerate(usable)
        ]

    def _attributes(self, place: int) -> dict[str, int]:
        return {}

    def _trial(  # type: ignore[no-untyped-def]
        self,
        observation: Observation,
        distributions: dict,
        state,
        values: tuple[float, ...] | None = None,
        place: int = 0,
    ):
        from optuna.trial import create_trial

        key = (observation.trial, state, values, place)
        if key not in self._made:
            made = create_trial(
                params={d.path: _to_optuna(d.distribution, observation.values[d.path]) for d in self._space.dimensions},
                distributions=distributions,
                state=state,
                values=values,
                system_attrs=self._attributes(place) if values is not None else {},
            )
            made.__class__ = _copied_lightly()
            self._made[key] = made
        return self._made[key]


class _AwareOfRunning(_OptunaSearcher):
    """Trials that still run are told of too, so that trials at once are not alike."""

    def _trials(  # type: ignore[no-untyped-def]
        self, usable: list[tuple[Observation, np.ndarray]], seen: Sequence[Observation], distributions: dict
    ) -> list:
        from optuna.trial import TrialState

        compared = {observation.trial for observation, _ in usable}
        running = [
            self._trial(o, distributions, TrialState.RUNNING) for o in seen if o.trial not in compared and not o.ended
        ]
        return [*super()._trials(usable, seen, distributions), *running]


class TPESearcher(_AwareOfRunning):
    """Running trials count as bad ones (Optuna's constant liar)."""

    def _sampler(self, seed: int):  # type: ignore[no-untyped-def]
        import optuna

        return optuna.samplers.TPESampler(seed=seed, n_startup_trials=0, multivariate=True, constant_liar=True)


class GPSearcher(_AwareOfRunning):
    """Bayesian optimisation: a Gaussian process an objective, the point that promises most hypervolume.

    Slower than the others (a fraction of a second a suggestion, growing with the trials); it needs the fewest trials.
    """

    def _sampler(self, seed: int):  # type: ignore[no-untyped-def]
        import optuna

        return optuna.samplers.GPSampler(seed=seed, n_startup_trials=0, deterministic_objective=False)


class NSGA2Searcher(_OptunaSearcher):
    """population: trials a generation; the first generation is `startup`'s."""

    def __init__(self, space: SearchSpace, seed: int, startup: int = 10, population: int = 10) -> None:
        super().__init__(space, seed, startup)
        self._population = population

    def _sampler(self, seed: int):  # type: ignore[no-untyped-def]
        import optuna

        return optuna.samplers.NSGAIISampler(seed=seed, population_size=self._population)

    def _attributes(self, place: int) -> dict[str, int]:
        """Trials make up generations in the order in which they were drawn."""
        from optuna.samplers import NSGAIISampler

        return {NSGAIISampler._get_generation_key(): place // self._population}


@functools.cache
def _copied_lightly() -> type:
    """Optuna's trial, of which a study does not copy every value: nobody changes them, and that is half of all time."""
    from optuna.trial import FrozenTrial

    class Given(FrozenTrial):
        def __deepcopy__(self, memo: dict) -> FrozenTrial:
            return copy.copy(self)

    return Given


def _as_optuna(distribution: Distribution):  # type: ignore[no-untyped-def]
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if isinstance(distribution, Uniform):
        return FloatDistribution(distribution.low, distribution.high)
    if isinstance(distribution, LogUniform):
        return FloatDistribution(distribution.low, distribution.high, log=True)
    if isinstance(distribution, QUniform):
        return IntDistribution(*distribution.steps)  # k of k * q: Optuna's own steps are counted from `low`
    if isinstance(distribution, RandInt):
        return IntDistribution(distribution.low, distribution.high - 1)
    return CategoricalDistribution(range(len(distribution.options)))


def _to_optuna(distribution: Distribution, value: Scalar) -> Scalar:
    """A warm start's value may lie outside; the nearest inside is what a model can hold."""
    inside = value if distribution.contains(value) else distribution.from_unit(distribution.to_unit(value))
    if isinstance(distribution, QUniform):
        return round(float(inside) / distribution.q)
    if isinstance(distribution, Choice):
        return int(distribution.to_unit(inside) * len(distribution.options))
    return inside


def _from_optuna(distribution: Distribution, drawn: Scalar) -> Scalar:
    if isinstance(distribution, QUniform):
        first, last = distribution.steps
        return distribution.from_unit((int(drawn) - first + 0.5) / (last - first + 1))
    if isinstance(distribution, Choice):
        return distribution.options[int(drawn)]
    return drawn
