"""A pruner says what the masks of its weights are at a given moment; it keeps no model and no clock.

Most pruners are a composition: rate (how much) x ranking (which first) x granularity (what structure).
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from raydistill.compression.granularity import ELEMENT, Granularity, fault_of
from raydistill.compression.masks import MaskSet, pruned_count, smallest_mask
from raydistill.compression.rankings import L1, Ranking
from raydistill.compression.rates import PolicyTime, Rate
from raydistill.compression.structure import StructureChange
from raydistill.errors import ConfigError, Fault


@dataclass(frozen=True)
class Moment:
    """What a pruner may look at when it decides: the time, the masks so far, and its ranking's evidence.

    masks: by weight name, of the weight's shape; a weight without one is dense.
    evidence: by weight name; see `rankings` for what it is.
    """

    when: PolicyTime
    masks: Mapping[str, Tensor] = field(default_factory=dict)
    evidence: Mapping[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class Network:
    """The network of one pruning policy, as its pruner's hooks may change it.

    memory: tensors by the name of a parameter or buffer, to be remembered for later. They are the policy's: cut where
    the model is thinned, and part of a checkpoint.
    """

    model: nn.Module
    masks: MaskSet
    optimizer: Optimizer | None = None
    memory: dict[str, Tensor] = field(default_factory=dict)

    def remember(self, state: Mapping[str, Tensor]) -> None:
        """Put copies of these in place of all that was remembered."""
        self.memory.clear()
        self.memory.update((name, value.detach().clone()) for name, value in state.items())


class Pruner(ABC):
    """Base of all pruners. Each decision of a policy goes `before_masks`, `masks`, `after_masks`, without gradients.

    weights: names of the parameters it prunes, as the model spells them. everything_else: it also prunes every other
    weight of the model (a ``*`` in its arguments). evidence: what has to be gathered before it can decide; points: of
    feature maps, how many positions of each image and minibatch. releases: a decision may bring back weights that are
    pruned already, even those that another pruner has pruned. layer_by_layer: it decides in the order of the forward
    pass, from what each layer reads of calibration data; it is a `OneShotPruner` then. blocks: modules that its
    evidence is of, in place of weights.
    """

    evidence: str = "none"
    points: int = 0
    everything_else: bool = False
    releases: bool = True
    layer_by_layer: bool = False
    blocks: Sequence[str] = ()

    def __init__(self, name: str, weights: tuple[str, ...]) -> None:
        self.name = name
        self.weights = weights

    def select(self, model_weights: Iterable[str]) -> tuple[str, ...]:
        """Which of the model's parameters it prunes; `model_weights` are those of two or more dimensions."""
        if not self.everything_else:
            return self.weights
        return (*self.weights, *(name for name in model_weights if name not in self.weights))

    def bind(self, model: nn.Module, example_input: Sequence[object] | None) -> None:
        """The network that it is to prune, before anything else is asked; the place to set `weights`.

        Raises:
            ConfigError: it can prune nothing of this network.
        """
        del model, example_input

    def fault_of(self, weight_name: str, weight: Tensor) -> str:
        """What keeps it from pruning a weight of this shape; empty if nothing does."""
        return ""

    def faults_together(self, weights: Mapping[str, Tensor]) -> list[tuple[str, str]]:
        """What keeps it from pruning these weights with each other: a weight's name and the reason, each."""
        del weights
        return []

    def with_levels(self, levels: Mapping[str, float]) -> Pruner:
        """The same pruner with other `levels` (weight name to sparsity), which a policy may have of its own.

        Raises:
            ConfigError: it has no levels.
        """
        raise ConfigError(Fault("args.levels", "is for SparsityLevelParameterPruner", type(self).__name__))

    def before_masks(self, network: Network, when: PolicyTime) -> bool:
        """Before a decision, and before its evidence is looked at. False: nothing is decided this time."""
        del network, when
        return True

    def after_masks(self, network: Network, masks: Mapping[str, Tensor], moment: Moment) -> None:
        """When masks are decided but not yet in force: the place to change weights."""
        del network, masks, moment

    def on_structure_change(self, happened: StructureChange) -> None:
        """The network lost filters or channels: the place to cut what it keeps of their shapes itself."""
        del happened

    def masks(self, weights: Mapping[str, Tensor], moment: Moment) -> dict[str, Tensor]:
        """The masks (1 keeps, 0 prunes) of all weights, by name, of their shapes."""
        return {name: self.mask(name, weight, moment.when) for name, weight in weights.items()}

    @abstractmethod
    def mask(self, weight_name: str, weight: Tensor, when: PolicyTime) -> Tensor:
        """The mask of one of `weights` by itself."""

    def by_magnitude(self) -> Pruner | None:
        """The same pruner with a ranking that needs the weights alone; None if it does not rank."""
        return None

    def level(self, weight_name: str, when: PolicyTime) -> float | None:
        """The sparsity it aims at, in [0, 1]; None if that is not known beforehand."""
        return None

    def fraction(self, weight_name: str, weight: Tensor, when: PolicyTime) -> float | None:
        """The fraction of zeros this level comes to in a weight of this shape: levels floor to whole groups."""
        level = self.level(weight_name, when)
        return None if level is None else pruned_count(level, weight.numel()) / weight.numel()

    def state_dict(self) -> dict[str, object]:
        return {}

    def load_state_dict(self, state: Mapping[str, object]) -> None:
        del state


class ComposedPruner(Pruner):
    """Prunes the groups with the smallest scores, up to the level of each weight's rate.

    Where its level lies below what is pruned already (by another pruner, before it took over), nothing comes back.
    leader: the first weight decides for all: filters that a residual sum couples must go together.
    group_size: so many adjacent groups are kept or pruned as one.
    noise: with this probability the scores of a decision are multiplied by normal noise (epsilon-greedy).
    """

    releases = False

    def __init__(
        self,
        name: str,
        rates: Mapping[str, Rate],
        ranking: Ranking = L1,
        granularity: Granularity = ELEMENT,
        *,
        leader: bool = False,
        group_size: int = 1,
        noise: float = 0.0,
    ) -> None:
        super().__init__(name, tuple(rates))
        self.rates = dict(rates)
        self.ranking = ranking
        self.granularity = granularity
        self.leader = leader
        self.group_size = group_size
        self.noise = noise
        self.evidence = ranking.evidence

    def by_magnitude(self) -> ComposedPruner:
        other = copy.copy(self)
        other.ranking, other.evidence, other.noise = L1, L1.evidence, 0.0
        return other

    def level(self, weight_name: str, when: PolicyTime) -> float | None:
        return self.rates[weight_name](when)

    def fraction(self, weight_name: str, weight: Tensor, when: PolicyTime) -> float | None:
        level = self.level(weight_name, when)
        count = self.granularity.groups(weight).shape[0] // self.group_size
        return None if level is None else pruned_count(level, count) / count

    def fault_of(self, weight_name: str, weight: Tensor) -> str:
        fault = fault_of(self.granularity, weight)
        if fault:
            return fault
        count = self.granularity.groups(weight.detach()).shape[0]
        if self.ranking.filters_only and count != weight.shape[0]:
            return f"ranking {self.ranking.name} knows whole filters only"
        if count % self.group_size:
            return f"group_size {self.group_size} does not divide its {count} groups"
        return ""

    def faults_together(self, weights: Mapping[str, Tensor]) -> list[tuple[str, str]]:
        if not self.leader or not weights:
            return []
        counts = {name: self.granularity.groups(weight.detach()).shape[0] for name, weight in weights.items()}
        first = next(iter(counts))
        return [
            (name, f"has {count} groups, its leader {first} has {counts[first]}")
            for name, count in counts.items()
            if count != counts[first]
        ]

    def masks(self, weights: Mapping[str, Tensor], moment: Moment) -> dict[str, Tensor]:
        if not self.leader:
            return {name: self._mask(name, w, moment.when, moment.evidence.get(name)) for name, w in weights.items()}
        first = next(iter(weights))
        keep = self._keep(first, weights[first], moment.when, moment.evidence.get(first))
        return {name: self.granularity.expand(keep, weight) for name, weight in weights.items()}

    def mask(self, weight_name: str, weight: Tensor, when: PolicyTime) -> Tensor:
        return self._mask(weight_name, weight, when, None)

    def _mask(self, name: str, weight: Tensor, when: PolicyTime, evidence: Tensor | None) -> Tensor:
        return self.granularity.expand(self._keep(name, weight, when, evidence), weight)

    def _keep(self, name: str, weight: Tensor, when: PolicyTime, evidence: Tensor | None) -> Tensor:
        level = self.level(name, when)
        return smallest_mask(self.scores(weight, evidence), level or 0.0).repeat_interleave(self.group_size)

    def scores(self, weight: Tensor, evidence: Tensor | None) -> Tensor:
        """One score for each group (of `group_size` adjacent ones)."""
        if evidence is not None and evidence.shape == weight.shape:
            evidence = self.granularity.groups(evidence)
        scores = self.ranking.score(self.granularity.groups(weight), evidence)
        if self.group_size > 1:
            scores = scores.view(-1, self.group_size).mean(dim=1)
        if self.noise and float(torch.rand(())) <= self.noise:
            scores = scores * torch.randn(scores.shape).to(scores.device)
        return scores
