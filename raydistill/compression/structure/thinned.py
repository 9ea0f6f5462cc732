"""The record of one thinning: of each layer that lost channels, which stayed."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from raydistill.compression.layer_kinds import Cut, kind_of
from raydistill.compression.layer_kinds.base import put_number, select
from raydistill.compression.structure.cut import Sides, cut, cut_tensor
from raydistill.errors import ABSENT, CheckpointError, Fault, close_match

_WAY_OUT = "it belongs to another architecture or dataset, or is damaged"


@dataclass(frozen=True)
class Selection:
    """Of `width` channels those that stay: their positions, sorted."""

    width: int
    kept: tuple[int, ...]

    @classmethod
    def without(cls, width: int, leaving: Tensor) -> Selection:
        """All but these positions."""
        stays = torch.ones(width, dtype=torch.bool)
        stays[leaving] = False
        return cls(width, tuple(stays.nonzero().flatten().tolist()))

    def indices(self) -> Tensor:
        """int64, (kept,)."""
        return torch.tensor(self.kept, dtype=torch.int64)


@dataclass(frozen=True)
class Thinned:
    """outputs, inputs: by module name, what stayed of the rows and of the columns of a layer that lost some.

    A layer that keeps channels apart (a norm, PReLU, a depthwise conv) has outputs only.

    attributes: by module name, numbers that its own code reads and that changed with the channels (of an attention, how
    many heads it has): their names, and what they were and are; of an object that it holds "config.num_heads", which
    it has a copy of then. tables: parameters outside layers (a
    bias for each head): the dimension, and what stayed of it.
    """

    NAME: ClassVar[str] = "thinned"

    outputs: Mapping[str, Selection]
    inputs: Mapping[str, Selection]
    attributes: Mapping[str, Mapping[str, tuple[float, float]]] = field(default_factory=dict)
    tables: Mapping[str, tuple[int, Selection]] = field(default_factory=dict)

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
            (inputs if is_column else outputs)[layer] = Selection.without(width, positions)
        return cls.with_numbers(model, outputs, inputs)

    @classmethod
    def with_numbers(
        cls, model: nn.Module, outputs: Mapping[str, Selection], inputs: Mapping[str, Selection]
    ) -> Thinned:
        """What stays, and the numbers that these layers of the model hold and that change with their rows."""
        attributes = {}
        for layer, stays in outputs.items():
            module = model.get_submodule(layer)
            numbers = kind_of(module).moved_numbers(module, stays.width / len(stays.kept))
            if numbers:
                attributes[layer] = numbers
        return cls(outputs, inputs, attributes)

    def under(self, named: Callable[[str], str]) -> Thinned:
        """The same change to a network that this one is a part of. named: what it calls a module or parameter."""
        return Thinned(
            {named(layer): found for layer, found in self.outputs.items()},
            {named(layer): found for layer, found in self.inputs.items()},
            {named(owner): changes for owner, changes in self.attributes.items()},
            {named(name): table for name, table in self.tables.items()},
        )

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
        for owner, changes in self.attributes.items():
            _check_attributes(model, owner, changes, f"{where}.attributes.{owner}")
        for name, (dim, selection) in self.tables.items():
            _check_table(model, name, dim, selection, f"{where}.tables.{name}")
        self.make(model)

    def make(self, model: nn.Module, optimizer: Optimizer | None = None) -> dict[str, Cut]:
        """Make it to a model that it fits; what was cut, as `cut` says it."""
        inside: dict[str, dict[str, Tensor]] = {}
        for layer in (*self.outputs, *self.inputs):
            owner, _, name = layer.rpartition(".")
            stays = inside.setdefault(owner, {})
            if layer in self.outputs:
                stays[name] = self.outputs[layer].indices()
        for owner, stays in inside.items():
            kind_of(model.get_submodule(owner)).before_cut(model.get_submodule(owner), stays)
        done = cut(model, self.sides(), optimizer)
        for name, (dim, selection) in self.tables.items():
            done[name] = partial(select, dim, selection.indices())
            cut_tensor(model.get_parameter(name), done[name], optimizer)
        self.set_numbers(model)
        return done

    def set_numbers(self, model: nn.Module) -> None:
        """Give the model's modules the numbers they have afterwards."""
        for owner, changes in self.attributes.items():
            for name, (_, now) in changes.items():
                put_number(model.get_submodule(owner), name, now)

    def to_state(self) -> dict[str, object]:
        """Plain values and int64 tensors."""
        sides = (("outputs", self.outputs), ("inputs", self.inputs))
        state: dict[str, object] = {
            name: {layer: {"width": found.width, "kept": found.indices()} for layer, found in side.items()}
            for name, side in sides
        }
        if self.attributes:
            state["attributes"] = {
                owner: {name: list(values) for name, values in changes.items()}
                for owner, changes in self.attributes.items()
            }
        if self.tables:
            state["tables"] = {
                name: {"dim": dim, "width": found.width, "kept": found.indices()}
                for name, (dim, found) in self.tables.items()
            }
        return state

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
        attributes = _attributes(state.get("attributes", {}), f"{where}.attributes")
        return cls(sides[0], sides[1], attributes, _tables(state.get("tables", {}), f"{where}.tables"))


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
    if not kind.can_lose(module, is_column):
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


def _attributes(state: object, where: str) -> dict[str, dict[str, tuple[float, float]]]:
    found: dict[str, dict[str, tuple[float, float]]] = {}
    for owner, changes in state.items() if isinstance(state, Mapping) else (("", state),):
        pairs = changes.items() if isinstance(changes, Mapping) else ()
        whole = [(n, v) for n, v in pairs if isinstance(v, (list, tuple)) and len(v) == 2 and _alike(*v)]
        if not isinstance(owner, str) or not pairs or len(whole) < len(pairs):
            rule = "must map modules to names of numbers, before and after"
            raise CheckpointError(Fault(where, rule, state, _WAY_OUT))
        found[owner] = {str(name): (values[0], values[1]) for name, values in whole}
    return found


def _alike(before: object, after: object) -> bool:
    """Two whole numbers, or two others that are finite."""
    if type(before) is not type(after) or type(before) not in (int, float):
        return False
    return math.isfinite(before) and math.isfinite(after)  # type: ignore[arg-type]


def _check_attributes(model: nn.Module, owner: str, changes: Mapping[str, tuple[float, float]], where: str) -> None:
    modules = dict(model.named_modules())
    if owner not in modules:
        way_out = close_match(owner, modules) or _WAY_OUT
        raise CheckpointError(Fault(where, "the model has no such module", ABSENT, way_out))
    for name, (before, after) in changes.items():
        held = kind_of(modules[owner]).number(modules[owner], name)
        fits = 0 < after < before if type(before) is int else after > 0
        if type(held) is not type(before) or held != before or not fits:
            rule = f"must be a number of the module's that goes down from {before}"
            raise CheckpointError(Fault(f"{where}.{name}", rule, after if held == before else held, _WAY_OUT))


def _tables(state: object, where: str) -> dict[str, tuple[int, Selection]]:
    if not isinstance(state, Mapping) or not all(isinstance(name, str) for name in state):
        raise CheckpointError(Fault(where, "must map parameters to what stayed", state, _WAY_OUT))
    found = {}
    for name, entry in state.items():
        dim = entry.get("dim") if isinstance(entry, Mapping) else None
        if type(dim) is not int or not 0 <= dim < 64:
            raise CheckpointError(Fault(f"{where}.{name}.dim", "must be a dimension", dim, _WAY_OUT))
        found[name] = (dim, _selection(entry, f"{where}.{name}"))
    return found


def _check_table(model: nn.Module, name: str, dim: int, selection: Selection, where: str) -> None:
    tensor = dict(model.named_parameters()).get(name)
    if tensor is None or dim >= tensor.dim() or tensor.shape[dim] != selection.width:
        rule = f"must be a parameter with {selection.width} entries in dimension {dim}"
        raise CheckpointError(Fault(where, rule, ABSENT if tensor is None else tuple(tensor.shape), _WAY_OUT))
