"""The record of one thinning: of each layer that lost channels, which stayed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from raydistill.compression.layer_kinds import LayerKind, kind_of, weighted
from raydistill.compression.structure.cut import Sides, cut
from raydistill.errors import ABSENT, CheckpointError, Fault, close_match

_WAY_OUT = "it belongs to another architecture or dataset, or is damaged"


@dataclass(frozen=True)
class Selection:
    """Of `width` channels those that stay: their positions, sorted."""

    width: int
    kept: tuple[int, ...]

    def indices(self) -> Tensor:
        """int64, (kept,)."""
        return torch.tensor(self.kept, dtype=torch.int64)


@dataclass(frozen=True)
class Thinned:
    """outputs, inputs: by module name, what stayed of the rows and of the columns of a layer that lost some.

    A layer that keeps channels apart (a norm, PReLU, a depthwise conv) has outputs only.
    """

    NAME: ClassVar[str] = "thinned"

    outputs: Mapping[str, Selection]
    inputs: Mapping[str, Selection]

    def __bool__(self) -> bool:
        return bool(self.outputs or self.inputs)

    @classmethod
    def of(cls, model: nn.Module, leaving: Mapping[tuple[str, bool], Tensor]) -> Thinned:
        """What stays of a model where these positions go: by layer and whether they are columns (else rows)."""
        outputs: dict[str, Selection] = {}
        inputs: dict[str, Selection] = {}
        for (layer, is_column), positions in leaving.items():
            module = model.get_submodule(layer)
            width = (kind_of(module).columns if is_column else kind_of(module).rows)(module)
            stays = torch.ones(width, dtype=torch.bool)
            stays[positions] = False
            selection = Selection(width, tuple(stays.nonzero().flatten().tolist()))
            (inputs if is_column else outputs)[layer] = selection
        return cls(outputs, inputs)

    def sides(self) -> dict[str, Sides]:
        """By layer, the indices of its rows and of its columns that stay; None: all."""
        rows = {layer: selection.indices() for layer, selection in self.outputs.items()}
        columns = {layer: selection.indices() for layer, selection in self.inputs.items()}
        return {layer: (rows.get(layer), columns.get(layer)) for layer in (rows | columns)}

    def apply(self, model: nn.Module, where: str = "structure") -> None:
        """Make the same change to another model, in place: its values of what stayed stay.

        Raises:
            CheckpointError: the model has no such layers, or not of these widths; then nothing was changed.
        """
        for name, side, is_column in (("outputs", self.outputs, False), ("inputs", self.inputs, True)):
            for layer, selection in side.items():
                _check(model, layer, selection, is_column, f"{where}.{name}.{layer}")
        cut(model, self.sides())

    def to_state(self) -> dict[str, object]:
        """Plain values and int64 tensors."""
        sides = (("outputs", self.outputs), ("inputs", self.inputs))
        return {
            name: {layer: {"width": found.width, "kept": found.indices()} for layer, found in side.items()}
            for name, side in sides
        }

    @classmethod
    def from_state(cls, state: Mapping[str, object], where: str = "structure") -> Thinned:
        """What `to_state` gave, whoever wrote it down; lists will do for tensors.

        Raises:
            CheckpointError: it is not of that form.
        """
        sides = []
        for name in ("outputs", "inputs"):
            side = state.get(name)
            if not isinstance(side, Mapping) or not all(isinstance(layer, str) for layer in side):
                raise CheckpointError(Fault(f"{where}.{name}", "must map layers to what stayed", side, _WAY_OUT))
            sides.append({layer: _selection(found, f"{where}.{name}.{layer}") for layer, found in side.items()})
        return cls(*sides)


def _selection(state: object, where: str) -> Selection:
    width, kept = (state.get("width"), state.get("kept")) if isinstance(state, Mapping) else (None, None)
    if isinstance(kept, list) and all(type(position) is int and abs(position) < 1 << 62 for position in kept):
        kept = torch.tensor(kept, dtype=torch.int64)
    if type(width) is not int or not isinstance(kept, Tensor) or kept.dtype != torch.int64 or kept.dim() != 1:
        raise CheckpointError(Fault(where, "must have a width and a list of the positions kept", state, _WAY_OUT))
    inside = len(kept) > 0 and int(kept[0]) >= 0 and int(kept[-1]) < width
    if not inside or not bool((kept[1:] > kept[:-1]).all()):
        rule = f"must keep positions from 0 to {width - 1}, sorted, each once"
        raise CheckpointError(Fault(where, rule, kept.tolist(), _WAY_OUT))
    return Selection(width, tuple(kept.tolist()))


def _check(model: nn.Module, layer: str, selection: Selection, is_column: bool, where: str) -> None:
    modules = dict(model.named_modules())
    if layer not in modules:
        way_out = close_match(layer, modules) or _WAY_OUT
        raise CheckpointError(Fault(where, "the model has no such layer", ABSENT, way_out))
    module = modules[layer]
    kind = kind_of(module)
    if not _can_lose(kind, module, is_column):
        rule = "the model's layer of this name cannot lose channels there"
        raise CheckpointError(Fault(where, rule, type(module).__name__, _WAY_OUT))
    width = (kind.columns if is_column else kind.rows)(module)
    if selection.width != width:
        raise CheckpointError(Fault(where, f"must be of {width} channels", selection.width, _WAY_OUT))
    groups = kind.groups(module)
    if groups > 1 and not kind.is_depthwise(module):
        counts = torch.bincount(selection.indices() // (width // groups), minlength=groups)
        if not bool((counts == counts[0]).all()):
            raise CheckpointError(Fault(where, "must keep as many in each group", counts.tolist(), _WAY_OUT))


def _can_lose(kind: LayerKind, module: nn.Module, is_column: bool) -> bool:
    if weighted(module):
        return kind.may_be_cut(module) and not (is_column and kind.is_depthwise(module))
    return kind.keeps_apart(module) and not is_column
