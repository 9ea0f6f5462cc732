"""What a network went through since its factory built it: an ordered list of changes that can be made again.

Each change is plain data (names, numbers, indices), so a checkpoint can hold the list, and `replay` gives a fresh model
of the same factory the same shapes. A kind of change is one class more on the menu.
"""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol, TypeVar

from torch import Tensor, nn

from raydistill.compression.layer_kinds import Cut
from raydistill.compression.structure.dropped import Dropped
from raydistill.compression.structure.folded import Folded
from raydistill.compression.structure.frozen import Frozen
from raydistill.compression.structure.quantized import Quantized
from raydistill.compression.structure.thinned import Selection, Thinned
from raydistill.errors import CheckpointError, Fault, close_match

Model = TypeVar("Model", bound=nn.Module)


class Change(Protocol):
    """One change of a network's structure."""

    NAME: ClassVar[str]

    def apply(self, model: nn.Module, where: str = ...) -> None:
        """Make it to another model, in place; CheckpointError where it does not fit."""

    def to_state(self) -> dict[str, object]:
        """Plain values and tensors, safe for ``weights_only=True``."""


@dataclass(frozen=True)
class StructureChange:
    """What was just done to a network in mid-run, as all hear of it that hold something of its shapes.

    change: to be made again. cuts: by the name of each parameter and buffer that was cut, the function that cuts
    whatever has its shape.
    """

    change: Change
    cuts: Mapping[str, Cut]

    def follow(self, tensors: MutableMapping[str, Tensor]) -> None:
        """Cut these tensors, by the name of the parameter or buffer whose shape each has, as that was cut."""
        for name in [name for name in tensors if name in self.cuts]:
            tensors[name] = self.cuts[name](tensors[name])


MENU: dict[str, type[Thinned] | type[Dropped] | type[Folded] | type[Quantized] | type[Frozen]] = {
    kind.NAME: kind for kind in (Thinned, Dropped, Folded, Quantized, Frozen)
}
"""By the name that stands in a checkpoint, the class that has `from_state`."""

__all__ = [
    "Change", "Dropped", "Folded", "Frozen", "MENU", "Quantized", "Selection", "StructureChange", "Thinned", "replay",
    "structure_from", "structure_state",
]  # fmt: skip


def structure_state(structure: Sequence[Change]) -> list[dict[str, object]]:
    """A list of changes as plain values and tensors."""
    return [{"change": change.NAME, **change.to_state()} for change in structure]


def structure_from(state: object, where: str = "structure") -> tuple[Change, ...]:
    """What `structure_state` gave, whoever wrote it down.

    Raises:
        CheckpointError: it is not of that form, or has a change of a kind that is not known here.
    """
    if not isinstance(state, list) or not all(isinstance(entry, Mapping) for entry in state):
        raise CheckpointError(Fault(where, "must be a list of changes", state, "the file is damaged"))
    found: list[Change] = []
    for index, entry in enumerate(state):
        name = entry.get("change")
        if not isinstance(name, str) or name not in MENU:
            way_out = close_match(str(name), MENU) or "it may be of a later version"
            raise CheckpointError(Fault(f"{where}[{index}].change", "is not known", name, way_out))
        found.append(MENU[name].from_state(entry, f"{where}[{index}]"))
    return tuple(found)


def replay(model: Model, structure: Sequence[Change], where: str = "structure") -> Model:
    """Make all changes to a fresh model, in their order and in place, and return it.

    Its parameters remain the same objects. Shapes and widths then are those of the network that the changes come from;
    values are the fresh ones, of what stayed.

    Raises:
        CheckpointError: the model is not of the factory that the changes are of; some may have been made.
    """
    for index, change in enumerate(structure):
        change.apply(model, f"{where}[{index}]")
    return model
