"""Histograms: of activations over any number of batches, and of parameters for TensorBoard."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from raydistill.compression.statistics.follow import Activation, Follower
from raydistill.errors import ABSENT, ConfigError, Fault


@dataclass(frozen=True)
class Histogram:
    """counts: float64 (bins,). edges: float64 (bins + 1,), evenly spaced."""

    counts: Tensor
    edges: Tensor


class ActivationHistograms:
    """A histogram of each layer's activations, over every forward pass while attached; a context manager.

    The range is not known beforehand: it is [-limit, limit] with a power of two that doubles when a batch goes beyond
    it, two bins becoming one. bins: over the whole range, a multiple of 4. names: as in `ChannelActivations`. Values
    that are not finite are left out.

    Raises:
        ConfigError: no such module, or an impossible number of bins.
    """

    def __init__(self, model: nn.Module, names: Sequence[str] | None = None, bins: int = 128) -> None:
        if bins < 4 or bins % 4:
            raise ConfigError(Fault("bins", "must be a multiple of 4, from 4 up", bins))
        self._bins = bins
        self._follower = Follower(model, names, self._see)
        self._counts: dict[str, Tensor] = {}
        self._exponents: dict[str, int] = {}

    def attach(self) -> None:
        self._follower.attach()

    def detach(self) -> None:
        """Take every hook out of the model; the figures stay."""
        self._follower.detach()

    def __enter__(self) -> ActivationHistograms:
        self.attach()
        return self

    def __exit__(self, *_: object) -> None:
        self.detach()

    def seen(self) -> tuple[str, ...]:
        """Names of the layers that have figures."""
        return tuple(name for name in self._follower.names if name in self._counts)

    def histogram(self, name: str) -> Histogram:
        """What was seen of one layer."""
        if name not in self._counts:
            way_out = "run the model while the collector is attached"
            raise ConfigError(Fault(f"activations of '{name}'", "none were seen", ABSENT, way_out))
        limit = 2.0 ** self._exponents[name]
        return Histogram(self._counts[name].clone(), torch.linspace(-limit, limit, self._bins + 1, dtype=torch.float64))

    def _see(self, activations: Sequence[Activation]) -> None:
        for activation in activations:
            self._add(activation.span.name, activation.channels())

    def _add(self, name: str, values: Tensor) -> None:
        values = values.float()
        largest = float(values.abs().nan_to_num(0.0, 0.0, 0.0).max()) if values.numel() else 0.0
        # a limit that is itself a value would need a bin of its own: histc counts it in the last one
        exponent = math.frexp(largest)[1] if largest > 0.0 else 0
        if name not in self._counts:
            self._exponents[name] = exponent
            self._counts[name] = torch.zeros(self._bins, dtype=torch.float64)
        while self._exponents[name] < exponent:
            self._counts[name] = _halved(self._counts[name])
            self._exponents[name] += 1
        limit = 2.0 ** self._exponents[name]
        self._counts[name] += torch.histc(values, bins=self._bins, min=-limit, max=limit).double().cpu()


def _halved(counts: Tensor) -> Tensor:
    """The same counts over twice the range: pairs of bins become one, in the middle."""
    pairs = counts.reshape(-1, 2).sum(dim=1)
    return torch.nn.functional.pad(pairs, (len(pairs) // 2, len(pairs) // 2))


class Writer(Protocol):
    """What is used of ``tensorboardX.SummaryWriter`` (torch's own writer has it too)."""

    def add_histogram(self, tag: str, values: object, global_step: int) -> object: ...


def write_parameter_histograms(writer: Writer, model: nn.Module, epoch: int, gradients: bool = False) -> None:
    """One TensorBoard histogram a parameter, ``weights/NAME``; with `gradients` also ``gradients/NAME``.

    Values that are not finite are left out, and so is a parameter that has no others.
    """
    for name, parameter in model.named_parameters():
        tensors = {"weights": parameter.detach(), "gradients": parameter.grad if gradients else None}
        for kind, tensor in tensors.items():
            if tensor is not None:
                values = tensor.float().cpu().flatten()
                values = values[values.isfinite()]
                if values.numel():
                    writer.add_histogram(f"{kind}/{name}", values.numpy(), epoch)
