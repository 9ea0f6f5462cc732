"""The loss of a network that classifies, also of one that answers more than once (see `compression.early_exit`).

Shapes: logits are (B, classes), labels int64 (B,).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from raydistill.compression.early_exit import exits
from raydistill.errors import ABSENT, ConfigError, Fault

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


def auxiliary(output: Any) -> tuple[Tensor, ...]:
    """Logits of auxiliary classifiers: the fields of a named tuple whose names begin with ``aux``."""
    names = [name for name in getattr(output, "_fields", ()) if name.startswith("aux")]
    return tuple(value for value in (getattr(output, name) for name in names) if isinstance(value, Tensor))


def classification_loss(output: Any, labels: Tensor, loss_weights: Sequence[float] = ()) -> Tensor:
    """Mean cross-entropy of a model's output; a weighted sum where it has exits or auxiliary classifiers.

    loss_weights: those of `EarlyExit`.

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
        functional.cross_entropy(logits, labels) if weight == 1.0 else weight * functional.cross_entropy(logits, labels)
        for logits, weight in zip(found, weights, strict=True)
    ]
    extra = auxiliary(output)
    weight = ONE_AUXILIARY if len(extra) == 1 else SEVERAL_AUXILIARIES
    terms += [weight * functional.cross_entropy(logits, labels) for logits in extra]
    return terms[0] if len(terms) == 1 else torch.stack(terms).sum()


def _option(name: str) -> str:
    return name.replace("loss_weights", "lossweights")


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
