"""Functions of several networks at once, the networks side by side in the channels.

Shapes: a *folded* tensor is (B, places * C, ...), the channels of the first network first. Pooling, activations and
sums take it as it is; functions that have weights are grouped. A tensor that all networks share is (B, C, ...), which
only the first layer of a network is given.

Not everything can be folded: a softmax over channels or a concatenation mixes networks. Who uses this compares its
results with the networks' own (see `ways`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode


class NotFolded(Exception):
    """These shapes are not those of networks side by side."""


class Folding(TorchFunctionMode):
    """While it is in force, functions given a stacked weight compute with all networks' weights.

    places: how many networks.
    """

    def __init__(self, places: int) -> None:
        super().__init__()
        self._places = places

    def __torch_function__(
        self,
        func: Callable[..., object],
        types: object,
        args: tuple[object, ...] = (),
        kwargs: Mapping[str, object] | None = None,
    ) -> Any:
        folded = _FOLDED.get(func)
        return func(*args, **(kwargs or {})) if folded is None else folded(self._places, *args, **(kwargs or {}))


def _convolution(of: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def folded(
        places: int,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None = None,
        stride: int | tuple[int, ...] = 1,
        padding: int | str | tuple[int, ...] = 0,
        dilation: int | tuple[int, ...] = 1,
        groups: int = 1,
    ) -> Tensor:
        channels = weight.shape[2] * groups
        together = weight.flatten(0, 1)
        of_bias = None if bias is None else bias.flatten()
        if x.shape[1] == channels and places > 1:  # what all share
            if groups > 1:
                return of(_repeated(x, places), together, of_bias, stride, padding, dilation, groups * places)
            return of(x, together, of_bias, stride, padding, dilation, 1)
        if x.shape[1] != places * channels:
            raise NotFolded(f"a convolution of {channels} channels is given {tuple(x.shape)}")
        return of(x, together, of_bias, stride, padding, dilation, groups * places)

    return folded


def _linear(places: int, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """weight: (places, out, in). x: (B, in) or (B, places * in)."""
    features = weight.shape[2]
    if x.dim() != 2:
        raise NotFolded(f"a linear layer is given {tuple(x.shape)}")
    if x.shape[1] == features and places > 1:
        return functional.linear(x, weight.flatten(0, 1), None if bias is None else bias.flatten())
    if x.shape[1] != places * features:
        raise NotFolded(f"a linear layer of {features} features is given {tuple(x.shape)}")
    each = x.view(len(x), places, features).transpose(0, 1)
    if bias is None:
        out = torch.bmm(each, weight.transpose(1, 2))
    else:
        out = torch.baddbmm(bias[:, None], each, weight.transpose(1, 2))
    return out.transpose(0, 1).flatten(1)


def _batch_norm(
    places: int,
    x: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    *how: Any,
    **named: Any,
) -> Tensor:
    """Its statistics are of each channel by itself, so those of each network are its own."""
    of_stack = [running_mean, running_var, weight, bias]
    if any(tensor is not None and tensor.numel() != x.shape[1] for tensor in of_stack):
        raise NotFolded(f"a batch norm is given {tuple(x.shape)}")
    flat: list[Any] = [None if tensor is None else tensor.view(-1) for tensor in of_stack]
    return functional.batch_norm(x, *flat, *how, **named)


def _refused(places: int, *args: object, **named: object) -> Tensor:
    """A number of a tensor decides what comes next: it would be one number of all networks."""
    raise NotFolded("what it computes depends on the data")


def _repeated(x: Tensor, places: int) -> Tensor:
    return x.repeat(1, places, *[1] * (x.dim() - 2))


_FOLDED: dict[Callable[..., object], Callable[..., Tensor]] = {
    torch.conv1d: _convolution(torch.conv1d),
    torch.conv2d: _convolution(torch.conv2d),
    torch.conv3d: _convolution(torch.conv3d),
    functional.linear: _linear,
    functional.batch_norm: _batch_norm,
    **dict.fromkeys((Tensor.item, Tensor.tolist, Tensor.numpy, Tensor.nonzero, torch.nonzero), _refused),
    **dict.fromkeys((Tensor.__bool__, Tensor.__float__, Tensor.__int__, Tensor.__index__), _refused),
}
