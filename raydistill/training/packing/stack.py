"""Several networks of one architecture as one: each parameter and buffer in one tensor with a leading dimension of
trials, of which the networks' own are views.

Whatever acts on one network in place (masks, optimizers, averages, checkpoints) acts on its part of the stack, and
what is computed with the stack is computed with all networks.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Part:
    """The places from first to last (exclusive) of a stack, which are computed together.

    parameters: leaves of the shape (places, ...). buffers: alike. Both lie where the stack's values lie.
    """

    first: int
    last: int
    parameters: Mapping[str, Tensor]
    buffers: Mapping[str, Tensor]

    @property
    def places(self) -> range:
        return range(self.first, self.last)


class Stack:
    """networks: of the same names, shapes and memory formats; each has a *place*, from 0.

    used: names of parameters that learn. Where they are of one type their values lie in one tensor, `flat`, the places
    of each parameter one after another; so do their gradients, and whatever else is of the same shapes (see `views`).

    While a network is bound its parameters stay the same objects; only where their values lie is changed. `release`
    gives it values of its own again.
    """

    def __init__(self, networks: Sequence[nn.Module], used: frozenset[str] = frozenset()) -> None:
        self.networks = tuple(networks)
        tensors = [dict(_tensors(network)) for network in networks]
        self._learns = {name: parameter.requires_grad for name, parameter in networks[0].named_parameters()}
        self._values = {name: stacked([own[name] for own in tensors]) for name in tensors[0]}
        self._gradients: dict[str, Tensor] = {}
        self.used = tuple(name for name in self._learns if name in used)
        kinds = {(self._values[name].dtype, self._values[name].device) for name in self.used}
        self.flat = self._in_one() if len(kinds) == 1 else None
        if self.flat is not None:
            self._values |= self.views(self.flat)
        self.flat_gradients: Tensor | None = None
        for place, own in enumerate(tensors):
            for name, tensor in own.items():
                tensor.data = self._values[name][place]

    def __len__(self) -> int:
        return len(self.networks)

    def part(self, first: int, last: int) -> Part:
        parameters = {
            name: self._values[name][first:last].requires_grad_(learns) for name, learns in self._learns.items()
        }
        for name, gradient in self._gradients.items():
            parameters[name].grad = gradient[first:last]
        buffers = {name: value[first:last] for name, value in self._values.items() if name not in self._learns}
        return Part(first, last, parameters, buffers)

    def views(self, flat: Tensor) -> dict[str, Tensor]:
        """By the names of the parameters that learn, the parts of a tensor like `flat`, in their shapes."""
        found, begin = {}, 0
        for name in self.used:
            like = self._values[name]
            found[name] = torch.as_strided(flat, like.shape, like.stride(), flat.storage_offset() + begin)
            begin += like.numel()
        return found

    def _in_one(self) -> Tensor:
        return torch.cat([_in_memory(self._values[name]) for name in self.used])

    def holds(self, place: int) -> bool:
        """Whether the network's tensors are still views of the stack: thinning replaces them."""
        found = dict(_tensors(self.networks[place]))
        return self._values.keys() == found.keys() and all(
            tensor.shape == self._values[name].shape[1:] and tensor.data_ptr() == self._values[name][place].data_ptr()
            for name, tensor in found.items()
        )

    def begin_gradients(self) -> None:
        """Give the parameters that learn gradients of zero, of which the networks' own are views; others have none."""
        if self.flat is not None:
            self.flat_gradients = torch.zeros_like(self.flat)
            self._gradients = self.views(self.flat_gradients)
        else:
            self._gradients = {name: torch.zeros_like(self._values[name]) for name in self.used}
        for place, network in enumerate(self.networks):
            for name, parameter in network.named_parameters():
                parameter.grad = self._gradients[name][place] if name in self._gradients else None

    @torch.no_grad()
    def clear_gradients(self, places: Sequence[int]) -> None:
        if self.flat_gradients is not None and len(places) == len(self):
            self.flat_gradients.zero_()
            return
        whole = list(self._gradients.values())
        if len(places) < len(self):
            whole = [gradient[place] for gradient in whole for place in places]
        if whole:
            torch._foreach_zero_(whole)

    def release(self) -> None:
        """Give each network that is still bound tensors of its own; gradients are gone."""
        for place, network in enumerate(self.networks):
            if self.holds(place):
                for name, tensor in _tensors(network):
                    tensor.data = self._values[name][place].clone()
            for parameter in network.parameters():
                parameter.grad = None


def _in_memory(tensor: Tensor) -> Tensor:
    """The values of a dense tensor in the order in which they lie."""
    return torch.as_strided(tensor, (tensor.numel(),), (1,), tensor.storage_offset())


@torch.no_grad()
def stacked(tensors: Sequence[Tensor]) -> Tensor:
    """One tensor of them, (len, ...), each in the memory format of the first."""
    first = tensors[0]
    order = sorted(range(first.dim()), key=lambda dim: (-int(first.stride()[dim]), dim))  # outermost in memory first
    back = [0, *(order.index(dim) + 1 for dim in range(first.dim()))]
    return torch.stack([tensor.detach().permute(order) for tensor in tensors]).permute(back)


def shapes_of(network: nn.Module) -> tuple[object, ...]:
    """Equal for networks that can be stacked, as far as tensors tell."""
    return tuple(
        (name, tuple(tensor.shape), tensor.dtype, tensor.device, tensor.requires_grad)
        for name, tensor in _tensors(network)
    )


def put_into(network: nn.Module, parameters: Mapping[str, Tensor], buffers: Mapping[str, Tensor]) -> None:
    """Make a network compute with these tensors in the place of its own, tied ones included."""
    given = {**parameters, **buffers}
    names = {id(tensor): name for name, tensor in _tensors(network)}
    for module in network.modules():
        held: dict[str, Tensor | None]
        for held in (module._parameters, module._buffers):  # type: ignore[assignment]  # leaves stand for parameters
            for key, tensor in held.items():
                if id(tensor) in names:
                    held[key] = given[names[id(tensor)]]


def _tensors(network: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Its parameters and buffers, each once."""
    yield from network.named_parameters()
    yield from network.named_buffers()
