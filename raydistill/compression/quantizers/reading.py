"""A network as whoever quantizes it after training reads it: which calls are layers, what follows them, what only moves
values."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from torch import nn

from raydistill.compression.layer_kinds import kind_of
from raydistill.compression.quantizers.points import (
    ACTIVATIONS,
    JOINS,
    LAYERS,
    NORMS,
    POOLS,
    UNCHANGED,
    WEIGHTED,
    Point,
    readers,
)
from raydistill.compression.trace import Call, Trace

_SATURATED = {"tanh": 4.0, "sigmoid": 6.0}
"""Beyond these values nothing that an activation function gives can be told apart in 8 bits, as Distiller has it."""
_SPLITS = ("chunk", "split", "unbind")
_RUN_BY_MODULES = frozenset({"dropout", "dropout1d", "dropout2d", "dropout3d", "alpha_dropout", "feature_dropout"})
_RECURRENT = frozenset(
    {"gru", "gru_cell", "lstm", "lstm_cell", "rnn_relu", "rnn_tanh", "rnn_relu_cell", "rnn_tanh_cell"}
)
_MULTIPLYING = WEIGHTED | _RECURRENT | {"bmm", "embedding", "embedding_bag", "matmul", "multi_head_attention_forward"}
_OPERATIONS = LAYERS | ACTIVATIONS | JOINS | POOLS | NORMS | _RECURRENT | {"embedding", "embedding_bag", "div"}


@dataclass(frozen=True)
class After:
    """The activation function that alone reads what a call gives. point: of its own call; of several, the first's."""

    function: str
    index: int
    point: Point

    def bounds(self, highest: float) -> tuple[float, float]:
        """The range of values that it tells apart. highest: that were seen."""
        if self.function == "relu":
            return 0.0, max(highest, 0.0)
        if self.function == "relu6":
            return 0.0, min(max(highest, 0.0), 6.0)
        reach = _SATURATED[self.function]
        return -reach, reach


class Reading:
    """One network's trace. points: of each call, by its position in the trace."""

    def __init__(self, model: nn.Module, seen: Trace, points: Mapping[int, Point]) -> None:
        self.calls, self.points = seen.calls, points
        self._modules = dict(model.named_modules())
        self._leaves = {name for name, module in self._modules.items() if name and not list(module.children())}
        self._parameters = dict(model.named_parameters())
        self._readers = readers(seen)
        self._index = {id(call): index for index, call in enumerate(seen.calls)}
        self._given = {position for visit in seen.visits if not visit.module for position in visit.outputs}
        self._ends = {position for visit in seen.visits if visit.module in self._leaves for position in visit.outputs}
        self._taken: set[int] = set()
        self._runs = Counter(point.key for point in points.values())
        self._axes = {
            f"{name}.{attribute}" if name else attribute: axis
            for name, module in model.named_modules()
            for attribute, axis in kind_of(module).rounded(module).items()
        }

    def function(self, index: int) -> str:
        return self.calls[index].function

    def is_layer(self, index: int) -> bool:
        """Whether it multiplies or brings together: what integer kernels are for."""
        return self.function(index) in LAYERS | JOINS | _RECURRENT

    def multiplies(self, index: int) -> bool:
        return self.function(index) in WEIGHTED | {"matmul", "bmm", "mul"}

    def moves_only(self, index: int) -> bool:
        """Whether what it gives needs no rounding of its own. A module that stands alone is taken at its word: what it
        gives has statistics, and a grid, of its own, but for one of dropout."""
        if index in self._taken:
            return True
        function = self.function(index)
        return function in UNCHANGED and (index not in self._ends or function in _RUN_BY_MODULES)

    def is_quantizable(self, index: int) -> bool:
        """A module's result, or that of a function that is known to compute with values."""
        return index in self._ends or self.function(index) in _OPERATIONS

    def ends_module(self, index: int) -> bool:
        """Whether a module that has no other in it gives this."""
        return index in self._ends

    def takes_over(self, after: int) -> None:
        """What an activation function gives is rounded with what it alone reads."""
        self._taken.add(after)

    def runs_often(self, index: int) -> bool:
        """Whether a call is one of several of the same point: of a module that runs more than once."""
        return self._runs[self.points[index].key] > 1

    def weights_of(self, call: Call) -> dict[str, int | None]:
        """The names of what a layer multiplies by; the dimension of its output channels, None where it has none."""
        if call.function not in _MULTIPLYING:
            return {}
        named = [name for name in call.parameters if self._parameters[name].dim() >= 2]
        found: dict[str, int | None] = {name: self._axes[name] for name in named if name in self._axes}
        if not found and named:
            found[named[0]] = 0 if call.function in WEIGHTED else None
        return found

    def activation_after(self, index: int) -> After | None:
        """The one that alone reads what a call gives, where it tells apart less than all of it."""
        reads = self._readers[index]
        if len(reads) != 1 or index in self._given:
            return None
        if reads[0].function in _SPLITS:
            return self._after_split(self._index[id(reads[0])])
        after = self._index[id(reads[0])]
        function = self._plain(after)
        return After(function, after, self.points[after]) if function else None

    def _after_split(self, index: int) -> After | None:
        functions = {self._plain(self._index[id(call)]) for call in self._readers[index]}
        if not functions or "" in functions or functions - set(_SATURATED):
            return None
        function = "tanh" if functions == {"tanh"} else "sigmoid"  # the wider one, where both are there
        return After(function, index, self.points[index])

    def _plain(self, index: int) -> str:
        """The name of an activation function of these; "" of what else there is."""
        function = self.function(index)
        if function == "hardtanh":
            module = self._modules[self.calls[index].module]
            bounds = (getattr(module, "min_val", None), getattr(module, "max_val", None))
            return "relu6" if bounds == (0, 6) or isinstance(module, nn.ReLU6) else ""
        return function if function in ("relu", "relu6", *_SATURATED) else ""


def read_network(model: nn.Module, seen: Trace, points: Mapping[int, Point]) -> Reading:
    return Reading(model, seen, points)
