"""Searchers of Optuna: children come of their parents."""

from __future__ import annotations

from typing import Any

import pytest

from raydistill.search import Choice, LogUniform, QUniform, RandInt, Uniform
from raydistill.search.observations import Observation
from raydistill.search.searchers import GPSearcher, NSGA2Searcher, SobolSearcher, TPESearcher
from tests.search.spaces import space


@pytest.mark.slow
def test_children_of_nsga2_come_of_their_parents() -> None:
    """Most of a child's words are a parent's: parents know only two of five, and chance would take the others too."""
    over = space(*[Choice(("a", "b", "c", "d", "e"))] * 10)
    seen = [
        Observation(i, {d.path: "ab"[(i >> k) % 2] for k, d in enumerate(over.dimensions)}, {1: (i, -i)}, True)
        for i in range(8)
    ]
    words = [
        word
        for trial in range(8, 14)
        for word in NSGA2Searcher(over, 0, startup=8, population=8).suggest(trial, seen, [1]).values()
    ]
    assert sum(word in "ab" for word in words) > 0.8 * len(words)  # 0.4 by chance; 0.94 with a mutation in ten


KINDS = space(Uniform(0.1, 0.9), LogUniform(1e-3, 1), QUniform(0.1, 0.5, 0.1), RandInt(2, 5), Choice(("a", True, 1)))
PATHS = [d.path for d in KINDS.dimensions]


def heard(kind: type, end: str, seen: list[Observation], **more: int) -> tuple[Any, dict[str, Any], dict[str, Any]]:
    """What a sampler of this searcher hears: the study, the distributions by name; and what is made of its answers, the
    first or the last value that there is."""
    import optuna

    studies, kinds = [], {}

    class Ear(optuna.samplers.BaseSampler):
        def infer_relative_search_space(self, study: Any, trial: Any) -> dict:
            studies.append(study)
            return {}

        def sample_relative(self, study: Any, trial: Any, search_space: Any) -> dict:
            return {}

        def sample_independent(self, study: Any, trial: Any, name: str, distribution: Any) -> Any:
            kinds[name] = distribution
            if isinstance(distribution, optuna.distributions.CategoricalDistribution):
                return distribution.choices[0 if end == "low" else -1]
            return getattr(distribution, end)

    class Listening(kind):  # type: ignore[misc]
        def _sampler(self, seed: int) -> Any:
            return Ear()

    values = Listening(KINDS, 0, startup=2, **more).suggest(4, seen, [1, 4])
    return studies[0], kinds, dict(values)


SEEN = [
    Observation(0, dict(zip(PATHS, (0.1, 0.01, 0.3, 2, "a"), strict=True)), {1: (0.4, 9), 4: (0.5, 7)}, True),
    Observation(1, dict(zip(PATHS, (5.0, 0.0, 0.9, 40, "unknown"), strict=True)), {4: (0.25, 3)}, True),
    Observation(2, dict(zip(PATHS, (0.9, 1.0, 0.5, 4, 1), strict=True)), {1: (0.1, 1)}, True),  # stopped before
    Observation(3, dict(zip(PATHS, (0.9, 1.0, 0.5, 4, True), strict=True)), {1: (0.1, 1)}),  # runs
]


@pytest.mark.parametrize("end", ["low", "high"])
def test_what_is_drawn_comes_from_end_to_end(end: str) -> None:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    _, kinds, values = heard(TPESearcher, end, SEEN)
    assert list(kinds.values()) == [
        FloatDistribution(0.1, 0.9), FloatDistribution(1e-3, 1.0, log=True), IntDistribution(1, 5),
        IntDistribution(2, 4), CategoricalDistribution((0, 1, 2)),
    ]  # fmt: skip
    assert list(values.values()) == ([0.1, 1e-3, 0.1, 2, "a"] if end == "low" else [0.9, 1.0, 0.5, 4, 1])
    assert [type(value) for value in values.values()] == [float, float, float, int, str if end == "low" else int]


@pytest.mark.parametrize("kind", [TPESearcher, GPSearcher])
def test_models_are_told_of_what_is_comparable_and_of_what_runs(kind: type) -> None:
    study, _, _ = heard(kind, "low", SEEN)
    told = study.get_trials(deepcopy=False)[:-1]  # the last is the one that is asked for
    assert [trial.state.name for trial in told] == ["COMPLETE", "COMPLETE", "RUNNING"]
    assert [trial.values for trial in told] == [[0.5, 7.0], [0.25, 3.0], None]
    assert [direction.name for direction in study.directions] == ["MAXIMIZE", "MAXIMIZE"]
    assert [list(trial.params.values()) for trial in told] == [
        [0.1, pytest.approx(0.01), 3, 2, 0],
        [0.9, pytest.approx(1e-3), 5, 4, 1],  # the nearest that can be drawn; of a word that is unknown the middle
        [0.9, 1.0, 5, 4, 1],
    ]


def test_generations_are_of_a_populations_size_and_what_runs_is_in_none() -> None:
    from optuna.samplers import NSGAIISampler

    more = [Observation(5 + i, SEEN[0].values, {4: (0.1, i)}, True) for i in range(3)]
    study, _, _ = heard(NSGA2Searcher, "low", [*SEEN, *more], population=2)
    told = study.get_trials(deepcopy=False)[:-1]
    key = NSGAIISampler._get_generation_key()
    assert [trial.system_attrs[key] for trial in told] == [0, 0, 1, 1, 2]
    assert {trial.state.name for trial in told} == {"COMPLETE"}


def test_ten_trials_are_drawn_evenly_before_there_is_a_model() -> None:
    seen = [Observation(i, SEEN[0].values, {4: (0.1, i)}, True) for i in range(9)]
    for kind in (TPESearcher, GPSearcher, NSGA2Searcher):
        searcher = kind(KINDS, 3)
        assert searcher.startup == 10
        assert searcher.suggest(9, seen, [4]) == SobolSearcher(KINDS, 3).suggest(9, (), ())
