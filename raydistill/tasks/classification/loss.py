"""The loss of a network that classifies, also of one that answers more than once (see `compression.early_exit`).

Shapes: logits are (B, classes), labels int64 (B,).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from raydistill.compression.early_exit import exits
from raydistill.errors import ABSENT, ConfigError, Fault, users_code
from raydistill.resolve import resolve_object

ONE_AUXILIARY, SEVERAL_AUXILIARIES = 0.4, 0.3
"""Weights of auxiliary losses: Inception's single one as its authors' code has it, GoogLeNet's two by its paper."""


@dataclass(frozen=True)
class EarlyExit:
    """How a network with early exits is trained and evaluated.

    loss_weights: of the loss of each exit but the last, which weighs what they leave of 1.
    thresholds: entropy below which an image leaves, for each exit but the last; () evaluates each exit on all images.
    """

    loss_weights: tuple[float, ...]
    thresholds: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        for name in ("loss_weights", "thresholds"):
            values = getattr(self, name)
            if not isinstance(values, tuple) or not all(_is_number(value) and value >= 0 for value in values):
                raise ConfigError(Fault(f"earlyexit_{_option(name)}", "must be numbers from 0 up", values))
        if not self.loss_weights or sum(self.loss_weights) >= 1:
            way_out = "the last exit weighs what they leave of 1"
            raise ConfigError(Fault("earlyexit_lossweights", "must add up to below 1", self.loss_weights, way_out))
        if self.thresholds and len(self.thresholds) != len(self.loss_weights):
            rule = f"must be {len(self.loss_weights)}, as many as earlyexit_lossweights"
            raise ConfigError(Fault("earlyexit_thresholds", rule, self.thresholds))


@dataclass(frozen=True)
class Loss:
    """A loss of one's own, ``task: {args: {loss: pkg.mod:LOSS}}`` in a sweep file, in place of the cross-entropy.

    of: (logits, labels) to the mean over the batch, a scalar to be differentiated; of each exit and each auxiliary
    classifier by itself. The metric ``loss`` stays the cross-entropy, so that runs can be compared.
    """

    name: str
    of: Callable[[Tensor, Tensor], Tensor]


@functools.lru_cache(maxsize=16)
def own_loss(path: str, multi_label: bool = False) -> Loss:
    """The loss that ``pkg.mod:LOSS`` names, tried on two images of three classes.

    multi_label: labels are float (B, classes) of 0 and 1.

    Raises:
        ConfigError: it is no `Loss`, fails, or gives no scalar that can be differentiated.
    """
    where = "task.args.loss"
    loss = resolve_object(path, {}, Loss, where, "loss")
    logits = torch.tensor([[2.0, -1.0, 0.5], [0.25, 0.5, -0.5]], requires_grad=True)
    with users_code(where, f"'{path}'"), torch.enable_grad(), torch.random.fork_rng(devices=[]):
        labels = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 1.0]]) if multi_label else torch.tensor([0, 2])
        value = loss.of(logits, labels)
    if not isinstance(value, Tensor) or value.dim() != 0 or not value.requires_grad or not bool(value.isfinite()):
        given = tuple(value.shape) if isinstance(value, Tensor) and value.dim() else value
        raise ConfigError(Fault(where, f"'{path}' must give a finite scalar that can be differentiated", given))
    return loss


def auxiliary(output: object) -> tuple[Tensor, ...]:
    """Logits of auxiliary classifiers: the fields of a named tuple whose names begin with ``aux``."""
    names = [name for name in getattr(output, "_fields", ()) if name.startswith("aux")]
    return tuple(value for value in (getattr(output, name) for name in names) if isinstance(value, Tensor))


def classification_loss(
    output: object,
    labels: Tensor,
    loss_weights: Sequence[float] = (),
    loss: Callable[[Tensor, Tensor], Tensor] = functional.cross_entropy,
) -> Tensor:
    """The mean loss of a model's output; a weighted sum where it has exits or auxiliary classifiers.

    loss_weights: those of `EarlyExit`. loss: (logits, labels) to the mean over the batch.

    Raises:
        ConfigError: their number does not fit the model's exits.
    """
    found = exits(output)
    if len(found) != len(loss_weights) + 1:
        rule = f"must be {len(found) - 1}: the model has {len(found)} exits and the last takes the rest"
        way_out = "give one for each exit but the last" if len(found) > 1 else "leave them out, it has a single exit"
        value = tuple(loss_weights) if loss_weights else ABSENT
        raise ConfigError(Fault("earlyexit_lossweights", rule, value, way_out))
    weights = (*loss_weights, 1.0 - sum(loss_weights))
    terms = [
        loss(logits, labels) if weight == 1.0 else weight * loss(logits, labels)
        for logits, weight in zip(found, weights, strict=True)
    ]
    extra = auxiliary(output)
    weight = ONE_AUXILIARY if len(extra) == 1 else SEVERAL_AUXILIARIES
    terms += [weight * loss(logits, labels) for logits in extra]
    return terms[0] if len(terms) == 1 else torch.stack(terms).sum()


def _option(name: str) -> str:
    return name.replace("loss_weights", "lossweights")


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
