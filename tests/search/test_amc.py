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


def alone(share: float, episodes: int = 3, low: float = 0.0, high: float = 0.95, **settings) -> tuple[list, list]:  # type: ignore[no-untyped-def,type-arg]
    """A network of one layer of 10 that brings `share` of what its level says: the levels, and what was drawn."""
    wanted = Settings(**{
        "agent": "Random-policy", "target": 6.0, "heatup_episodes": episodes, "training_episodes": 0,
        "action_range": (0.0, 0.95), "seed": 1, **settings,
    })  # fmt: skip
    layer = Layer((1.0,), 10.0, low, high)

    def judge(levels: Levels) -> tuple[float, float]:
        return 0.5, -10.0 + share * 10 * levels[0]

    meaning = Meaning(-10.0, lambda figure: -figure, True)
    found = run_episodes([layer], wanted, meaning, judge, lambda episode: None)
    drawn = np.random.default_rng(wanted.seed).uniform(*wanted.action_range, size=episodes)
    return [episode.levels[0] for episode in found], list(drawn)


@pytest.mark.parametrize(
    ("share", "leasts"),
    [
        (0.8, (0.6, 0.6 / 0.792, 0.6 / (0.792 + 0.02 * 0.008))),  # missed, so at once and a little more; then kept
        (1.0, (0.6, 0.6, 0.6)),
        (3.0, (0.6, 0.6 / 1.02, 0.6 / (1.02 + 0.02 * 0.98))),  # twice as much is the most that is believed, slowly
        (0.1, (0.6, 0.95, 0.95)),
        (-1.0, (0.6, 0.6, 0.6)),  # it grew: that says nothing
    ],
)
def test_what_was_brought_together_says_how_far_the_next_has_to_go(share: float, leasts: tuple[float, ...]) -> None:
    for seed in range(4):
        levels, drawn = alone(share, seed=seed)
        missed = share * max(drawn[0], 0.6) < 0.6 or share in (1.0, 3.0, -1.0)
        if missed:
            assert levels == pytest.approx([max(each, least) for each, least in zip(drawn, leasts, strict=True)])
    assert sum(max(alone(share, seed=seed)[1][0], 0.6) < 0.75 for seed in range(4)) >= 2


def test_a_fifth_of_what_was_meant_is_the_least_that_is_believed() -> None:
    levels, drawn = alone(0.1, target=1.0)
    assert levels[:2] == pytest.approx([max(drawn[0], 0.1), max(drawn[1], min(0.1 / 0.198, 0.95))])


def test_no_layer_goes_beyond_its_own_ends() -> None:
    within, _ = alone(1.0, 20, 0.3, 0.5, target=None)
    assert (min(within), max(within)) == (0.3, 0.5)
    assert len(set(within)) > 2
    assert set(alone(1.0, 5, 0.3, 0.5, action_range=(0.6, 0.7), target=None)[0]) == {0.5}
    assert set(alone(1.0, 5, 0.3, 0.5, action_range=(0.0, 0.2), target=None)[0]) == {0.3}
    assert set(alone(1.0, 5, 0.3, 0.5)[0]) == {0.5}  # not even for the budget


@pytest.mark.parametrize(
    ("is_fraction", "metric", "figure", "protocol", "reward"),
    [
        (True, 0.7, -60.0, "mac-constrained", 0.7),  # just what is asked for
        (True, 0.7, -60.5, "punish-agent", -0.005),
        (False, -3.0, -60.0, "punish-agent", 0.25),
        (False, math.nan, -50.0, "punish-agent", 1 / (1 + 1e6)),
        (True, math.inf, -50.0, "punish-agent", 0.0),
        (True, 0.7, -50.0, "accuracy-guaranteed", -0.3 * math.log(50.0)),
        (False, -3.0, -50.0, "accuracy-guaranteed", -3 * math.log(50.0)),
        (True, 0.7, -2.0, "accuracy-guaranteed", -0.3),  # below e a smaller cost is worth no more
        (True, math.nan, -2.0, "accuracy-guaranteed", -1.0),
    ],
)
def test_rewards_by_hand(is_fraction: bool, metric: float, figure: float, protocol: str, reward: float) -> None:
    settings = Settings(protocol, "Random-policy", 1, 0, target=40.0)
    meaning = Meaning(-100.0, lambda figure: -figure, is_fraction)
    heard: list[Episode] = []
    found = run_episodes(LAYERS, settings, meaning, lambda levels: (metric, figure), heard.append)
    assert found == heard
    assert found[0].reward == pytest.approx(reward)
    assert found[0].figure == figure


def test_without_a_target_whatever_shrinks_is_worth_its_metric() -> None:
    for figure, reward in ((-100.0, 0.7), (-101.0, -0.01)):
        settings = Settings(agent="Random-policy", heatup_episodes=1, training_episodes=0)
        assert run_episodes(LAYERS, settings, MEANING, lambda levels, f=figure: (0.7, f), lambda e: None)[
            0
        ].reward == pytest.approx(reward)
    assert Settings().episodes == 100


def test_what_an_agent_sees_of_the_network() -> None:
    """Section 3.1: which layer, its features over the largest, what is gone, what is still to come, the last action."""
    pytest.importorskip("gymnasium")
    settings = Settings(target=None, action_range=(0.1, 0.8))
    search = amc._Search(LAYERS, settings, MEANING, judged, lambda episode: None)
    network = amc._environment(search)
    assert network.action_space.low.tolist() == pytest.approx([0.1])
    assert network.action_space.high.tolist() == pytest.approx([0.8])
    seen, _ = network.reset()
    features = [8 / 16, 3 / 16, 1, 1, 1, 1, 1 / 3, 216 / 1152]
    assert seen == pytest.approx([0.0, *features, 0.0, 0.5, 0.0])
    assert network.observation_space.contains(seen)
    seen, reward, ended, _, told = network.step(np.array([0.5]))
    features = [1, 8 / 16, 0.5, 0.5, 1, 1, 1, 1]
    assert seen == pytest.approx([1 / 3, *features, 0.25, 0.125, 0.5])
    assert (reward, ended, told) == (0.0, False, {"carried_out": 0.5})
    network.step(np.array([0.9]))
    seen, reward, ended, _, told = network.step(np.array([0.0]))
    features = [10 / 16, 1, 1 / 32, 1 / 32, 0, 1 / 3, 1 / 30, 160 / 1152]
    assert seen == pytest.approx([2 / 3, *features, (20 + 24 + 1) / 80, 0.0, 0.1])
    assert (ended, told) == (True, {"carried_out": pytest.approx(0.1)})
    assert search.episodes == [Episode((0.5, 0.8, 0.1), reward, judged((0.5, 0.8, 0.1))[1], reward)]
    assert network.reset()[0][0] == 0.0
    assert network.step(np.array([0.3]))[2] is False
