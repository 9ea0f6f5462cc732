"""What of a network is thinned by itself where the whole cannot be followed: a detector's backbone, its heads.

How many boxes a detector gives hangs on the values it sees, so its outputs say nothing on noise or NaN. Those of its
modules that give as many numbers whatever they are called with can be followed each by itself; what goes into one and
comes out of it keeps its width.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from raydistill.compression.layer_kinds import weighted
from raydistill.compression.thinning.graph import set_training
from raydistill.compression.thinning.inputs import Example, call, map_tensors, noise_like, tensors

if TYPE_CHECKING:
    from torch.utils.hooks import RemovableHandle

T = TypeVar("T")


@dataclass(frozen=True)
class Piece:
    """A module by its name, "" the network itself, and inputs of the shapes that it is called with."""

    name: str
    example: Example

    def named(self, name: str) -> str:
        """What is called so within it, as the network calls it."""
        return ".".join(part for part in (self.name, name) if part)

    def holds(self, name: str) -> bool:
        return not self.name or name.startswith(f"{self.name}.")

    def own(self, values: Mapping[str, T]) -> dict[str, T]:
        """What is said of its modules or parameters, by the names that it calls them."""
        prefix = f"{self.name}." if self.name else ""
        return {name.removeprefix(prefix): value for name, value in values.items() if self.holds(name)}

    def said(self, reason: str) -> str:
        return reason.replace("of the network", f"of {self.name}") if self.name else reason


@torch.no_grad()
def pieces(model: nn.Module, example: Example) -> list[Piece]:
    """The network itself, or where it cannot be followed the largest modules that can; that one too where none can.

    model: in eval mode; left as it is.
    """
    whole = Piece("", example)
    if _followed(model, example):
        return [whole]
    try:
        called = _called(model, noise_like(example))
    except Exception:  # whatever the model's own code raises
        return [whole]
    owners = Counter(id(p) for module in model.modules() for p in module.parameters(recurse=False))
    return list(_of(model, "", called, owners)) or [whole]


def _of(model: nn.Module, name: str, called: Mapping[str, Example], owners: Counter[int]) -> Iterator[Piece]:
    for child, module in model.get_submodule(name).named_children():
        path = f"{name}.{child}" if name else child
        if sum(weighted(one) is not None for one in module.modules()) < 2:
            continue  # what lies between two layers can go
        own = Counter(id(p) for one in module.modules() for p in one.parameters(recurse=False))
        alone = all(owners[parameter] == count for parameter, count in own.items())
        if path in called and alone and _followed(module, called[path]):
            yield Piece(path, called[path])
        else:
            yield from _of(model, path, called, owners)


def _followed(model: nn.Module, example: Example) -> bool:
    """Whether it gives as many numbers for any values."""
    try:
        shapes = [_shapes(model, inputs) for inputs in (noise_like(example), map_tensors(example, _nan))]
    except Exception:  # whatever the model's own code raises
        return False
    return shapes[0] == shapes[1] and bool(shapes[0]) and all(0 not in shape for shape in shapes[0])


def _nan(tensor: torch.Tensor) -> torch.Tensor:
    return torch.full_like(tensor, torch.nan)


def _shapes(model: nn.Module, example: Example) -> list[torch.Size]:
    set_training(model, False)
    return [tensor.shape for tensor in tensors(call(model, example))]


def _called(model: nn.Module, example: Example) -> dict[str, Example]:
    """What each module is first called with; without those of which a part is called from outside of them too, and
    those that use operators of others than torch, which may crash on boxes that are NaN."""
    found: dict[str, Example] = {}
    running: list[str] = []
    loose: set[str] = set()
    hooks: list[RemovableHandle] = []

    def enter(name: str) -> Callable[..., None]:
        ancestors = {name[:position] for position, letter in enumerate(name) if letter == "."}

        def hook(module: nn.Module, inputs: tuple[object, ...], named: dict[str, object]) -> None:
            loose.update(ancestors - set(running))
            running.append(name)
            if inputs and named:
                loose.add(name)
            found.setdefault(name, dict(named) if named else inputs)

        return hook

    def leave(module: nn.Module, inputs: object, output: object) -> None:
        running.pop()

    try:
        for name, module in model.named_modules():
            hooks.append(module.register_forward_pre_hook(enter(name), with_kwargs=True))
            hooks.append(module.register_forward_hook(leave))
        set_training(model, False)
        with _Foreign(lambda: loose.update(running)):
            call(model, example)
    finally:
        for handle in hooks:
            handle.remove()
    return {name: inputs for name, inputs in found.items() if name not in loose}


class _Foreign(TorchDispatchMode):
    """Tells of each call of an operator that is not torch's own."""

    def __init__(self, tell: Callable[[], None]) -> None:
        super().__init__()
        self._tell = tell

    def __torch_dispatch__(self, func: Any, types: object, args: Any = (), kwargs: Any = None) -> object:
        if func.namespace not in ("aten", "prims", "prim"):
            self._tell()
        return func(*args, **(kwargs or {}))
