"""The record of blocks that did nothing and are gone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from raydistill.errors import ABSENT, CheckpointError, Fault, close_match

_WAY_OUT = "it belongs to another architecture, or is damaged"


class Shift(nn.Module):
    """What is left of a block: its first input, or zeros of that shape, plus a constant for each channel.

    passes: whether the input goes on. width: channels of the constant, 0 where there is none. axis: the dimension of
    the channels, counted from the end. outputs: 0 where the block gave a tensor, else how many entries its tuple had,
    of which only the first is one.
    """

    def __init__(self, passes: bool, width: int = 0, axis: int = -1, outputs: int = 0) -> None:
        super().__init__()
        self.passes, self.axis, self.outputs = passes, axis, outputs
        self.value = nn.Parameter(torch.zeros(width)) if width else None

    def forward(self, *inputs: object, **named: object) -> object:
        states = next(value for value in (*inputs, *named.values()) if isinstance(value, Tensor))
        result = states if self.passes else torch.zeros_like(states)
        if self.value is not None:
            result = result + self.value.view(-1, *[1] * (-1 - self.axis))
        return (result, *[None] * (self.outputs - 1)) if self.outputs else result

    def extra_repr(self) -> str:
        return "input" if self.passes else "zeros"


@dataclass(frozen=True)
class Rest:
    """The arguments of the `Shift` that is left of a block."""

    passes: bool
    width: int
    axis: int
    outputs: int


@dataclass(frozen=True)
class Dropped:
    """blocks: by the name of a module that is gone, what is left of it."""

    NAME: ClassVar[str] = "dropped"

    blocks: Mapping[str, Rest]

    def __bool__(self) -> bool:
        return bool(self.blocks)

    def apply(self, model: nn.Module, where: str = "structure") -> None:
        """Put the rests in place of the blocks; their constants are zero.

        Raises:
            CheckpointError: the model has no such modules; then nothing was changed.
        """
        modules = dict(model.named_modules())
        for name in self.blocks:
            if not name or name not in modules:
                way_out = close_match(name, modules) or _WAY_OUT
                raise CheckpointError(Fault(f"{where}.blocks", "the model has no such module", name, way_out))
        for name, rest in self.blocks.items():
            first = next(modules[name].parameters(), torch.zeros(()))
            left = Shift(**asdict(rest)).to(first.device, first.dtype).train(modules[name].training)
            owner, _, attribute = name.rpartition(".")
            setattr(modules[owner], attribute, left)

    def to_state(self) -> dict[str, object]:
        return {"blocks": {name: asdict(rest) for name, rest in self.blocks.items()}}

    @classmethod
    def from_state(cls, state: Mapping[str, object], where: str = "structure") -> Dropped:
        """What `to_state` gave, whoever wrote it down.

        Raises:
            CheckpointError: it is not of that form.
        """
        blocks = state.get("blocks")
        if not isinstance(blocks, Mapping) or not all(isinstance(name, str) for name in blocks):
            raise CheckpointError(Fault(f"{where}.blocks", "must map modules to what is left", blocks, _WAY_OUT))
        return cls({name: _rest(entry, f"{where}.blocks.{name}") for name, entry in blocks.items()})


def _rest(entry: object, where: str) -> Rest:
    if not isinstance(entry, Mapping) or not isinstance(entry.get("passes"), bool):
        raise CheckpointError(Fault(where, "must say whether the input passes", entry, _WAY_OUT))
    bounds = {"width": (0, 1 << 24), "axis": (-8, -1), "outputs": (0, 64)}
    for name, (least, most) in bounds.items():
        value = entry.get(name, ABSENT)
        if type(value) is not int or not least <= value <= most:
            raise CheckpointError(
                Fault(f"{where}.{name}", f"must be a whole number from {least} to {most}", value, _WAY_OUT)
            )
    return Rest(entry["passes"], entry["width"], entry["axis"], entry["outputs"])
