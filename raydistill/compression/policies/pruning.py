"""Pruning as a policy: when masks are decided, and how they act between decisions.

Masks are decided at the beginning of each scheduled epoch and, unless a control says otherwise, stay in force after
every optimizer step from then on. A ranking that has to see minibatches first decides after `evidence_minibatches`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from raydistill.compression.adjacency import Adjacency
from raydistill.compression.evidence import gatherer
from raydistill.compression.masks import MaskSet
from raydistill.compression.policies.base import Policy, Step, weights_text
from raydistill.compression.pruners import Moment, Network, Pruner
from raydistill.compression.rates import PolicyTime
from raydistill.compression.structure import StructureChange
from raydistill.errors import ConfigError, Fault


@dataclass(frozen=True)
class PruningControls:
    """A policy's ``args``, by Distiller's names.

    levels: takes the place of the pruner's own `levels` (weight name to sparsity).
    keep_mask: masks that act on the forward pass only come into force for good at the policy's last epoch.
    mini_batch_pruning_frequency: decide also at every such minibatch, counted over all epochs; 0: never.
    mask_on_forward_only: weights are masked before each forward pass only, and training may move the pruned ones.
    mask_gradients: the gradients of pruned weights are zeroed too (needs mask_on_forward_only).
    use_double_copies: the optimizer updates the unmasked weights with the gradients of the masked ones.
    discard_masks_at_minibatch_end: a mask lives for one minibatch.
    skip_first_minibatch: the first decision waits for the second minibatch.
    fold_batchnorm: weights are ranked as they would be with the batch norm that follows folded into them.
    evidence_minibatches: how many minibatches a ranking by gradients or activations looks at.
    """

    levels: Mapping[str, float] | None = None
    keep_mask: bool = False
    mini_batch_pruning_frequency: int = 0
    mask_on_forward_only: bool = False
    mask_gradients: bool = False
    use_double_copies: bool = False
    discard_masks_at_minibatch_end: bool = False
    skip_first_minibatch: bool = False
    fold_batchnorm: bool = False
    evidence_minibatches: int = 16

    def __post_init__(self) -> None:
        for name in ("mini_batch_pruning_frequency", "evidence_minibatches"):
            value, low = getattr(self, name), 0 if name.startswith("mini") else 1
            if isinstance(value, bool) or not isinstance(value, int) or value < low:
                raise ConfigError(Fault(name, f"must be a whole number from {low} up", value))
        for name, kind in self.__annotations__.items():
            if kind == "bool" and not isinstance(getattr(self, name), bool):
                raise ConfigError(Fault(name, "must be true or false", getattr(self, name)))
        if self.mask_gradients and not self.mask_on_forward_only:
            way_out = "set mask_on_forward_only too"
            raise ConfigError(Fault("mask_gradients", "needs mask_on_forward_only", True, way_out))

    @property
    def forward_only(self) -> bool:
        return self.mask_on_forward_only or self.use_double_copies


class PruningPolicy(Policy):
    """Decides the masks of the pruner's weights; the scheduler's `MaskSet` applies those that are in force.

    weights: the names it acts on. last_epoch: the last it is scheduled in. adjacency: of the model, for controls and
    rankings that look at how layers follow each other.
    """

    def __init__(
        self,
        pruner: Pruner,
        model: nn.Module,
        masks: MaskSet,
        weights: Sequence[str],
        last_epoch: int,
        controls: PruningControls | None = None,
        optimizer: Optimizer | None = None,
        adjacency: Adjacency | None = None,
    ) -> None:
        self.pruner = pruner
        self.controls = controls or PruningControls()
        self.weights = tuple(weights)
        self._model, self._masks = model, masks
        self._network = Network(model, masks, optimizer)
        self._last_epoch = last_epoch
        adjacency = adjacency or Adjacency(model, None)
        self._norms: dict[str, str] = {}
        if self.controls.fold_batchnorm:
            self._norms = adjacency.batch_norms("fold_batchnorm")
        self._evidence = gatherer(pruner.evidence, self.weights, model, masks, adjacency, pruner.points, pruner.blocks)
        own = self.controls
        self.waits = own.evidence_minibatches if self._evidence.waits else int(own.skip_first_minibatch)
        self.needs_gradients, self.trains = self._evidence.needs_gradients, self._evidence.trains
        self._due: int | None = None
        self._begun = False
        self._when: PolicyTime | None = None

    def fractions(self, weights: Mapping[str, Tensor], when: PolicyTime) -> dict[str, float | None]:
        return {name: self.pruner.fraction(name, weights[name], when) for name in self.weights if name in weights}

    def says(self, when: PolicyTime) -> str:
        levels = {self.pruner.level(weight, when) for weight in self.weights}
        known = sorted(level for level in levels if level is not None)
        what = weights_text(self.weights)
        if not known:
            return f"{what} by {type(self.pruner).__name__}"
        low, high = known[0], known[-1]
        return f"{what} to {low:.1%}" if low == high else f"{what} to {low:.1%} ... {high:.1%}"

    def on_epoch_begin(self, when: PolicyTime) -> None:
        self._when = when
        first, self._begun = not self._begun, True
        if self._evidence.waits:
            self._evidence.start()
            self._due = self.controls.evidence_minibatches
        elif first and self.controls.skip_first_minibatch:
            self._due = 1
        else:
            self._decide()

    def on_minibatch_begin(self, step: Step) -> None:
        frequency = self.controls.mini_batch_pruning_frequency
        if self._due is not None:
            if step.index >= self._due:
                self._decide()
        elif frequency and step.index > 0 and (step.epoch * step.count + step.index) % frequency == 0:
            self._decide()
        self._evidence.before_forward()
        if self.controls.forward_only:
            self._masks.mask_for_forward(self.weights, self.controls.use_double_copies)

    def before_parameter_optimization(self, step: Step) -> None:
        self._evidence.after_backward()
        if self.controls.mask_gradients:
            self._masks.mask_gradients(self.weights)
        if self.controls.use_double_copies:
            self._masks.restore_copies(self.weights)

    def on_minibatch_end(self, step: Step) -> None:
        if self._due is not None and step.index == step.count - 1:  # an epoch shorter than it wanted to see
            self._decide()
        if self.controls.discard_masks_at_minibatch_end:
            self._drop_masks()

    def on_epoch_end(self, when: PolicyTime, metrics: Mapping[str, float]) -> None:
        if when.epoch != self._last_epoch or not self.controls.forward_only:
            return
        if self.controls.keep_mask:
            for name in self.weights:
                if name in self._masks:
                    self._masks.set(name, self._masks[name])
            self._masks.apply()
        else:
            self._drop_masks()

    @property
    def may_draw(self) -> bool:
        return self._due is not None or self.controls.mini_batch_pruning_frequency > 0

    @torch.no_grad()
    def at_once(self, when: PolicyTime) -> None:
        """Put the masks of that time in force on the weights as they are now. What would have to see minibatches first
        is ranked by magnitude; a pruner that does not rank then, or changes weights, prunes nothing."""
        unseen = self._evidence.waits or not self._evidence.ready
        pruner = self.pruner.by_magnitude() if unseen else self.pruner
        if pruner is None:
            return
        masks = {name: self._masks[name] for name in self._masks.names()}
        moment = Moment(when, masks, {} if unseen else self._evidence.result())
        for name, mask in pruner.masks({name: self._ranked(name) for name in self.weights}, moment).items():
            kept = mask != 0
            self._masks.set(name, kept if pruner.releases else self._with_pruned(name, kept))
        self._masks.apply()

    def on_structure_change(self, happened: StructureChange) -> None:
        happened.follow(self._network.memory)
        self._evidence.on_structure_change(happened)
        self.pruner.on_structure_change(happened)

    @torch.no_grad()
    def _decide(self) -> None:
        assert self._when is not None
        self._due = None
        if not self.pruner.before_masks(self._network, self._when):
            return
        ranks = self._masks.ranks
        self._evidence.stop()
        if not ranks.of_first(self._evidence.ready):  # nothing seen yet: the weights stay as they are until there is
            return
        evidence = self._evidence.result()
        weights = {name: self._ranked(name) for name in self.weights}
        masks = {name: self._masks[name] for name in self._masks.names()}
        moment = Moment(self._when, masks, evidence)
        decided = ranks.tensors_of_first(self.pruner.masks(weights, moment))
        self.pruner.after_masks(self._network, decided, moment)
        if not self.pruner.releases:
            decided = {name: self._with_pruned(name, mask) for name, mask in decided.items()}
        for name, mask in decided.items():
            # scaled masks (DropFilter) only make sense where each minibatch begins from unscaled weights
            kept = mask if self.controls.use_double_copies else (mask != 0)
            self._masks.set(name, kept, self.controls.forward_only)
        if not self.controls.forward_only:
            self._masks.apply()

    def _with_pruned(self, name: str, mask: Tensor) -> Tensor:
        """A filter pruner's zeros stay when a gentler fine pruner takes its weight over."""
        if name not in self._masks:
            return mask
        before = self._masks[name]
        return mask * before if torch.count_nonzero(mask) > torch.count_nonzero(before) else mask

    def _ranked(self, name: str) -> Tensor:
        """The weight as it is ranked: scaled by gamma / sigma of its batch norm where that is asked for."""
        weight = self._masks.parameter(name).detach()
        norm_name = self._norms.get(name.rpartition(".")[0])
        if norm_name is None:
            return weight
        norm: Any = self._model.get_submodule(norm_name)
        scale = torch.rsqrt(norm.running_var + norm.eps)
        if norm.weight is not None:
            scale = scale * norm.weight.detach()
        return weight * scale.view(-1, *[1] * (weight.dim() - 1))

    def _drop_masks(self) -> None:
        for name in self.weights:
            self._masks.set(name, None)

    def state_dict(self) -> dict[str, object]:
        return {
            "pruner": self.pruner.state_dict(),
            "evidence": self._evidence.state_dict(),
            "early": dict(self._network.memory),
            "begun": self._begun,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.pruner.load_state_dict(state["pruner"])
        self._evidence.load_state_dict(state["evidence"])
        device = next(self._model.parameters()).device
        self._network.remember({name: value.to(device) for name, value in state["early"].items()})
        self._begun = bool(state["begun"])
