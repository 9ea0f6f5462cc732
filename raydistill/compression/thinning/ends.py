"""Where a trace ends and begins anew: the library follows nothing through recurrent layers."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from functools import partial

from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from raydistill.compression.layer_kinds import kind_of
from raydistill.compression.thinning.inputs import tensors


def recurrent(model: nn.Module) -> list[tuple[str, nn.Module]]:
    return [(name, module) for name, module in model.named_modules() if kind_of(module).recurrent]


@contextlib.contextmanager
def left_as_they_are(model: nn.Module, mark: Callable[[Tensor, str], Tensor]) -> Iterator[list[tuple[Tensor, str]]]:
    """The library follows nothing through recurrent layers. While this lasts the trace ends where it reaches one (gives
    what reaches which), and begins anew behind it.
    """
    reached: list[tuple[Tensor, str]] = []

    def see(name: str, module: nn.Module, inputs: tuple[object, ...], named: dict[str, object]) -> None:
        reached.extend((tensor, name) for tensor in tensors([*inputs, *named.values()]) if tensor.requires_grad)

    def begin(name: str, module: nn.Module, inputs: object, output: object) -> object:
        return _mapped(output, lambda tensor: mark(tensor, f"comes out of {name}, which is not thinned"))

    handles = []
    for name, module in recurrent(model):
        handles.append(module.register_forward_pre_hook(partial(see, name), with_kwargs=True))
        handles.append(module.register_forward_hook(partial(begin, name)))
    try:
        yield reached
    finally:
        for handle in handles:
            handle.remove()


def _mapped(output: object, change: Callable[[Tensor], Tensor]) -> object:
    """What a recurrent layer gives, with its tensors changed: a tensor, packed or not, or a tuple of such."""
    if isinstance(output, PackedSequence):
        return output._replace(data=change(output.data))
    if isinstance(output, tuple):
        return tuple(_mapped(entry, change) for entry in output)
    return change(output) if isinstance(output, Tensor) and output.is_floating_point() else output
