"""Recurrent layers: several weights under one kernel, whose gates, layers and directions share one number of units."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import cast

import torch
from torch import Tensor, nn

from raydistill.compression.layer_kinds.base import Cut, LayerKind, select


@dataclass(frozen=True)
class Direction:
    """One layer of a recurrent module in one direction.

    layer, direction: numbers. suffix: of its tensors' names (``_l0_reverse``). inputs: the directions whose units it
    reads, in the order of its columns; empty in the first layer, which reads the module's input.
    """

    layer: int
    direction: int
    suffix: str
    inputs: tuple[int, ...]
    """Positions in `directions` of what it reads."""


@dataclass(frozen=True)
class RecurrentKind(LayerKind):
    """`torch.nn.LSTM`, `GRU` and `RNN`. A row is a unit: those of the first layer, its reverse ones, of the second, ...

    A unit is a row of each gate in the layer's four tensors, a column of ``weight_hh`` and one of the next layer.
    """

    counted: bool = True
    recurrent: bool = True
    whole: str = "which is recurrent: only its units are thinned"
    numbers: tuple[str, ...] | None = ()

    def rounded(self, module: nn.Module) -> dict[str, int | None]:
        return {name: 0 for name, tensor in module.named_parameters(recurse=False) if tensor.dim() == 2}

    def rows(self, module: nn.Module) -> int:
        rnn = _rnn(module)
        return rnn.hidden_size * len(directions(rnn))

    def columns(self, module: nn.Module) -> int:
        return _rnn(module).input_size

    def may_be_cut(self, module: nn.Module) -> bool:
        return not _rnn(module).proj_size

    def can_lose(self, module: nn.Module, is_column: bool) -> bool:
        del is_column
        return self.may_be_cut(module)

    def groups(self, module: nn.Module) -> int:
        """Layers and directions: each has as many units as every other."""
        return len(directions(module))

    def zero_columns(self, module: nn.Module) -> Tensor:
        """Which of its inputs no direction reads (bool, one an input)."""
        first = [part for part in directions(module) if not part.inputs]
        return torch.stack([(getattr(module, f"weight_ih{part.suffix}") == 0).all(0) for part in first]).all(0)

    def cuts(self, module: nn.Module, keep_rows: Tensor | None, keep_columns: Tensor | None) -> dict[str, Cut]:
        rnn, width = _rnn(module), _rnn(module).hidden_size
        parts = directions(rnn)
        result: dict[str, Cut] = {}
        if keep_rows is None:
            inputs = [part for part in parts if not part.inputs] if keep_columns is not None else []
            return {f"weight_ih{part.suffix}": partial(_both, None, keep_columns) for part in inputs}
        kept = list((keep_rows % width).view(len(parts), -1))
        for part, own in zip(parts, kept, strict=True):
            rows = torch.cat([own + gate * width for gate in range(gates(rnn))])
            read = [kept[index] + place * width for place, index in enumerate(part.inputs)]
            columns = torch.cat(read) if read else keep_columns
            result[f"weight_ih{part.suffix}"] = partial(_both, rows, columns)
            result[f"weight_hh{part.suffix}"] = partial(_both, rows, own)
            if rnn.bias:
                result |= {f"{name}{part.suffix}": partial(select, 0, rows) for name in ("bias_ih", "bias_hh")}
        return result

    def fit(self, module: nn.Module, rows: int | None = None) -> None:
        rnn, first = _rnn(module), directions(module)[0].suffix
        rnn.hidden_size = getattr(rnn, f"weight_hh{first}").shape[1]
        rnn.input_size = getattr(rnn, f"weight_ih{first}").shape[1]
        if not self.cell:
            rnn.flatten_parameters()


@dataclass(frozen=True)
class CellKind(RecurrentKind):
    """`torch.nn.LSTMCell` and its kin: one layer in one direction, whose steps are the model's own code."""

    cell: bool = True

    def may_be_cut(self, module: nn.Module) -> bool:
        return isinstance(getattr(module, "weight_hh", None), nn.Parameter)  # not computed anew from others


RECURRENT = RecurrentKind()
CELL = CellKind()


def directions(module: nn.Module) -> tuple[Direction, ...]:
    """All of a recurrent module, in the order of its rows; of a cell the only one."""
    rnn = _rnn(module)
    return tuple(_directions(rnn)) if hasattr(rnn, "num_layers") else (Direction(0, 0, "", ()),)


def _directions(rnn: nn.RNNBase) -> Iterator[Direction]:
    count = 2 if rnn.bidirectional else 1
    for layer in range(rnn.num_layers):
        below = tuple((layer - 1) * count + each for each in range(count)) if layer else ()
        for direction in range(count):
            yield Direction(layer, direction, f"_l{layer}{'_reverse' * direction}", below)


def gates(module: nn.Module) -> int:
    """How many rows of its weights each unit has."""
    rows: int = getattr(module, f"weight_hh{directions(module)[0].suffix}").shape[0]
    return rows // _rnn(module).hidden_size


def _both(rows: Tensor | None, columns: Tensor | None, tensor: Tensor) -> Tensor:
    tensor = tensor if rows is None else select(0, rows, tensor)
    return tensor if columns is None else select(1, columns, tensor)


def _rnn(module: nn.Module) -> nn.RNNBase:
    """The module with its attributes' types; it may be anything that has them."""
    return cast(nn.RNNBase, module)
