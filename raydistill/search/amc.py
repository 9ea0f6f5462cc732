"""AMC: an agent goes through a network layer by layer and says how far each is pruned; nothing is trained meanwhile.

After He et al. 2018, "AMC: AutoML for Model Compression and Acceleration on Mobile Devices" (arXiv 1802.03494): the
states of its section 3.1, DDPG (Lillicrap et al. 2015, arXiv 1509.02971) with a baseline for its rewards (section 3.2)
and the decaying noise of its section 4, rewards and the bounded action of section 3.3. Protocols have Distiller's
names. The agent is stable-baselines3's; with agent ``Random-policy`` every action is drawn evenly: the baseline beside
it.

An episode is one allocation. `run_episodes` asks for its figures through `Judge` and is a function of the seed and the
answers: told the answers that it had before, it goes on as if it had never stopped.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from raydistill.errors import ABSENT, ConfigError, Fault

if TYPE_CHECKING:
    import gymnasium

MAC_CONSTRAINED, ACCURACY_GUARANTEED, PUNISH_AGENT = PROTOCOLS = (
    "mac-constrained", "accuracy-guaranteed", "punish-agent",
)  # fmt: skip
DDPG, RANDOM = AGENTS = ("DDPG", "Random-policy")
_HIDDEN = [300, 300]
_NOISE, _DECAY = 0.5, 0.95
"""Standard deviation of what is added to an action, in shares of its range, and what an episode leaves of it."""
_LATELY = 0.05
"""How fast the reward that is usual follows the rewards of episodes."""
_ACTORS = 0.1
"""The actor's learning rate, over the critic's."""
_CARRIED_OUT = "carried_out"

Levels = tuple[float, ...]
Judge = Callable[[Levels], tuple[float, float]]
"""Levels to (the metric, the figure of the network), both the larger, the better."""


@dataclass(frozen=True)
class Layer:
    """A step of an episode. features: numbers of outputs and inputs, height and width of what it reads, stride, kernel,
    MACs, weights. size: what a level of 1 brings in the figure of the network. low, high: ends of its level."""

    features: tuple[float, ...]
    size: float
    low: float
    high: float


@dataclass(frozen=True)
class Settings:
    """protocol: one of `PROTOCOLS`. agent: one of `AGENTS`. heatup_episodes: drawn evenly before the agent acts.
    action_range: no layer is pruned less or more. target: by how much the figure has to grow; None: as it likes."""

    protocol: str = MAC_CONSTRAINED
    agent: str = DDPG
    heatup_episodes: int = 20
    training_episodes: int = 80
    action_range: tuple[float, float] = (0.0, 0.8)
    target: float | None = None
    seed: int = 0

    @property
    def episodes(self) -> int:
        return self.heatup_episodes + self.training_episodes


@dataclass(frozen=True)
class Meaning:
    """What the two figures mean. dense: the figure of the network before. cost: a figure to what it costs (MACs,
    weights), a number above 1. is_fraction: whether 1 is the best that the metric can be."""

    dense: float
    cost: Callable[[float], float]
    is_fraction: bool


@dataclass(frozen=True)
class Episode:
    levels: Levels
    metric: float
    figure: float
    reward: float


@dataclass
class _Search:
    layers: Sequence[Layer]
    settings: Settings
    meaning: Meaning
    judge: Judge
    told: Callable[[Episode], None]
    episodes: list[Episode] = field(default_factory=list)
    together: float = 1.0
    """What the layers of an episode have brought together, over the sum of what each brings by itself."""

    def bounded(self, done: Sequence[float], action: float) -> float:
        """The action within its range; with a budget to keep, no lower than what the layers behind it could not make
        up for (section 3.3, algorithm 1)."""
        layer = self.layers[len(done)]
        low, high = self._range(layer)
        if self.settings.protocol == MAC_CONSTRAINED and self.settings.target is not None:
            reduced = sum(level * each.size for level, each in zip(done, self.layers, strict=False))
            rest = sum(self._range(each)[1] * each.size for each in self.layers[len(done) + 1 :])
            duty = self.settings.target / self.together - reduced - rest
            action = max(action, duty / max(layer.size, 1e-12))
        return float(min(max(action, low), high))

    def _range(self, layer: Layer) -> tuple[float, float]:
        low, high = self.settings.action_range
        return min(max(low, layer.low), layer.high), max(min(high, layer.high), layer.low)

    def finish(self, levels: Levels) -> float:
        """The reward of an episode."""
        metric, figure = self.judge(levels)
        gained = figure - self.meaning.dense
        alone = sum(level * layer.size for level, layer in zip(levels, self.layers, strict=True))
        if alone > 0.0 and gained > 0.0:
            self._learn_together(min(max(gained / alone, 0.2), 2.0), gained < (self.settings.target or 0.0))
        reward = self._reward(metric, figure, gained)
        self.episodes.append(Episode(levels, metric, figure, reward))
        self.told(self.episodes[-1])
        return reward

    def _learn_together(self, found: float, missed: bool) -> None:
        """Layers bring less beside each other than by themselves, and whole structures less than their level says. What
        misses the budget counts at once, what keeps it slowly."""
        if missed:
            self.together = 0.99 * min(self.together, found)
        else:
            self.together += 0.02 * (found - self.together)

    def _reward(self, metric: float, figure: float, gained: float) -> float:
        if not math.isfinite(metric):
            metric = 0.0 if self.meaning.is_fraction else -1e6
        if self.settings.protocol == ACCURACY_GUARANTEED:
            error = 1.0 - metric if self.meaning.is_fraction else -metric
            return -error * math.log(max(self.meaning.cost(figure), math.e))
        target = self.settings.target or 0.0
        if gained < target * (1.0 - 1e-9):
            whole = self.meaning.cost(self.meaning.dense)
            return (self.meaning.cost(self.meaning.dense + target) - self.meaning.cost(figure)) / whole
        return metric if self.meaning.is_fraction else 1.0 / (1.0 - metric)


def run_episodes(
    layers: Sequence[Layer], settings: Settings, meaning: Meaning, judge: Judge, told: Callable[[Episode], None]
) -> list[Episode]:
    """All episodes, in their order. told: hears of each as it ends.

    Raises:
        ConfigError: stable-baselines3 is not installed. Whatever `judge` raises.
    """
    search = _Search(layers, settings, meaning, judge, told)
    if settings.agent == RANDOM:
        rng = np.random.default_rng(settings.seed)
        for _ in range(settings.episodes):
            levels: list[float] = []
            for _layer in layers:
                levels.append(search.bounded(levels, float(rng.uniform(*settings.action_range))))
            search.finish(tuple(levels))
        return search.episodes
    _learn(search)
    return search.episodes


def _learn(search: _Search) -> None:
    try:
        import stable_baselines3
        from stable_baselines3.common.noise import ActionNoise
    except ImportError as error:
        way_out = "pip install 'raydistill[amc]', or agent: Random-policy"
        raise ConfigError(Fault("searcher", "amc needs stable-baselines3", ABSENT, way_out)) from error
    import torch

    settings, steps = search.settings, len(search.layers)
    rng = np.random.default_rng(settings.seed)

    class Fading(ActionNoise):  # type: ignore[misc]  # stable-baselines3 has types, but is not always there
        """Normal noise that an episode of the agent's own leaves less of."""

        def __call__(self) -> np.ndarray:
            acted = max(0, len(search.episodes) - settings.heatup_episodes)
            return rng.normal(0.0, 2.0 * _NOISE * _DECAY**acted, 1).astype(np.float32)  # of a range from -1 to 1

    class Agent(stable_baselines3.DDPG):  # type: ignore[misc]
        """Every step of an episode is worth the episode's reward, less what episodes were worth lately; and it learns
        from the actions that were carried out: where many that it may ask for come to the same, it would see no
        difference between them."""

        waiting: tuple[tuple[Any, ...], ...] = ()
        usual: float | None = None

        def _store_transition(self, buffer: Any, action: Any, seen: Any, reward: Any, dones: Any, infos: Any) -> None:
            done = self.policy.scale_action(np.array([[info[_CARRIED_OUT]] for info in infos], dtype=np.float32))
            self.waiting = (*self.waiting, (self._last_obs, done, seen, dones, infos))
            self._last_obs = seen
            if not dones[0]:
                return
            better = reward - (reward[0] if self.usual is None else self.usual)
            self.usual = float(reward[0]) if self.usual is None else self.usual + _LATELY * float(better[0])
            for before, acted, after, ended, told in self.waiting:
                self._last_obs = before
                super()._store_transition(buffer, acted, after, better, ended, told)
            self.waiting = ()

        def _update_learning_rate(self, optimizers: Any) -> None:
            super()._update_learning_rate(optimizers)
            for group in self.actor.optimizer.param_groups:
                group["lr"] *= _ACTORS

    state = torch.get_rng_state()
    try:
        agent = Agent(
            "MlpPolicy",
            _environment(search),
            learning_rate=1e-3,
            gamma=1.0,
            tau=0.01,
            batch_size=64,
            buffer_size=max(2000, 100 * steps),
            learning_starts=settings.heatup_episodes * steps,
            train_freq=(1, "step"),
            gradient_steps=1,
            action_noise=Fading(),
            policy_kwargs={"net_arch": _HIDDEN},
            seed=settings.seed,
            device="cpu",
        )
        agent.learn(total_timesteps=settings.episodes * steps)
    finally:
        torch.set_rng_state(state)


def _environment(search: _Search) -> gymnasium.Env[Any, Any]:
    import gymnasium

    layers, (low, high) = search.layers, search.settings.action_range
    described = np.array([layer.features for layer in layers], dtype=np.float64).reshape(len(layers), -1)
    described = described / np.maximum(np.abs(described).max(axis=0), 1e-12)
    sizes = np.array([layer.size for layer in layers])
    whole = max(float(sizes.sum()), 1e-12)
    width = described.shape[1] + 4

    class Network(gymnasium.Env[Any, Any]):
        """Observations: which layer, its features, what is gone, what is still to come, the last action."""

        action_space = gymnasium.spaces.Box(low, high, (1,), np.float32)
        observation_space = gymnasium.spaces.Box(-1.0, 2.0, (width,), np.float32)

        def __init__(self) -> None:
            self.levels: list[float] = []

        def _seen(self) -> np.ndarray:
            step = min(len(self.levels), len(layers) - 1)
            gone = float(np.dot(self.levels, sizes[: len(self.levels)])) / whole
            rest = float(sizes[step + 1 :].sum()) / whole
            last = self.levels[-1] if self.levels else 0.0
            return np.array([step / len(layers), *described[step], gone, rest, last], dtype=np.float32)

        def reset(
            self, *, seed: int | None = None, options: dict[str, Any] | None = None
        ) -> tuple[Any, dict[str, Any]]:
            super().reset(seed=seed)
            self.levels = []
            return self._seen(), {}

        def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
            self.levels.append(search.bounded(self.levels, float(np.reshape(action, -1)[0])))
            ended = len(self.levels) == len(layers)
            reward = search.finish(tuple(self.levels)) if ended else 0.0
            return self._seen(), reward, ended, False, {_CARRIED_OUT: self.levels[-1]}

    return Network()


def ranked(episodes: Sequence[Episode]) -> list[Episode]:
    """The best rewards first, each allocation once; of equal ones the earlier."""
    found: dict[Levels, Episode] = {}
    for episode in sorted(episodes, key=lambda each: -each.reward):
        found.setdefault(tuple(round(level, 3) for level in episode.levels), episode)
    return list(found.values())
