"""Looking on while a network runs: every call of a torch function, by the point it is."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from raydistill.compression.trace import plain_name

if TYPE_CHECKING:
    from torch.utils.hooks import RemovableHandle

Place = tuple[str, str, int]
"""A call as a `Point` has it: module, function, position."""
Seen = Callable[[Place, Sequence[Any], Any], None]
"""Is told of each call: where, its positional arguments, what it gave."""

_NAMES: dict[object, str] = {}
"""By a torch function, what a trace calls it; "" of those that are no calls."""


def call_name(func: object) -> str:
    """What a trace calls a torch function; "" of shapes, devices and the like."""
    name = _NAMES.get(func)
    if name is None:
        own = getattr(func, "__name__", "") or type(func).__name__
        name = _NAMES[func] = "" if own == "__get__" else plain_name(own)
    return name


class Places:
    """Where a forward pass is: the modules that run, innermost last, and how often each function was called there."""

    def __init__(self) -> None:
        self._stack: list[tuple[str, dict[str, int]]] = []

    def enter(self, module: str) -> None:
        self._stack.append((module, {}))

    def leave(self) -> None:
        if self._stack:
            self._stack.pop()

    @property
    def depth(self) -> int:
        return len(self._stack)

    def next(self, function: str) -> Place | None:
        """The place of this call, which is counted; None outside of the network."""
        if not self._stack:
            return None
        module, counts = self._stack[-1]
        position = counts.get(function, 0)
        counts[function] = position + 1
        return module, function, position


@contextlib.contextmanager
def watching(model: nn.Module, seen: Seen, copy: Callable[[Tensor], Tensor] = Tensor.clone) -> Iterator[None]:
    """While it lasts, `seen` is told of each call in the network's forward passes, in order, before the next begins.

    copy: makes what is told in place of an argument that the call may write over. Of a quantized network `seen` is told
    of the rounded arguments, and of what a call gave before that was rounded.
    """
    places = Places()
    hooks: list[RemovableHandle] = []

    def entered(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, inputs: object) -> None:
            places.enter(name)

        return hook

    def left(module: nn.Module, inputs: object, output: object) -> None:
        places.leave()

    try:
        for name, module in model.named_modules():
            hooks.append(module.register_forward_pre_hook(entered(name)))
            hooks.append(module.register_forward_hook(left, always_call=True))
        with _Watch(places, seen, copy):
            yield
    finally:
        for handle in hooks:
            handle.remove()


class _Watch(TorchFunctionMode):
    def __init__(self, places: Places, seen: Seen, copy: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self._places, self._seen, self._copy = places, seen, copy

    def __torch_function__(
        self,
        func: Callable[..., object],
        types: object,
        args: Sequence[object] = (),
        kwargs: Mapping[str, object] | None = None,
    ) -> Any:
        name = call_name(func)
        place = self._places.next(name) if name else None
        given_to = args
        if place is not None and _writes(func, kwargs):
            copied = {id(value): self._copy(value) for value in computed(args)}
            given_to = [copied.get(id(value), value) for value in args]
        result = func(*args, **(kwargs or {}))
        if place is not None:
            self._seen(place, given_to, result)
        return result


def _writes(func: object, kwargs: Mapping[str, object] | None) -> bool:
    """Whether a call may overwrite what it is given: ``add_``, ``__iadd__``, ``relu(..., inplace=True)``."""
    name = getattr(func, "__name__", "")
    in_place = (name.endswith("_") and not name.endswith("__")) or name.startswith("__i")
    return in_place or bool(kwargs and kwargs.get("inplace"))


def computed(arguments: Sequence[object]) -> list[Tensor]:
    """The different tensors among a call's arguments that are no parameters, in order; those of a list one by one."""
    found: dict[int, Tensor] = {}
    for value in arguments:
        if isinstance(value, (list, tuple)):
            found.update((id(tensor), tensor) for tensor in computed(value))
        elif isinstance(value, Tensor) and not isinstance(value, nn.Parameter):
            found[id(value)] = value
    return list(found.values())


def given(result: object) -> Tensor | None:
    """The tensor of floats that a call gave, the first of several; None where it gave none."""
    if isinstance(result, (list, tuple)) and result:
        result = result[0]
    return result if isinstance(result, Tensor) and result.is_floating_point() else None
