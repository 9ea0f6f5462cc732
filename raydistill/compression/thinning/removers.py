"""Thinning in the middle of a training run: the ``extensions`` of schedule files."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from torch.optim import Optimizer

from raydistill.compression.masks import MaskSet
from raydistill.compression.policies.extension import Extension
from raydistill.compression.pruners.arguments import checked_weights
from raydistill.compression.rates import PolicyTime
from raydistill.compression.thinning.decide import CHANNELS, FILTERS, STRUCTURES
from raydistill.compression.thinning.inputs import Example
from raydistill.compression.thinning.report import ThinningReport
from raydistill.compression.thinning.thin import thin
from raydistill.errors import ConfigError, Fault, close_match

_BY_FUNCTION = {"remove_filters": (FILTERS,), "remove_channels": (CHANNELS,)}
_IMAGES = {"cifar10": (1, 3, 32, 32), "imagenet": (1, 3, 224, 224), "mnist": (1, 1, 28, 28)}


class StructureRemover(Extension):
    """Removes zeroed filters and channels at the beginning of each scheduled epoch; training goes on with what is left.

    It calls `thin` with ``exact=False`` and ``align_sums=True``: schedule files count on every zeroed filter to go, in
    residual sums whose terms they prune each by itself to one level too. The outputs move, and training mends it.

    thinning_func_str: remove_filters or remove_channels, as schedule files have it; it decides for `FilterRemover` and
        `ChannelRemover`, whatever their names say, while `StructureRemover` removes both.
    arch: not needed, and not looked at: any architecture that can be traced is thinned.
    weights: only structures that these alone write; left out, all that are zero.
    dataset: gives the shape of the example input (cifar10, imagenet, mnist) where the run does not.

    `report` is what the last thinning did, None before it.
    """

    structures: Sequence[str] = STRUCTURES

    def __init__(
        self,
        name: str,
        thinning_func_str: str | None = None,
        arch: str | None = None,
        dataset: str | None = None,
        weights: list[str] | None = None,
    ) -> None:
        for argument, value in (("arch", arch), ("dataset", dataset)):
            if value is not None and not isinstance(value, str):
                raise ConfigError(Fault(argument, "must be a name", value))
        if thinning_func_str is not None and thinning_func_str not in _BY_FUNCTION:
            way_out = close_match(thinning_func_str, _BY_FUNCTION)
            raise ConfigError(Fault("thinning_func_str", "is not known", thinning_func_str, way_out))
        self.name = name
        self.weights = () if weights is None else checked_weights("weights", weights)
        self.report: ThinningReport | None = None
        self._dataset = dataset
        if thinning_func_str is not None and type(self).structures is not STRUCTURES:
            self.structures = _BY_FUNCTION[thinning_func_str]
        self._bound: tuple[nn.Module, Optimizer, MaskSet, Example] | None = None

    def bind(self, model: nn.Module, optimizer: Optimizer, masks: MaskSet, example_input: Example | None) -> None:
        """What to thin. example_input: as for `thin`; None where the dataset's name gives it.

        Raises:
            ConfigError: neither gives an example input.
        """
        if example_input is None:
            if self._dataset not in _IMAGES:
                rule = "does not say how large an input is, and the run does not either"
                way_out = f"use one of: {', '.join(_IMAGES)}"
                raise ConfigError(Fault(f"{self.name}.dataset", rule, self._dataset, way_out))
            example_input = torch.zeros(_IMAGES[self._dataset])
        known = dict(model.named_parameters())
        for weight in self.weights:
            if weight not in known:
                raise ConfigError(Fault("weights", "the model has no such weight", weight, close_match(weight, known)))
        self._bound = (model, optimizer, masks, example_input)

    def on_epoch_begin(self, when: PolicyTime) -> None:
        del when
        if self._bound is None:
            raise ConfigError(Fault(self.name, "has no model yet", way_out="call bind first"))
        model, optimizer, masks, example_input = self._bound
        self.report = thin(
            model,
            masks,
            example_input,
            optimizer,
            structures=self.structures,
            exact=False,
            align_sums=True,
            weights=self.weights or None,
        )


class FilterRemover(StructureRemover):
    """Removes zeroed filters; see `StructureRemover`."""

    structures = (FILTERS,)


class ChannelRemover(StructureRemover):
    """Removes zeroed channels; see `StructureRemover`."""

    structures = (CHANNELS,)
