"""The searcher that hands out AMC's allocations."""

from __future__ import annotations

import pytest

from raydistill.errors import ConfigError
from raydistill.search import Choice, Dimension, LogUniform, SearchSpace, Uniform
from raydistill.search.amc import Episode
from raydistill.search.searchers import Aim, AMCSearcher, SobolSearcher

SPACE = SearchSpace((
    Dimension("training.lr", LogUniform(0.01, 0.1)),
    Dimension("per_layer.a.weight.final_sparsity", Uniform(0.0, 0.9), "a.weight", "final_sparsity"),
    Dimension("per_layer.b.weight.final_sparsity", Choice((0.0, 0.25, 0.5)), "b.weight", "final_sparsity"),
))  # fmt: skip


def test_trials_are_the_best_episodes_in_values_that_can_be_drawn() -> None:
    searcher = AMCSearcher(SPACE, 0).with_curves({}, {"a.weight": 1.0}, Aim(figure=0.5))
    assert (searcher.sizes, searcher.aim.figure, searcher.suggest(0, (), ())) == ({"a.weight": 1.0}, 0.5, None)
    told = searcher.with_episodes([Episode((0.4, 0.3), 0.5, 0.0, 0.5), Episode((0.8, 0.45), 0.9, 0.0, 0.9)])
    first, second = (told.suggest(trial, (), ()) for trial in range(2))
    assert first is not None
    assert second is not None
    a, b = "per_layer.a.weight.final_sparsity", "per_layer.b.weight.final_sparsity"
    assert (first[a], first[b], second[a], second[b]) == (0.8, 0.5, 0.4, 0.25)
    assert first["training.lr"] != second["training.lr"]
    assert told.suggest(2, (), ()) is None
    assert searcher.suggest(0, (), ()) is None  # the one that was not told stays as it was
    assert told.values_of((0.8, 0.45))[b] == 0.5


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"protocol": "mac"}, "searcher.protocol: must be one of mac-constrained, accuracy-guaranteed, punish-agent"),
        ({"agent": "PPO"}, "searcher.agent: must be one of DDPG, Random-policy, got 'PPO'"),
        ({"action_range": [0.8, 0.2]}, "searcher.action_range: must be two fractions, the lower first"),
        ({"action_range": [0.0, 1.0]}, "searcher.action_range: must be two fractions, the lower first"),
    ],
)
def test_options_that_are_none(options: dict[str, object], line: str) -> None:
    with pytest.raises(ConfigError, match=f"^{line}"):
        AMCSearcher(SPACE, 0, **options)  # type: ignore[arg-type]


def test_only_without_a_budget_it_needs_no_bound() -> None:
    assert AMCSearcher(SPACE, 0).wants_bound
    assert AMCSearcher(SPACE, 0, protocol="punish-agent").wants_bound
    assert not AMCSearcher(SPACE, 0, protocol="accuracy-guaranteed").wants_bound


def test_what_is_searched_beside_levels_is_spread_evenly() -> None:
    told = AMCSearcher(SPACE, 5).with_episodes(
        [Episode((0.4, 0.3), 0.5, 0.0, 0.5), Episode((0.8, 0.45), 0.9, 0.0, 0.9)]
    )
    even = [SobolSearcher(SPACE, 5).suggest(trial, (), ())["training.lr"] for trial in range(2)]
    assert [(told.suggest(trial, (), ()) or {})["training.lr"] for trial in range(2)] == even
    assert told.values_of((0.4, 0.3))["training.lr"] == even[0]


def test_what_it_says_of_itself() -> None:
    usual = AMCSearcher(SPACE, 0)
    assert usual.how == "the best of 100 episodes without training (DDPG, mac-constrained)"
    assert (usual.settings.heatup_episodes, usual.settings.action_range) == (20, (0.0, 0.8))
    assert usual.wants_curves
    assert usual.keeps_bounds
    assert [dimension.weight for dimension in usual.dimensions] == ["a.weight", "b.weight"]
    shorter = AMCSearcher(SPACE, 7, "punish-agent", "Random-policy", 3, 4, [0.1, 0.5])
    assert shorter.how == "the best of 7 episodes without training (Random-policy, punish-agent)"
    assert (shorter.settings.seed, shorter.settings.action_range) == (7, (0.1, 0.5))


@pytest.mark.parametrize("ends", [(-0.1, 0.5), (0.3, 0.3), (0.5, 0.2), (0.0, 1.0)])
def test_a_range_of_actions_has_two_ends_within_what_can_be_pruned(ends: tuple[float, float]) -> None:
    with pytest.raises(ConfigError, match="two fractions, the lower first"):
        AMCSearcher(SPACE, 0, action_range=ends)
