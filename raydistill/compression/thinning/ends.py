"""Where a trace ends and begins anew: at what is thinned from inside (recurrent layers and attention), and at shuffles
of channels, which the library takes for an operation on each element."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence
from torch.overrides import TorchFunctionMode

from raydistill.compression.layer_kinds import kind_of
from raydistill.compression.thinning.inputs import tensors

_SHUFFLED = "has its channels shuffled with others, so that none can go alone"
_VIEWS = frozenset({"view", "reshape"})


def recurrent(model: nn.Module) -> list[tuple[str, nn.Module]]:
    return [(name, module) for name, module in model.named_modules() if kind_of(module).recurrent]


@contextlib.contextmanager
def left_as_they_are(
    model: nn.Module, mark: Callable[[Tensor, str], Tensor], given: Mapping[str, str], read: Mapping[str, str]
) -> Iterator[list[tuple[Tensor, str]]]:
    """The library follows nothing through recurrent layers, and takes attention for an operation on each element. While
    this lasts the trace ends where it reaches one of them (gives what reaches which, and why that stays), and begins
    anew behind it.

    given, read: layers whose outputs go into a block, and layers that read what comes out of one, with the reason why
    that stays.
    """
    reached: list[tuple[Tensor, str]] = []

    def see(name: str, module: nn.Module, inputs: tuple[object, ...], named: dict[str, object]) -> None:
        why = f"reaches {name}, {kind_of(module).whole}"
        reached.extend((tensor, why) for tensor in tensors([*inputs, *named.values()]) if tensor.requires_grad)

    def begin(name: str, module: nn.Module, inputs: object, output: object) -> object:
        return _mapped(output, lambda tensor: mark(tensor, f"comes out of {name}, {kind_of(module).whole}"))

    def ends(why: str, module: nn.Module, inputs: object, output: object) -> None:
        reached.extend((tensor, why) for tensor in tensors(output))

    def begins(why: str, module: nn.Module, inputs: tuple[object, ...]) -> tuple[object, ...]:
        return (_mapped(inputs[0], lambda tensor: mark(tensor, why)), *inputs[1:])

    handles = []
    for name, module in recurrent(model):
        handles.append(module.register_forward_pre_hook(partial(see, name), with_kwargs=True))
        handles.append(module.register_forward_hook(partial(begin, name)))
    for layer, why in given.items():
        handles.append(model.get_submodule(layer).register_forward_hook(partial(ends, why)))
    for layer, why in read.items():
        handles.append(model.get_submodule(layer).register_forward_pre_hook(partial(begins, why), prepend=True))
    try:
        with _InsideCode(model, mark, reached, given, read):
            yield reached
    finally:
        for handle in handles:
            handle.remove()


class _InsideCode(TorchFunctionMode):
    """What no hook of a module sees: channels of maps that are split into groups are followed no further, and what
    comes out of it is new; a layer's weight that somebody else's code multiplies by is the layer."""

    def __init__(
        self,
        model: nn.Module,
        mark: Callable[[Tensor, str], Tensor],
        reached: list[tuple[Tensor, str]],
        given: Mapping[str, str],
        read: Mapping[str, str],
    ) -> None:
        super().__init__()
        self._mark, self._reached = mark, reached
        self._given, self._read = (
            {id(getattr(model.get_submodule(layer), "weight", None)): why for layer, why in side.items()}
            for side in (given, read)
        )

    def __torch_function__(
        self, func: Callable[..., object], types: object, args: Any = (), kwargs: Mapping[str, object] | None = None
    ) -> object:
        name = getattr(func, "__name__", "")
        if name == "linear" and len(args) > 1 and id(args[1]) in self._read:
            args = (self._mark(args[0], self._read[id(args[1])]), *args[1:])
        result = func(*args, **(kwargs or {}))
        if name == "linear" and len(args) > 1 and id(args[1]) in self._given and isinstance(result, Tensor):
            self._reached.append((result, self._given[id(args[1])]))
        if name in _VIEWS and isinstance(result, Tensor) and _grouped(args[0], result):
            self._reached.append((args[0], _SHUFFLED))
            return self._mark(result, _SHUFFLED)
        return result


def _grouped(maps: Tensor, result: Tensor) -> bool:
    """Whether (B, C, H, W) has become (B, groups, C / groups, H, W)."""
    if maps.dim() != 4 or result.dim() != 5 or not maps.requires_grad:
        return False
    kept = result.shape[0] == maps.shape[0] and result.shape[3:] == maps.shape[2:]
    return kept and 1 < result.shape[1] < maps.shape[1]


def _mapped(output: object, change: Callable[[Tensor], Tensor]) -> object:
    """What a recurrent layer gives, with its tensors changed: a tensor, packed or not, or a tuple of such."""
    if isinstance(output, PackedSequence):
        return output._replace(data=change(output.data))
    if isinstance(output, tuple):
        return tuple(_mapped(entry, change) for entry in output)
    return change(output) if isinstance(output, Tensor) and output.is_floating_point() else output
