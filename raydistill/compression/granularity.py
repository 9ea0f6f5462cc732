"""What structure: how a weight's elements form the groups that are kept or pruned together.

A weight is (out, in, kh, kw) for Conv2d, (out, in, k) for Conv1d and (out, in) for Linear. A granularity turns it into
a matrix (groups, elements of a group), and one keep/prune decision a group back into a mask of the weight's shape.

    Filters, 3D   one output filter, dim 0                  Channels   one input channel, dim 1
    2D            one kernel (kh, kw) of a filter           4D         the whole weight
    Rows          one output of a matrix, dim 0             Cols       one input of a matrix, dim 1
    Blocks        `block_shape` = (filters, channels, 1, 1) adjacent elements

A `Granularity` of one's own (an object of that class, or of one derived from it) is named in a schedule as
``pkg.mod:GRANULARITY``.

Dimensions are those of the weight as it is stored, as schedule files mean them: of a layer whose kind has its outputs
in dim 1 (`layer_kinds`: a transposed convolution, or one's own), Channels and Cols are the outputs.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from raydistill.errors import ABSENT, ConfigError, Fault, close_match
from raydistill.resolve import resolve_object


@dataclass(frozen=True)
class Granularity:
    """Groups are the combinations of the weight's `group_dims`; None: every element is a group of its own.

    dimensions: numbers of dimensions a weight may have.
    """

    name: str
    group_dims: tuple[int, ...] | None
    dimensions: tuple[int, ...]

    def fault_of(self, weight: Tensor) -> str:
        """What keeps this weight from having such groups; empty if nothing does."""
        if weight.dim() in self.dimensions:
            return ""
        wanted = " or ".join(map(str, self.dimensions))
        return f"group type {self.name} needs a weight of {wanted} dimensions, this one has {weight.dim()}"

    def groups(self, weight: Tensor) -> Tensor:
        """The weight as (groups, elements)."""
        if self.group_dims is None:
            return weight.reshape(-1, 1)
        rest = [dim for dim in range(weight.dim()) if dim not in self.group_dims]
        count = math.prod(weight.shape[dim] for dim in self.group_dims)
        return weight.permute(*self.group_dims, *rest).reshape(count, -1)

    def expand(self, keep: Tensor, weight: Tensor) -> Tensor:
        """One value a group, shape (groups,), as a tensor of the weight's shape."""
        if self.group_dims is None:
            return keep.reshape(weight.shape)
        shape = [size if dim in self.group_dims else 1 for dim, size in enumerate(weight.shape)]
        return keep.reshape(shape).expand_as(weight)


@dataclass(frozen=True)
class Blocks(Granularity):
    """Blocks of `filters` x `channels` adjacent elements at one kernel position (Distiller's Blocks)."""

    block_shape: tuple[int, int] = field(kw_only=True)

    def fault_of(self, weight: Tensor) -> str:
        fault = super().fault_of(weight)
        if fault:
            return fault
        filters, channels = self.block_shape
        if weight.shape[0] % filters or weight.shape[1] % channels:
            return f"blocks of {filters} filters and {channels} channels do not divide {tuple(weight.shape)}"
        return ""

    def _split(self, weight: Tensor) -> Tensor:
        """(filter blocks, filters, channel blocks, channels, positions)."""
        filters, channels = self.block_shape
        out, inputs = weight.shape[:2]
        return weight.reshape(out // filters, filters, inputs // channels, channels, -1)

    def groups(self, weight: Tensor) -> Tensor:
        filters, channels = self.block_shape
        return self._split(weight).permute(0, 2, 4, 1, 3).reshape(-1, filters * channels)

    def expand(self, keep: Tensor, weight: Tensor) -> Tensor:
        shape = self._split(weight).shape
        grid = keep.reshape(shape[0], 1, shape[2], 1, shape[4])
        return grid.expand(shape).reshape(weight.shape)


ELEMENT = Granularity("Element", None, tuple(range(1, 7)))
FILTERS = Granularity("Filters", (0,), (3, 4, 5))
CHANNELS = Granularity("Channels", (1,), (2, 3, 4, 5))
KERNELS = Granularity("2D", (0, 1), (3, 4, 5))
LAYER = Granularity("4D", (), (1, 2, 3, 4, 5))
ROWS = Granularity("Rows", (0,), (2,))
COLS = Granularity("Cols", (1,), (2,))

MENU: dict[str, Granularity] = {
    "Element": ELEMENT,
    "Filters": FILTERS,
    "3D": FILTERS,
    "Channels": CHANNELS,
    "2D": KERNELS,
    "4D": LAYER,
    "Rows": ROWS,
    "Cols": COLS,
}
BLOCKS_DIMENSIONS = (2, 3, 4, 5)


def fault_of(structure: Granularity, weight: Tensor) -> str:
    """What keeps this weight from having such groups; of a granularity of one's own, also what is wrong with it."""
    if structure in MENU.values() or type(structure) is Blocks:
        return structure.fault_of(weight)
    try:
        return structure.fault_of(weight) or _fault_of_own(structure, weight.detach())
    except Exception as error:
        return f"group type {structure.name} fails on {tuple(weight.shape)} ({type(error).__name__}: {error})"


def _fault_of_own(structure: Granularity, weight: Tensor) -> str:
    groups = structure.groups(weight)
    if groups.dim() != 2 or groups.numel() != weight.numel():
        rule = "groups() must give every element once, as (groups, elements)"
        return f"group type {structure.name}: {rule}: of {tuple(weight.shape)} it gives {tuple(groups.shape)}"
    numbers = torch.arange(groups.shape[0], device=weight.device)
    back = structure.expand(numbers, weight)
    if back.shape != weight.shape or not torch.equal(structure.groups(back), numbers[:, None].expand_as(groups)):
        return (
            f"group type {structure.name}: expand() must give each element of {tuple(weight.shape)} its group's value"
        )
    return ""


def granularity(
    argument: str,
    name: object,
    block_shape: object = None,
    allowed: Callable[[str], bool] | None = None,
    own: bool = True,
) -> Granularity:
    """The granularity of a name that an argument gives.

    block_shape: (filters, channels, 1, 1), for ``Blocks`` only. own: one's own will do too, as ``pkg.mod:NAME``.

    Raises:
        ConfigError: unknown or not `allowed` name, or block_shape missing, malformed or given without need.
    """
    if own and isinstance(name, str) and ":" in name:
        if block_shape is not None:
            raise ConfigError(Fault("block_shape", "is for group type Blocks only", block_shape, "leave it out"))
        return resolve_object(name, {}, Granularity, argument, "granularity")
    names = [entry for entry in (*MENU, "Blocks") if allowed is None or allowed(entry)]
    if name not in names:
        way_out = close_match(name, names) if isinstance(name, str) else ""
        raise ConfigError(Fault(argument, f"must be one of {', '.join(names)}", name, way_out))
    if name != "Blocks":
        if block_shape is not None:
            raise ConfigError(Fault("block_shape", "is for group type Blocks only", block_shape, "leave it out"))
        return MENU[str(name)]
    if block_shape is None:
        raise ConfigError(Fault("block_shape", "is missing", ABSENT, "Blocks needs one, such as [1, 8, 1, 1]"))
    if not isinstance(block_shape, (list, tuple)) or len(block_shape) != 4 or not all(map(_is_size, block_shape)):
        rule = "must be four whole numbers: filters, channels, height, width"
        raise ConfigError(Fault("block_shape", rule, block_shape, "such as [1, 8, 1, 1]"))
    if tuple(block_shape[2:]) != (1, 1):
        raise ConfigError(Fault("block_shape", "must end in 1, 1: blocks lie at one kernel position", block_shape))
    return Blocks("Blocks", None, BLOCKS_DIMENSIONS, block_shape=(block_shape[0], block_shape[1]))


def _is_size(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0
