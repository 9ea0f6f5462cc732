"""Two ways to compute with several networks at once, and whether they give what each network gives by itself.

`Folded` puts networks side by side in the channels; few kernels, but not every network can be. `Mapped` is
`torch.func.vmap`, which takes almost every network; what it cannot take (random layers, decisions that depend on data)
is trained one by one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.utils import _pytree as pytree

from raydistill.compression.copying import copy_of
from raydistill.tasks import Batch, Task
from raydistill.tasks.base import autocast
from raydistill.training.memory import ran_out
from raydistill.training.packing.folding import Folding
from raydistill.training.packing.stack import Stack, put_into


class Way(Protocol):
    """parameters, buffers: of the stack, or of some of its places. inputs: of the network; where they are not shared
    each has a leading dimension of places. Gives the output, each tensor with a leading dimension of places.
    """

    def __call__(
        self,
        parameters: Mapping[str, Tensor],
        buffers: Mapping[str, Tensor],
        inputs: tuple[object, ...],
        shared: bool,
        training: bool,
    ) -> Any: ...


class Folded:
    """network: its code; its tensors are not used, and it is not changed."""

    def __init__(self, network: nn.Module) -> None:
        self._network = copy_of(network)
        self._held: Mapping[str, Tensor] | None = None

    def __call__(
        self,
        parameters: Mapping[str, Tensor],
        buffers: Mapping[str, Tensor],
        inputs: tuple[object, ...],
        shared: bool,
        training: bool,
    ) -> Any:
        places = len(next(iter(parameters.values())))
        if self._held is not parameters:
            put_into(self._network, parameters, buffers)
            self._held = parameters
        if not shared:
            inputs = pytree.tree_map_only(Tensor, _fold, inputs)
        self._network.train(training)
        with Folding(places):
            output = self._network(*inputs)
        return pytree.tree_map_only(Tensor, lambda tensor: _unfold(tensor, places), output)


class Mapped:
    """network: as of `Folded`."""

    def __init__(self, network: nn.Module) -> None:
        self._network = copy_of(network)

    def __call__(
        self,
        parameters: Mapping[str, Tensor],
        buffers: Mapping[str, Tensor],
        inputs: tuple[object, ...],
        shared: bool,
        training: bool,
    ) -> Any:
        self._network.train(training)

        def one(own: tuple[Mapping[str, Tensor], Mapping[str, Tensor]], given: tuple[object, ...]) -> Any:
            return functional_call(self._network, own, given)  # type: ignore[arg-type]

        return vmap(one, in_dims=(0, None if shared else 0))((parameters, buffers), inputs)


WAYS: tuple[Callable[[nn.Module], Way], ...] = (Folded, Mapped)


def losses(
    way: Way,
    task: Task,
    parameters: Mapping[str, Tensor],
    buffers: Mapping[str, Tensor],
    batch: Batch,
    shared: bool,
    precision: str,
) -> Tensor:
    """The loss of each place, (places,), in train mode. shared: all places have this batch; else its tensors have a
    leading dimension of places.

    Raises:
        RuntimeError: the task calls the network otherwise than with `Task.inputs`.
    """
    inputs = task.inputs(batch)
    device = next(iter(parameters.values())).device
    with autocast(precision, device):
        outputs = way(parameters, buffers, inputs, shared, True)

        def one(output: object, own: Batch) -> Tensor:
            expected = task.inputs(own)

            def network(*given: object, **named: object) -> Any:
                same = len(given) == len(expected) and all(a is b for a, b in zip(given, expected, strict=True))
                if named or not same:
                    raise RuntimeError("its task calls the network with more than the inputs of a batch")
                return output

            return task.loss(network, own)

        return vmap(one, in_dims=(0, None if shared else 0))(outputs, batch)


def check_way(way: Way, network: nn.Module, task: Task, batch: Batch, precision: str) -> tuple[str, frozenset[str]]:
    """(why two networks together would not learn what one by itself does, "" where they do; the names of the parameters
    that get a gradient). Nothing is changed.
    """
    own = copy_of(network).train()
    device = next(own.parameters()).device
    stack = Stack([copy_of(own), _moved(own)]).part(0, 2)
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        before = drawn_from(device)
        with autocast(precision, device):
            alone = task.loss(own, batch)
        alone.backward()
        if not torch.equal(before, drawn_from(device)):
            return "it draws random numbers in training, as dropout does", frozenset()
        used = frozenset(name for name, parameter in own.named_parameters() if parameter.grad is not None)
        try:
            found = losses(way, task, stack.parameters, stack.buffers, batch, True, precision)
            if tuple(found.shape) != (2,):
                return "its loss is not one number", used
            found[0].backward()
        except Exception as error:  # a network or a task of the user's may fail in any way
            if ran_out(error):
                raise
            return f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else ''}", used
    wrong = _difference(own, stack.parameters, 5e-2 if precision != "fp32" else 1e-3)
    if wrong or not _close(alone.detach(), found[0].detach(), 1e-2, float(alone.detach().abs())):
        return wrong or "the loss is another one than by itself", used
    for name, buffer in own.named_buffers():
        if not _close(buffer, stack.buffers[name][0], 1e-2, 1e-3):
            return f"{name} is another one than by itself", used
    return "", used


def _difference(own: nn.Module, parameters: Mapping[str, Tensor], close: float) -> str:
    """What is wrong with the gradients of the first two places, of which only the first one's loss was differentiated.

    A gradient may be nothing but rounding, as that of a bias before a batch norm is: small ones are held against the
    largest of all.
    """
    present = [parameter.grad for parameter in own.parameters() if parameter.grad is not None]
    floor = 0.1 * max((float(gradient.abs().max()) for gradient in present if gradient.numel()), default=0.0)
    for name, parameter in own.named_parameters():
        found = parameters[name].grad
        if parameter.grad is None and found is None:
            continue
        if parameter.grad is None or found is None:
            return f"{name} gets a gradient in one of the two only"
        if bool((found[1] != 0).any()):
            return f"{name} gets a gradient from another network's loss"
        if not _close(parameter.grad, found[0], close, floor):
            return f"the gradient of {name} is another one than by itself"
    return ""


def _close(wanted: Tensor, found: Tensor, close: float, floor: float) -> bool:
    if not wanted.numel():
        return True
    scale = max(float(wanted.abs().max()), floor)
    return float((wanted.float() - found.float()).abs().max()) <= close * scale


def drawn_from(device: torch.device) -> Tensor:
    return torch.cuda.get_rng_state(device) if device.type == "cuda" else torch.get_rng_state()


def _moved(network: nn.Module) -> nn.Module:
    """A copy with other weights: the place beside the one that is looked at."""
    other = copy_of(network)
    with torch.no_grad():
        for parameter in other.parameters():
            if parameter.is_floating_point():
                parameter.mul_(1.5).add_(0.01)
    return other


def _fold(tensor: Tensor) -> Tensor:
    """(places, B, C, ...) to (B, places * C, ...)."""
    folded = tensor.movedim(0, 1).flatten(1, 2)
    return folded.contiguous(memory_format=torch.channels_last) if folded.dim() == 4 else folded


def _unfold(tensor: Tensor, places: int) -> Tensor:
    """(B, places * C, ...) to (places, B, C, ...)."""
    return tensor.unflatten(1, (places, -1)).movedim(1, 0)
