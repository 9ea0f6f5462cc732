"""A policy acts at seven places of the training loop, in the epochs its schedule names.

for epoch in ...:
    on_epoch_begin
    for minibatch in ...:
        on_minibatch_begin
        loss = ...                       # forward
        loss = before_backward(loss)
        loss.backward()
        before_parameter_optimization
        optimizer.step()
        on_minibatch_end
    before_validation
    metrics = ...                        # validation
    on_epoch_end

Whenever the network loses filters or channels (an extension thins it, or who wrote the loop), every policy hears of it:
on_structure_change.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from raydistill.compression.rates import PolicyTime
from raydistill.compression.structure import StructureChange

_AT_MINIBATCHES = ("on_minibatch_begin", "before_backward", "before_parameter_optimization", "on_minibatch_end")
"""The places within an epoch."""


@dataclass(frozen=True)
class Step:
    """Where the loop stands inside an epoch: minibatch `index` of `count`."""

    epoch: int
    index: int
    count: int


class Policy:
    """Does nothing at any of the seven places; a policy overrides the ones it needs.

    waits: how many minibatches of an epoch it sees before it decides, and needs_gradients: whether of backward passes.
    trains: it decides by what training does. withholds: it takes gradients away for the optimizer's step. ends: it acts
    on what training has come to, so that its one epoch has to be the last of the run. weights: names of those that it
    acts on; () of none, or of whatever there is.
    """

    waits: int = 0
    needs_gradients: bool = False
    trains: bool = False
    withholds: bool = False
    ends: bool = False
    weights: Sequence[str] = ()

    def fractions(self, weights: Mapping[str, Tensor], when: PolicyTime) -> dict[str, float | None]:
        """What it plans: by name, the fraction of zeros it makes of each of its weights at this time, in [0, 1]; None
        where that is not known beforehand. weights: those of the model, by name.
        """
        del weights, when
        return {}

    def says(self, when: PolicyTime) -> str:
        """What it does at this time, in a few words."""
        del when
        return type(self).__name__

    def on_epoch_begin(self, when: PolicyTime) -> None:
        """Before the first minibatch of a scheduled epoch."""

    def on_minibatch_begin(self, step: Step) -> None:
        """Before the forward pass."""

    def before_backward(self, step: Step, loss: Tensor) -> Tensor:
        """Between forward and backward pass; the loss it returns (a scalar tensor) is the one that is minimised."""
        return loss

    def before_parameter_optimization(self, step: Step) -> None:
        """Between the backward pass and the optimizer's step."""

    def on_minibatch_end(self, step: Step) -> None:
        """After the optimizer's step, when the masks have been applied."""

    def before_validation(self, when: PolicyTime) -> None:
        """After the last minibatch of a scheduled epoch, before what has been trained is validated."""

    def on_epoch_end(self, when: PolicyTime, metrics: Mapping[str, float]) -> None:
        """After the last minibatch and the validation of a scheduled epoch."""

    def at_once(self, when: PolicyTime) -> None:
        """Bring the model now to where this policy would have it at that time, as far as no training is needed."""

    @property
    def may_draw(self) -> bool:
        """Whether it may draw random numbers at a minibatch, once an epoch has begun. Runs that take turns in a process
        keep what each draws apart only where this is said: it takes longer than most policies."""
        return any(getattr(type(self), place) is not getattr(Policy, place) for place in _AT_MINIBATCHES)

    def on_structure_change(self, happened: StructureChange) -> None:
        """The model and its masks were cut: the place to cut whatever else has their shapes. In every epoch."""

    def state_dict(self) -> dict[str, object]:
        """What a resumed run needs: plain values and tensors only."""
        return {}

    def load_state_dict(self, state: Mapping[str, object]) -> None:
        del state


def weights_text(names: Sequence[str]) -> str:
    """``1 weight``, ``3 weights``."""
    return "1 weight" if len(names) == 1 else f"{len(names)} weights"
