"""What a schedule comes to in one step: its pruners' last decisions, taken at once on the weights as they are."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from raydistill.compression.build import build
from raydistill.compression.copying import copy_of
from raydistill.schedule import ScheduleSpec


def pruned_at_once(spec: ScheduleSpec, model: nn.Module, example_input: Sequence[object] | None = None) -> nn.Module:
    """A copy of the model with the masks that its schedule is bound for, as they would be if nothing were trained; a
    quantizer of the schedule rounds its weights.

    Raises:
        ConfigError: as `build`.
    """
    copied = copy_of(model)
    prune_at_once(spec, copied, example_input)
    return copied


def prune_at_once(spec: ScheduleSpec, model: nn.Module, example_input: Sequence[object] | None = None) -> None:
    """`pruned_at_once` of the model itself."""
    scheduler = build(spec, model, torch.optim.SGD(model.parameters(), lr=0.1), example_input)
    for scheduled in sorted(scheduler.scheduled, key=lambda scheduled: scheduled.spec.last_epoch):
        scheduled.policy.at_once(scheduled.when(scheduled.spec.last_epoch))
