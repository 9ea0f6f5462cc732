"""Which units of a recurrent layer are dead.

A unit is dead where nobody reads it (columns of ``weight_hh``, of the next layer, of whoever reads the last one), or
where it stays at zero: the rows of its candidate gate, biases included, are zero, and its state begins at zero. All
layers and directions of one module have one number of units, so each loses as many, of its own choice.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from raydistill.compression.layer_kinds import kind_of
from raydistill.compression.layer_kinds.recurrent import directions, gates
from raydistill.compression.thinning.decide import CHANNELS, FILTERS
from raydistill.compression.thinning.labels import Rows
from raydistill.compression.thinning.parts import Leaving, Part

_CANDIDATE = {4: 2, 3: 2, 1: 0}
"""By how many gates a layer has: which of them gives what is new. An LSTM's are input, forget, cell, output; a GRU's
are reset, update, new."""


@dataclass(frozen=True, kw_only=True)
class UnitCut(Part):
    """units: of each layer and direction, before and after."""

    layer: str
    units: tuple[int, int]

    @property
    def block(self) -> str:
        return self.layer

    @property
    def layers(self) -> tuple[str, ...]:
        return (self.layer,)

    def sizes(self) -> dict[int, int]:
        return dict([self.units])

    def __str__(self) -> str:
        return f"{self.units[0] - self.units[1]} of {self.units[0]} units"


@torch.no_grad()
def unit_cut(layer: str, model: nn.Module, readers: Mapping[str, Rows], structures: Collection[str]) -> UnitCut | None:
    """What can go of a recurrent layer without another output, or None.

    readers: who reads its last layer's outputs, and in which columns. Whoever it misses makes the outputs differ.
    """
    module = model.get_submodule(layer)
    width = kind_of(module).rows(module) // len(directions(module))
    dead = torch.zeros(len(directions(module)), width, dtype=torch.bool)
    if CHANNELS in structures:
        dead |= _unread(module, model, readers, width)
    if FILTERS in structures:
        dead |= _silent(module, width)
    count = min(int(dead.sum(1).min()), width - 1)
    if not count:
        return None
    going = torch.cat([row.nonzero().flatten()[:count] + index * width for index, row in enumerate(dead)])
    leaving: Leaving = {(layer, False): going}
    for reader, rows in readers.items():
        columns = torch.isin(rows.where, going).nonzero().flatten()
        if len(columns):
            leaving[reader, True] = columns
    return UnitCut(layer=layer, units=(width, width - count), leaving=leaving)


def _unread(module: nn.Module, model: nn.Module, readers: Mapping[str, Rows], width: int) -> Tensor:
    parts = directions(module)
    last = max(part.layer for part in parts)
    unread = torch.ones(len(parts), width, dtype=torch.bool)
    for index, part in enumerate(parts):
        unread[index] &= _zero_columns(module, f"weight_hh{part.suffix}", 0, width)
        for place, below in enumerate(part.inputs):
            unread[below] &= _zero_columns(module, f"weight_ih{part.suffix}", place * width, width)
        if part.layer == last and not readers:
            unread[index] = False
    for reader, rows in readers.items():
        other = model.get_submodule(reader)
        columns = kind_of(other).zero_columns(other).cpu()
        unread.view(-1)[rows.where[(rows.where >= 0) & ~columns]] = False
    return unread


def _silent(module: nn.Module, width: int) -> Tensor:
    first = _CANDIDATE[gates(module)] * width
    rows = []
    for part in directions(module):
        names = [f"{name}{part.suffix}" for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")]
        own: list[Tensor] = [getattr(module, name) for name in names if hasattr(module, name)]
        rows.append(torch.stack([(t[first : first + width] == 0).view(width, -1).all(1) for t in own]).all(0).cpu())
    return torch.stack(rows)


def _zero_columns(module: nn.Module, name: str, first: int, width: int) -> Tensor:
    weight: Tensor = getattr(module, name)
    return (weight[:, first : first + width] == 0).all(0).cpu()
