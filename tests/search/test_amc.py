"""AMC's episodes: bounded actions and rewards by hand, an agent that learns, and one that goes on where it was."""

from __future__ import annotations

import math

import numpy as np
import pytest

from raydistill.search import amc
from raydistill.search.amc import Episode, Layer, Levels, Meaning, Settings, ranked, run_episodes

LAYERS = [
    Layer((8, 3, 32, 32, 1, 3, 100.0, 216), 40.0, 0.0, 0.95),
    Layer((16, 8, 16, 16, 1, 3, 300.0, 1152), 30.0, 0.0, 0.95),
    Layer((10, 16, 1, 1, 0, 1, 10.0, 160), 10.0, 0.0, 0.95),
]
MEANING = Meaning(dense=-100.0, cost=lambda figure: -figure, is_fraction=True)


def judged(levels: Levels) -> tuple[float, float]:
    """The first layer bears all, the second nothing; what stays of 100 is what the levels leave."""
    return 0.9 - 0.6 * levels[1] ** 2 - 0.02 * levels[0], -(100.0 - 40 * levels[0] - 30 * levels[1] - 10 * levels[2])


def played(judge=judged, told=None, **settings) -> list[Episode]:  # type: ignore[no-untyped-def]
    wanted = Settings(**{"target": 40.0, "heatup_episodes": 5, "training_episodes": 5, **settings})
    return run_episodes(LAYERS, wanted, MEANING, judge, told or (lambda episode: None))


@pytest.mark.slow
@pytest.mark.parametrize("agent", amc.AGENTS)
def test_every_allocation_keeps_the_budget_where_that_is_asked_for(agent: str) -> None:
    """40 of 80 x 0.8 = 64 have to go: 24 of them at least with the first layer, as the others bring 32 at most."""
    found = played(agent=agent, protocol="mac-constrained")
    assert len(found) == 10
    for episode in found:
        first, second, third = episode.levels
        assert max(episode.levels) <= 0.8 + 1e-6
        assert 40 * first >= 40 - 0.8 * 40 - 1e-5
        assert 40 * first + 30 * second + 10 * third >= 40 - 1e-4
        assert episode.reward == episode.metric == judged(episode.levels)[0]
    assert len({episode.levels for episode in found}) >= 4  # many end at the ends of what is left


def test_what_breaks_the_budget_is_punished_by_how_much() -> None:
    """It has 1 - 0.4 of the dense network's, what is over that counts."""
    for episode in played(agent="Random-policy", protocol="punish-agent"):
        over = -episode.figure / 100 - 0.6
        assert episode.reward == pytest.approx(-over if over > 0 else episode.metric)


def test_without_a_budget_accuracy_is_weighed_against_the_logarithm_of_the_cost() -> None:
    for episode in played(agent="Random-policy", protocol="accuracy-guaranteed", target=None):
        assert episode.reward == pytest.approx(-(1 - episode.metric) * math.log(-episode.figure))


def test_layers_that_bring_less_together_are_pruned_further_from_then_on() -> None:
    """All bring half of what each does by itself: the budget is kept by the later episodes."""

    def half(levels: Levels) -> tuple[float, float]:
        metric, figure = judged(levels)
        return metric, -100.0 + (figure + 100.0) / 2

    found = played(half, agent="Random-policy", heatup_episodes=30, target=20.0)
    kept = [episode.figure >= -80.0 for episode in found]
    assert not all(kept[:10])
    assert all(kept[-15:])
    assert min(episode.figure for episode in found[-15:]) < -78.0  # and not by far more than is needed


def test_whole_structures_that_bring_less_than_their_level_are_made_up_for() -> None:
    """Of eight structures a layer: 0.56 is four of them."""

    def floored(levels: Levels) -> tuple[float, float]:
        return judged(tuple(math.floor(level * 8) / 8 for level in levels))

    found = played(floored, agent="Random-policy", heatup_episodes=60)
    assert sum(episode.figure >= -60.0 for episode in found[-30:]) >= 25


@pytest.mark.slow
def test_the_agent_learns_which_layer_bears_pruning() -> None:
    """Against as many random allocations of the same budget."""
    settings = {"heatup_episodes": 30, "training_episodes": 120, "protocol": "mac-constrained"}
    learned, drawn = (played(agent=agent, **settings) for agent in amc.AGENTS)
    late = [np.mean([episode.reward for episode in found[-30:]]) for found in (learned, drawn)]
    assert late[0] > late[1] + 0.05
    assert max(episode.reward for episode in learned) >= max(episode.reward for episode in drawn) - 1e-3


@pytest.mark.slow
@pytest.mark.parametrize("agent", amc.AGENTS)
def test_told_the_answers_that_it_had_it_goes_on_where_it_was(agent: str) -> None:
    whole = played(agent=agent)
    known = {episode.levels: (episode.metric, episode.figure) for episode in whole[:6]}
    asked: list[Levels] = []

    def again(levels: Levels) -> tuple[float, float]:
        if levels not in known:
            asked.append(levels)
        return known.get(levels) or judged(levels)

    assert played(again, agent=agent) == whole
    assert asked == [episode.levels for episode in whole[6:] if episode.levels not in known]
    assert played(agent=agent, seed=1) != whole


def test_a_network_that_gives_no_number_is_the_worst() -> None:
    found = played(lambda levels: (math.nan, judged(levels)[1]), agent="Random-policy")
    assert {episode.reward for episode in found} == {0.0}


def test_the_best_come_first_and_each_once() -> None:
    episodes = [
        Episode((level, 0.2), reward, -1.0, reward)
        for level, reward in ((0.1, 0.5), (0.3, 0.9), (0.30001, 0.9), (0.5, 0.7))
    ]
    assert [episode.levels for episode in ranked(episodes)] == [(0.3, 0.2), (0.5, 0.2), (0.1, 0.2)]


def test_without_the_extra_it_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "stable_baselines3", None)
    with pytest.raises(
        amc.ConfigError, match=r"amc needs stable-baselines3; pip install 'raydistill\[amc\]', or agent"
    ):
        played(agent="DDPG")
