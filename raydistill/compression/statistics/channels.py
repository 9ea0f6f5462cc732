"""Statistics a channel of the activations that follow a layer: what activation-ranked pruners ask for.

All are over the images and positions of every forward pass since the last reset, while attached:

    apoz    fraction of activations that are zero (Hu et al. 2016, arXiv 1607.03250, section 3.1)
    mean    mean activation
    l1      mean over the images of the sum of a channel's absolute activations
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypedDict

import torch
from torch import Tensor, nn

from raydistill.compression.ranks import Ranks
from raydistill.compression.statistics.follow import NOT_NEGATIVE, Activation, Follower
from raydistill.errors import ABSENT, CheckpointError, ConfigError, Fault, close_match

STATISTICS = ("apoz", "mean", "l1")


class _State(TypedDict):
    sums: dict[str, dict[str, Tensor]]
    positions: dict[str, int]
    images: dict[str, int]


class ChannelActivations:
    """Use as a context manager, or call `attach` and `detach`; what was seen stays until `reset`.

    paused: while True, what passes is not counted.

    names: dotted names of the layers, None: every convolution and linear layer. statistics: those of `STATISTICS` that
    are wanted; each costs its own pass over the activations. A channel's activations are those after batch norm and
    nonlinearity, or the layer's own output where no nonlinearity follows (see `follow`).

    Raises:
        ConfigError: no such module, or no such statistic.
    """

    def __init__(
        self, model: nn.Module, names: Sequence[str] | None = None, statistics: Sequence[str] = ("apoz", "mean")
    ) -> None:
        unknown = [name for name in statistics if name not in STATISTICS]
        if unknown:
            way_out = close_match(unknown[0], STATISTICS)
            raise ConfigError(Fault("statistics", "unknown statistic", unknown[0], way_out))
        self.statistics = tuple(statistics)
        self.paused = False
        self._follower = Follower(model, names, self._see)
        self.names = self._follower.names
        self._sums: dict[str, dict[str, Tensor]] = {}
        self._positions: dict[str, int] = {}
        self._images: dict[str, int] = {}

    def attach(self) -> None:
        self._follower.attach()

    def detach(self) -> None:
        """Take every hook out of the model; the figures stay."""
        self._follower.detach()

    def __enter__(self) -> ChannelActivations:
        self.attach()
        return self

    def __exit__(self, *_: object) -> None:
        self.detach()

    def reset(self) -> None:
        """Forget what was seen."""
        self._sums, self._positions, self._images = {}, {}, {}

    def add_up(self, ranks: Ranks) -> None:
        """From now on the figures are of what all ranks have seen so far."""
        every = ranks.gather(_State(sums=_to_cpu(self._sums), positions=self._positions, images=self._images))
        self.reset()
        for seen in every:
            for name, sums in seen["sums"].items():
                total = self._sums.setdefault(name, {})
                for key, part in sums.items():
                    total[key] = total[key] + part if key in total else part
                self._positions[name] = self._positions.get(name, 0) + seen["positions"][name]
                self._images[name] = self._images.get(name, 0) + seen["images"][name]

    def apoz(self, name: str) -> Tensor:
        """Average fraction of zeros of each of a layer's channels, float64 (channels,) in [0, 1]."""
        return self._figure(name, "apoz") / self._positions[name]

    def mean(self, name: str) -> Tensor:
        """Mean activation of each of a layer's channels, float64 (channels,)."""
        return self._figure(name, "mean") / self._positions[name]

    def l1(self, name: str) -> Tensor:
        """L1 norm of each of a layer's channels, mean over the images, float64 (channels,)."""
        return self._figure(name, "l1") / self._images[name]

    def sparsity(self, name: str) -> float:
        """Fraction of zeros over all of a layer's activations."""
        return float(self.apoz(name).mean())

    def seen(self) -> tuple[str, ...]:
        """Names of the layers that have figures."""
        return tuple(name for name in self.names if name in self._sums)

    def state_dict(self) -> _State:
        """Plain values and tensors."""
        return {
            "sums": {name: {key: total.clone() for key, total in sums.items()} for name, sums in self._sums.items()},
            "positions": dict(self._positions),
            "images": dict(self._images),
        }

    def load_state_dict(self, state: _State) -> None:
        """Go on from a saved state.

        Raises:
            CheckpointError: it is of other layers or statistics.
        """
        for name, sums in state["sums"].items():
            if name not in self.names or set(sums) != set(self.statistics):
                rule = f"has {', '.join(sorted(sums))} of a layer that is not collected here in this way"
                raise CheckpointError(Fault("channel activations", rule, name))
        self._sums = {name: {key: total.clone() for key, total in sums.items()} for name, sums in state["sums"].items()}
        self._positions, self._images = dict(state["positions"]), dict(state["images"])

    def _figure(self, name: str, statistic: str) -> Tensor:
        if statistic not in self.statistics:
            raise ConfigError(Fault("statistics", f"'{statistic}' is not collected", self.statistics, "ask for it"))
        if name not in self._sums:
            way_out = "run the model while the collector is attached" if name in self.names else "name it at the start"
            raise ConfigError(Fault(f"activations of '{name}'", "none were seen", ABSENT, way_out))
        return self._sums[name][statistic]

    def _see(self, activations: Sequence[Activation]) -> None:
        if self.paused:
            return
        sums: dict[int, dict[str, Tensor]] = {}  # by axis: layers that share the tensor share the passes over it
        for activation in activations:
            span, tensor = activation.span, activation.tensor
            if span.axis not in sums:
                sums[span.axis] = channel_sums(tensor, span.axis, self.statistics, activation.function in NOT_NEGATIVE)
            part = {key: total.narrow(0, span.start, span.count) for key, total in sums[span.axis].items()}
            before = self._sums.get(span.name)
            if before is not None and next(iter(before.values())).shape != (span.count,):  # thinned in the meantime
                before, self._positions[span.name], self._images[span.name] = None, 0, 0
            if before is None:
                self._sums[span.name] = {key: total.clone() for key, total in part.items()}
            else:
                for key, total in part.items():
                    before[key] = before[key].to(total.device).add_(total)
            images = tensor.shape[0] if tensor.dim() > -span.axis else 1
            self._positions[span.name] = self._positions.get(span.name, 0) + tensor.numel() // tensor.shape[span.axis]
            self._images[span.name] = self._images.get(span.name, 0) + images


@dataclass(frozen=True)
class ChannelRow:
    """One channel of one layer; a statistic that was not collected is None."""

    layer: str
    channel: int
    apoz: float | None
    mean: float | None
    l1: float | None


def activation_table(collector: ChannelActivations) -> tuple[ChannelRow, ...]:
    """One row a channel of every layer that was seen."""
    rows: list[ChannelRow] = []
    for name in collector.seen():
        figures = {key: getattr(collector, key)(name).tolist() for key in collector.statistics}
        count = len(next(iter(figures.values())))
        none = [None] * count
        each = (figures.get(key, none) for key in STATISTICS)
        rows += [ChannelRow(name, channel, *values) for channel, values in enumerate(zip(*each, strict=True))]
    return tuple(rows)


def channel_sums(tensor: Tensor, axis: int, statistics: Sequence[str], not_negative: bool = False) -> dict[str, Tensor]:
    """By statistic, what it adds up for each channel (zeros, values, absolute values), float64 (channels,).

    axis: the channels' dimension. not_negative: no value is below zero, which saves passes.
    """
    sums: dict[str, Tensor] = {}
    if "apoz" in statistics:
        # counting the signs is several times faster than comparing with zero and counting that
        signs = tensor.sign() if not_negative else tensor.sign().abs_()
        sums["apoz"] = tensor.numel() // tensor.shape[axis] - _sum(signs, axis)
    if "mean" in statistics or ("l1" in statistics and not_negative):
        sums["mean"] = _sum(tensor, axis)
    if "l1" in statistics:
        sums["l1"] = sums["mean"] if not_negative else _sum(tensor.abs(), axis)
    return {key: total for key, total in sums.items() if key in statistics}


def _to_cpu(sums: Mapping[str, Mapping[str, Tensor]]) -> dict[str, dict[str, Tensor]]:
    return {name: {key: total.cpu() for key, total in parts.items()} for name, parts in sums.items()}


def _sum(tensor: Tensor, axis: int) -> Tensor:
    """Sum over all dimensions but one. Within an image in float32, over the images in float64: counts stay exact."""
    axis = axis % tensor.dim()
    inner = [dim for dim in range(1, tensor.dim()) if dim != axis]
    total = tensor.sum(inner, dtype=torch.float32) if inner else tensor.float()
    if axis == 0:
        return total.double()
    return total.sum(0, dtype=torch.float64)
