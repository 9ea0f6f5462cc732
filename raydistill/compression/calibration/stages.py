"""Ways of running what has to run for a layer to be seen: the whole network, or one module of a chain by itself.

What a chain's modules read is kept in main memory, one entry a batch, and moves to the device for the time of a pass.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from raydistill.compression.calibration.survey import first_tensor

Batches = Callable[[], Iterable[Sequence[Any]]]
"""Gives the calibration data, the same ones each time: the positional inputs of one forward pass after the other."""


class Enough(Exception):
    """Ends a forward pass: what was wanted of it has been seen."""


class Whole:
    """The network itself. last: what the last module of its chain gives of each batch, where that is known; the chain
    is passed over then."""

    def __init__(self, model: nn.Module, batches: Batches, chain: Sequence[str] = (), last: Sequence[Any] = ()) -> None:
        self._model, self._batches = model, batches
        self._chain = [model.get_submodule(name) for name in chain] if last else []
        self._last = last

    def run(self, most: int | None = None) -> None:
        """All batches, or the first so many of them."""
        for index, inputs in enumerate(self._batches()):
            if most is not None and index >= most:
                return
            with _passed_over(self._chain, self._last[index] if self._chain else None, _device(self._model)):
                _until_enough(self._model, inputs, {})


class Link:
    """One module of a chain. inputs: what it reads of each batch, and what else its call is given."""

    def __init__(self, module: nn.Module, inputs: list[tuple[tuple[Any, ...], dict[str, Any]]]) -> None:
        self._module, self._inputs = module, inputs

    def run(self, most: int | None = None) -> None:
        for arguments, named in self._inputs[:most]:
            _until_enough(self._module, *self._given(arguments, named))

    def outputs(self) -> list[Any]:
        """What it gives of each batch, in main memory; in `inputs` what the next one reads takes the place of what this
        one has read."""
        found = []
        for index, (arguments, named) in enumerate(self._inputs):
            given, also = self._given(arguments, named)
            output = moved(self._module(*given, **also), torch.device("cpu"))
            self._inputs[index] = _with_first(arguments, named, first_tensor(output))
            found.append(output)
        return found

    def _given(
        self, arguments: tuple[object, ...], named: dict[str, Any]
    ) -> tuple[tuple[object, ...], dict[str, object]]:
        """Copies, which the module may write to."""
        device = _device(self._module)
        return moved(arguments, device), moved(named, device)


def captured(model: nn.Module, first: str, batches: Batches) -> list[tuple[tuple[Any, ...], dict[str, Any]]]:
    """What the first module of a chain is called with, of each batch, in main memory."""
    found: list[tuple[tuple[Any, ...], dict[str, Any]]] = []

    def see(module: nn.Module, arguments: tuple[object, ...], named: dict[str, Any]) -> None:
        found.append((moved(arguments, torch.device("cpu")), moved(named, torch.device("cpu"))))
        raise Enough

    handle = model.get_submodule(first).register_forward_pre_hook(see, with_kwargs=True)
    try:
        Whole(model, batches).run()
    finally:
        handle.remove()
    return found


@contextmanager
def _passed_over(chain: Sequence[nn.Module], output: object, device: torch.device) -> Iterator[None]:
    """While it lasts the modules of a chain give this, whatever they read."""
    own = [vars(module).get("forward") for module in chain]
    given = moved(output, device) if chain else None
    try:
        for module in chain:
            module.forward = lambda *arguments, **named: given  # type: ignore[method-assign]
        yield
    finally:
        for module, forward in zip(chain, own, strict=True):
            del module.forward
            if forward is not None:
                module.forward = forward  # type: ignore[method-assign]


def _until_enough(module: nn.Module, arguments: Sequence[object], named: Mapping[str, object]) -> None:
    try:
        module(*arguments, **named)
    except Enough:
        return


def _with_first(
    arguments: tuple[object, ...], named: dict[str, Any], first: Tensor | None
) -> tuple[tuple[object, ...], dict[str, object]]:
    if arguments:
        return (first, *arguments[1:]), named
    return arguments, {**named, next(iter(named)): first}


def moved(value: object, device: torch.device) -> Any:
    """A copy of the tensors in nested tuples, lists and mappings on this device."""
    if isinstance(value, Tensor):
        return value.detach().to(device, copy=True)
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(moved(part, device) for part in value))
    if isinstance(value, (tuple, list)):
        return type(value)(moved(part, device) for part in value)
    if isinstance(value, Mapping):
        return {key: moved(part, device) for key, part in value.items()}
    return value


def _device(module: nn.Module) -> torch.device:
    return next((parameter.device for parameter in module.parameters()), torch.device("cpu"))
