"""Pruning from calibration data as a policy: layer by layer, at the beginning of an epoch, before any is trained.

The pruners of all such policies that act in one epoch decide together, in the order of the forward pass, whatever their
order in the schedule: what a layer reads is what those before it give once they are pruned.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from raydistill.compression.calibration.readers import readers
from raydistill.compression.calibration.stages import Batches
from raydistill.compression.calibration.walk import all_at_once, calibrating, layer_by_layer
from raydistill.compression.masks import MaskSet
from raydistill.compression.policies.base import Policy, weights_text
from raydistill.compression.policies.pruning import PruningControls
from raydistill.compression.pruners import Moment, OneShotPruner
from raydistill.compression.pruners.one_shot import OWL
from raydistill.compression.pruners.owl import outlier_ratio, shifted
from raydistill.compression.pruners.wanda import wanda_scores
from raydistill.compression.rates import PolicyTime
from raydistill.errors import ABSENT, ConfigError, Fault

_UNSAID = PruningControls()


class OneShotPolicy(Policy):
    """Decides the masks of the pruner's weights, and the values of those that stay, in each epoch it acts in.

    weights: the names it acts on. epochs: it acts in. controls: of which evidence_minibatches says how many batches of
    the calibration data are looked at. together: whom it decides with.

    Raises:
        ConfigError: of a weight is not known what it is multiplied by, or another control is said.
    """

    def __init__(
        self,
        pruner: OneShotPruner,
        model: nn.Module,
        weights: Sequence[str],
        epochs: Iterable[int],
        controls: PruningControls,
        together: Together,
    ) -> None:
        idle = replace(controls, levels=None, evidence_minibatches=_UNSAID.evidence_minibatches)
        if idle != _UNSAID:
            said = next(name for name, value in vars(idle).items() if value != getattr(_UNSAID, name))
            rule = f"is not for {type(pruner).__name__}, whose masks are in force once they are decided"
            raise ConfigError(Fault(f"args.{said}", rule, getattr(idle, said), "leave it out"))
        self.pruner, self.batches = pruner, controls.evidence_minibatches
        self.weights, self.epochs = tuple(weights), frozenset(epochs)
        readers(model, self.pruned)
        self._together = together
        together.policies.append(self)

    @property
    def pruned(self) -> tuple[str, ...]:
        """The weights that something is taken from: of the others nothing has to be known."""
        return tuple(name for name in self.weights if self.pruner.levels[name] > 0.0)

    def fractions(self, weights: Mapping[str, Tensor], when: PolicyTime) -> dict[str, float | None]:
        return {name: self.pruner.fraction(name, weights[name], when) for name in self.weights if name in weights}

    def says(self, when: PolicyTime) -> str:
        levels = sorted({self.pruner.level(name, when) or 0.0 for name in self.weights})
        what = f"{weights_text(self.weights)} to {levels[0]:.1%}" if levels else "nothing"
        return f"{what if len(levels) < 2 else f'{what} ... {levels[-1]:.1%}'} by {type(self.pruner).__name__}"

    def on_epoch_begin(self, when: PolicyTime) -> None:
        self._together.decide(self, when)

    def at_once(self, when: PolicyTime) -> None:
        self._together.by_magnitude(self, when)

    def state_dict(self) -> dict[str, object]:
        return {"pruner": self.pruner.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.pruner.load_state_dict(state["pruner"])


class Together:
    """The policies of one model that look at the same calibration data, in the order in which they are asked.

    calibration: None where there are none, which is an error once they are needed.
    """

    def __init__(self, model: nn.Module, masks: MaskSet, calibration: Batches | None) -> None:
        self.policies: list[OneShotPolicy] = []
        self._model, self._masks, self.calibration = model, masks, calibration

    def decide(self, policy: OneShotPolicy, when: PolicyTime) -> None:
        """For all policies of this epoch, when the first of them is asked.

        Raises:
            ConfigError: there are no calibration data, or as `layer_by_layer`.
        """
        acting = [one for one in self.policies if when.epoch in one.epochs]
        if acting[0] is not policy:
            return
        data = self.calibration
        if data is None:
            rule = f"{type(policy.pruner).__name__} needs calibration data"
            raise ConfigError(Fault(policy.pruner.name, rule, ABSENT, "give them: build(..., calibration=batches)"))
        most = max(one.batches for one in acting)
        ranks = self._masks.ranks
        found: dict[str, Tensor] = {}

        def first_rank() -> None:
            owners = {name: one.pruner for one in acting for name in one.pruned}
            found.update(prune(self._model, self._masks, owners, lambda: itertools.islice(data(), most)))

        ranks.by_first(first_rank)
        self._settle(acting, found)

    def _settle(self, acting: Sequence[OneShotPolicy], found: Mapping[str, Tensor]) -> None:
        """Masks, and weights, as the first rank has them."""
        ranks, masks = self._masks.ranks, self._masks
        names = sorted({name for one in acting for name in one.pruned})
        own = {name: found.get(name, torch.ones_like(masks.parameter(name))) for name in names}
        if ranks.several:
            values = ranks.tensors_of_first({name: masks.parameter(name).detach() for name in names})
            with torch.no_grad():
                for name, value in values.items():
                    masks.parameter(name).copy_(value)
            for one in acting:
                one.pruner.load_state_dict(ranks.of_first(one.pruner.state_dict()))
        for name, mask in ranks.tensors_of_first(own).items():
            masks.set(name, mask)
        masks.apply()

    @torch.no_grad()
    def by_magnitude(self, policy: OneShotPolicy, when: PolicyTime) -> None:
        """Masks of these levels without a look at data."""
        present = {name: self._masks[name] for name in self._masks.names()}
        weights = {name: self._masks.parameter(name).detach() for name in policy.pruned}
        for name, mask in policy.pruner.masks(weights, Moment(when, present)).items():
            self._masks.set(name, mask)
        self._masks.apply()


def prune(
    model: nn.Module,
    masks: MaskSet,
    pruners: Mapping[str, OneShotPruner],
    batches: Batches,
    device: torch.device | None = None,
) -> dict[str, Tensor]:
    """Prune these weights, layer by layer, in place; the masks are returned, for the caller to put in force. What is
    pruned already stays so.

    pruners: by the weights' names. batches: calibration data on the network's own device. device: see
    `calibration.walk.layer_by_layer`.

    Raises:
        ConfigError, DataError: as `layer_by_layer`.
    """
    found: dict[str, Tensor] = {}
    with calibrating(model):
        _allocate(model, masks, pruners, batches)
        kinds = {name: pruner.evidence for name, pruner in pruners.items()}
        for name, sums in layer_by_layer(model, kinds, batches, device):
            weight = model.get_parameter(name)
            evidence = sums.total if pruners[name].evidence == sums.kind else sums.squares
            before = masks[name].to(weight.device) if name in masks else None
            assert evidence is not None
            found[name], values = pruners[name].settled(name, weight.detach(), evidence, before)
            weight.copy_(weight * found[name] if values is None else values)
    return found


def _allocate(model: nn.Module, masks: MaskSet, pruners: Mapping[str, OneShotPruner], batches: Batches) -> None:
    """Levels of the pruners that share them by outliers, each pruner by itself."""
    for pruner in {id(pruner): pruner for pruner in pruners.values() if pruner.allocation == OWL}.values():
        names = [name for name, owner in pruners.items() if owner is pruner]
        sums, blocks = all_at_once(model, names, batches)
        weights = {name: masks.parameter(name).detach() for name in names}
        members: dict[str, list[str]] = {}
        for name in names:
            members.setdefault(blocks[name], []).append(name)
        ratios = {
            block: outlier_ratio([wanda_scores(weights[n].flatten(1), sums[n].squares) for n in own], pruner.outlier)
            for block, own in members.items()
        }
        levels = [pruner.levels[name] for name in names]
        sizes = [weights[name].numel() for name in names]
        found = shifted(levels, [ratios[blocks[name]] for name in names], sizes, pruner.spread)
        pruner.allocated = dict(zip(names, found, strict=True))
