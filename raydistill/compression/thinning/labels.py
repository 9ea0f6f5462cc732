"""Where channels go that are only moved about: one forward pass on numbers in place of activations.

Each layer gives, in place of its outputs, the number of each of its rows at every position. Reshapes, transposes,
splits, slices, concatenations and repeats move numbers about and change none, so whoever reads whole numbers knows
whose rows they are, whatever the model's own code does in between. What reads something else (a sum, a product) reads
unknown rows.
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.rnn import PackedSequence
from torch.overrides import TorchFunctionMode

from raydistill.compression.layer_kinds import kind_of, weighted
from raydistill.compression.thinning.inputs import Example, call, tensors

_SPAN = 2**20
"""Rows that a layer may have; numbers of double precision tell 2^33 such layers apart."""
_SCALING = frozenset({"mul", "mul_", "__mul__", "__rmul__", "multiply", "div", "div_", "__truediv__", "divide"})
_WEIGHTS = -(2.0**50) - 0.5
"""What stands for weights of attention, after their softmax."""


@dataclass(frozen=True)
class Rows:
    """Of whom something is read.

    layer: its name. where: int64, for each position the row. moved: whether it is only moved about; else it is so at
    the first time step only, as where positions are rotated in.
    """

    layer: str
    where: Tensor
    moved: bool = True


@dataclass(frozen=True)
class Site:
    """One call of attention.

    module: whose own code calls it. query: rows (heads, width of a head). key, value: the same, of the heads that share
    them. mixed: the layer whose columns read what each head gives, (heads, width of a value); None where that cannot be
    followed, or not one layer alone reads it.
    """

    module: str
    query: Rows
    key: Rows
    value: Rows
    mixed: Rows | None = None

    @property
    def heads(self) -> int:
        return len(self.query.where)

    @property
    def layers(self) -> tuple[str, ...]:
        """All that make and read what its heads do."""
        rows = (self.query, self.key, self.value, self.mixed)
        return tuple(dict.fromkeys(each.layer for each in rows if each is not None))


@dataclass
class Seen:
    """What one pass has found: calls of attention, and for each recurrent layer who reads its units.

    readers: by recurrent layer, for each of those that read its outputs the rows that stand in its columns.
    escaped: recurrent layers of which an output is given out by the network. states: positions among the network's
    outputs of states of recurrent layers, as they are, where the network can be given them again.
    """

    sites: list[Site] = field(default_factory=list)
    readers: dict[str, dict[str, Rows]] = field(default_factory=dict)
    escaped: set[str] = field(default_factory=set)
    states: set[int] = field(default_factory=set)
    unknown: list[str] = field(default_factory=list)
    """Modules with a call of attention whose queries, keys or values cannot be followed."""


@torch.no_grad()
def follow(model: nn.Module, example: Example) -> Seen:
    """One pass of a model in double precision, in eval mode, on its inputs; it is left as it is, but for hooks."""
    pass_ = _Pass(model)
    with pass_.hooked(), pass_:
        outputs = tensors(call(model, example))
    return pass_.finished(outputs, _takes_more(model, example))


class _Pass(TorchFunctionMode):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.sources: list[str] = []
        self.stack: list[str] = []
        self.owners = {
            id(parameter): name
            for name, module in model.named_modules()
            if weighted(module)
            for parameter in module.parameters(recurse=False)
            if parameter.dim() == 2
        }
        self.seen = Seen()
        self.mixed: dict[str, tuple[int, torch.Size]] = {}  # source of what a site gives: its number, (heads, width)
        self.state_sources: set[int] = set()
        self.cells: dict[str, Tensor] = {}  # what stands for their units, (units,)
        self.waiting: tuple[Rows, Rows] | None = None
        self.read_by: dict[str, list[tuple[str, Rows]]] = {}

    # Modules

    @contextlib.contextmanager
    def hooked(self) -> Iterator[None]:
        handles = []
        for name, module in self.model.named_modules():
            handles.append(module.register_forward_pre_hook(partial(self._enter, name), prepend=True))
            handles.append(module.register_forward_hook(partial(self._leave, name), always_call=True))
            change = self._change(name, module)
            if change is not None:
                handles.append(module.register_forward_hook(change, prepend=True, with_kwargs=True))
            if kind_of(module).cell:
                handles.append(module.register_forward_pre_hook(partial(self._read_state, name), with_kwargs=True))
            if weighted(module) or kind_of(module).recurrent:
                handles.append(module.register_forward_pre_hook(partial(self._read, name), with_kwargs=True))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _enter(self, name: str, module: nn.Module, inputs: object) -> None:
        self.stack.append(name)

    def _leave(self, name: str, module: nn.Module, inputs: object, output: object) -> None:
        self.stack.pop()

    def _change(self, name: str, module: nn.Module) -> Callable[..., object] | None:
        """What stands for a module's output, or None: it computes it."""
        kind = kind_of(module)
        if weighted(module):
            return lambda m, inputs, named, output: self._rows(name, output, kind.channel_axis(m, output.dim()))
        if kind.cell and kind.may_be_cut(module):
            return lambda m, inputs, named, output: self._step(name, output)
        if kind.recurrent and kind.may_be_cut(module):
            return lambda m, inputs, named, output: self._units(name, m, output)
        if _scales(module):
            return lambda m, inputs, named, output: inputs[0] if _alike(inputs, output) else output
        return None

    def _source(self, name: str) -> int:
        self.sources.append(name)
        return len(self.sources) * _SPAN

    def _rows(self, name: str, like: Tensor, axis: int) -> Tensor:
        base = self._source(name)
        shape = [1] * like.dim()
        shape[axis] = -1
        count = like.shape[axis]
        return (base + torch.arange(count, dtype=torch.float64, device=like.device)).view(shape).expand_as(like).clone()

    def _units(self, name: str, module: nn.Module, output: Any) -> object:
        """Of the last layer's outputs, and of what each layer ends with; a state of another kind is read by nobody."""
        sequence, states = output
        width: int = module.hidden_size  # type: ignore[assignment]
        total = kind_of(module).rows(module)
        state = self._source(name)
        self.state_sources.add(len(self.sources) - 1)
        base = self._source(name)

        def numbered(first: int, count: int, like: Tensor, source: int = base) -> Tensor:
            row = source + first + torch.arange(count, dtype=torch.float64, device=like.device)
            return row.expand(like.shape).clone()

        data = sequence.data if isinstance(sequence, PackedSequence) else sequence
        first = total - data.shape[-1]
        changed = numbered(first, data.shape[-1], data)
        last = states[0] if isinstance(states, tuple) else states
        rows = torch.stack([numbered(i * width, width, part, state) for i, part in enumerate(last.unbind(0))])
        given = sequence._replace(data=changed) if isinstance(sequence, PackedSequence) else changed
        if isinstance(states, tuple):  # of a cell's state, no reader can be told from one of its outputs
            return given, (rows, rows.clone(), *states[2:])
        return given, rows

    def _step(self, name: str, output: Any) -> object:
        """What a cell gives: its units, at every step the same numbers; a state of another kind is read by nobody."""
        units = output[0] if isinstance(output, tuple) else output
        if name not in self.cells:
            self.cells[name] = self._rows(name, units.reshape(-1, units.shape[-1])[0], -1)
        changed = self.cells[name].expand(units.shape).to(units.dtype).clone()
        return (changed, *output[1:]) if isinstance(output, tuple) else changed

    def _read_state(self, name: str, module: nn.Module, inputs: tuple[object, ...], named: dict[str, object]) -> None:
        """A cell that goes on from another's units, or from its own in another order, ties them to its own."""
        state = named.get("hx", inputs[1] if len(inputs) > 1 else None)
        units = state[0] if isinstance(state, tuple | list) else state
        for rows in self._whose(units, -1) if isinstance(units, Tensor) else ():
            if rows.layer != name or not torch.equal(rows.where, torch.arange(len(rows.where))):
                self.seen.escaped |= {rows.layer, name}

    def _read(self, name: str, module: nn.Module, inputs: tuple[object, ...], named: dict[str, object]) -> None:
        value = next(iter([*inputs, *named.values()]), None)
        value = value.data if isinstance(value, PackedSequence) else value
        if not isinstance(value, Tensor):
            return
        axis = -1 if kind_of(module).recurrent else kind_of(module).channel_axis(module, value.dim())
        for rows in self._whose(value, axis):
            self.read_by.setdefault(rows.layer, []).append((name, rows))

    def _whose(self, tensor: Tensor, axis: int) -> list[Rows]:
        """Of whom a tensor's channels are, the same at every position; nothing where some number is of no one."""
        flat = tensor.movedim(axis, -1).reshape(-1, tensor.shape[axis])
        flat = flat[(flat != 0).any(1)]  # zeros pad sequences
        if not flat.is_floating_point() or not len(flat) or not bool((flat == flat[0]).all()):
            return []
        return self._split(flat[0])

    def _split(self, numbers: Tensor) -> list[Rows]:
        """By layer: `where` has -1 at positions of another."""
        whole = numbers.double()
        known = (whole >= _SPAN) & (whole < (len(self.sources) + 1) * _SPAN)  # a product may be beyond all integers
        if not bool(((whole == whole.round()) & known).all()):
            return []
        index, where = (whole.long() // _SPAN - 1).cpu(), (whole.long() % _SPAN).cpu()
        found = []
        for source in index.unique().tolist():
            found.append(Rows(self.sources[source], torch.where(index == source, where, -1)))
        return found

    # Attention

    def __torch_function__(
        self,
        func: Callable[..., object],
        types: object,
        args: tuple[object, ...] = (),
        kwargs: Mapping[str, object] | None = None,
    ) -> Any:
        named = dict(kwargs or {})
        name = getattr(func, "__name__", "")
        if func is functional.scaled_dot_product_attention:
            query, key, value = _first(args, named, ("query", "key", "value"))
            return self._attend(self._of_head(query), self._of_head(key), value, query.shape[:-1])
        if name in _SCALING:
            scaled = _scaled(args)
            if scaled is not None:
                return scaled
        result = func(*args, **named)
        if name == "linear" and isinstance(result, Tensor):
            value, weight = _first(args, named, ("input", "weight"))
            return self._linear(value, weight, result)
        if name == "softmax" and isinstance(result, Tensor) and self.waiting is not None:
            return torch.full_like(result, _WEIGHTS)
        if name in ("matmul", "__matmul__", "bmm") and isinstance(result, Tensor) and result.dim() >= 3:
            one, other = _first(args, named, ("input", "other"))
            return self._product(one, other, result)
        if name == "einsum" and len(args) == 3 and isinstance(args[0], str) and isinstance(result, Tensor):
            one, other = _first(args[1:], named, ("operands", "operands"))
            return self._einsum(args[0], one, other, result)
        if name == "normalize":
            return args[0]  # over the channels of a head, as cosines are taken: a scale for each of its rows
        return result

    def _einsum(self, equation: str, one: Tensor, other: Tensor, result: Tensor) -> Tensor:
        """A product of two matrices for each of a batch, whatever it calls their sides."""
        sides = _sides(equation)
        if sides is None or result.dim() < 3:
            return result
        batch, (row, inner, column), (first, second, out) = sides
        if out.index(column) < out.index(row):  # the second's come first: the product of the second and the first
            one, other, first, second, row, column = other, one, second, first, column, row

        def matrices(tensor: Tensor, names: str, last: str) -> Tensor:
            return tensor.permute([names.index(name) for name in batch + last])

        made = matrices(result, out, row + column)
        found = self._product(matrices(one, first, row + inner), matrices(other, second, inner + column), made)
        return result if found is made else found.permute([(batch + row + column).index(name) for name in out])

    def _linear(self, value: Tensor, weight: Tensor, result: Tensor) -> Tensor:
        """A layer's weight that somebody else's code uses; a layer by itself has its hooks."""
        layer = self.owners.get(id(weight))
        if layer is None or layer in self.stack:
            return result
        for rows in self._whose(value, -1):
            self.read_by.setdefault(rows.layer, []).append((layer, rows))
        return self._rows(layer, result, -1)

    def _product(self, one: Tensor, other: Tensor, result: Tensor) -> Tensor:
        if one.is_floating_point() and bool((one == _WEIGHTS).all()) and self.waiting is not None:
            (asking, asked), self.waiting = self.waiting, None
            return self._attend(asking, asked, other, one.shape[:-1])
        query, key = self._of_head(one), self._of_head(other.transpose(-2, -1))
        if query is not None and key is not None:
            self.waiting = (query, key)
        return result

    def _of_head(self, tensor: Tensor) -> Rows | None:
        """The rows of each head, (heads, width), of (..., heads, T, width)."""
        if tensor.dim() < 4 or not tensor.is_floating_point():
            return None
        flat = tensor.flatten(0, -4)
        first = flat[0, :, 0]
        found = self._split(first.flatten())
        if len(found) != 1 or not bool((flat[:, :, 0] == first).all()):
            return None
        moved = bool((flat == first.unsqueeze(1)).all())
        return Rows(found[0].layer, found[0].where.view(first.shape), moved)

    def _attend(self, query: Rows | None, key: Rows | None, value: Tensor, leading: torch.Size) -> Tensor:
        """What a call of attention gives: the numbers of its heads."""
        result = value.new_zeros((*leading, value.shape[-1]))
        valued = self._of_head(value)
        module = self.stack[-1] if self.stack else ""
        if query is None or key is None or valued is None:
            self.seen.unknown.append(module)
            return result
        heads, width = len(query.where), valued.where.shape[1]
        base = self._source(f".{len(self.seen.sites)}")  # no layer's name begins with a dot
        self.mixed[self.sources[-1]] = (len(self.seen.sites), torch.Size((heads, width)))
        self.seen.sites.append(Site(module, query, key, valued))
        numbers = base + torch.arange(heads * width, dtype=torch.float64, device=value.device).view(heads, 1, width)
        return numbers.expand(result.shape).to(value.dtype).clone()

    # The end

    def finished(self, outputs: list[Tensor], takes_states: bool) -> Seen:
        seen = self.seen
        for source, (index, shape) in self.mixed.items():
            found = self.read_by.get(source, [])
            if len({name for name, _ in found}) == 1:
                name, rows = found[0]
                columns = torch.full((shape.numel(),), -1)
                known = rows.where >= 0
                columns[rows.where[known]] = torch.arange(len(rows.where))[known]
                if bool((columns >= 0).all()) and len(rows.where) == len(columns):
                    site = seen.sites[index]
                    mixed = Rows(name, columns.view(shape))
                    seen.sites[index] = Site(site.module, site.query, site.key, site.value, mixed)
        for name, module in self.model.named_modules():
            if kind_of(module).recurrent:
                readers = seen.readers.setdefault(name, {})
                for reader, rows in self.read_by.get(name, []):
                    before = readers.get(reader, Rows(name, torch.full_like(rows.where, -1)))
                    readers[reader] = Rows(name, torch.where(before.where >= 0, before.where, rows.where))
        for index, tensor in enumerate(outputs):
            of = {int(n) // _SPAN - 1 for n in tensor.double().flatten().unique().tolist() if _is_number(n)}
            of = {source for source in of if source < len(self.sources)}
            if takes_states and of and of <= self.state_sources:
                seen.states.add(index)
            else:
                seen.escaped |= {self.sources[source] for source in of} & set(seen.readers)
        return seen


def _sides(equation: str) -> tuple[str, tuple[str, str, str], tuple[str, str, str]] | None:
    """Of an equation of two tensors: the names of its batch; of rows, of what is summed over and of columns, where
    there is one of each; and all names of the first, the second and the result. None: it is something else."""
    given, arrow, out = equation.replace(" ", "").partition("->")
    first, comma, second = given.partition(",")
    if not arrow or not comma or "." in equation or "," in second:
        return None
    batch = "".join(name for name in out if name in first and name in second)
    row, column = (
        "".join(n for n in out if n in one and n not in other) for one, other in ((first, second), (second, first))
    )
    inner = "".join(name for name in first if name in second and name not in out)
    whole = len(first) == len(batch) + 2 == len(second) == len(out) and len(row) == len(column) == len(inner) == 1
    return (batch, (row, inner, column), (first, second, out)) if whole else None


def _is_number(value: float) -> bool:
    return value >= _SPAN and value == value // 1


def _takes_more(model: nn.Module, example: Example) -> bool:
    """Whether a network can be given more than the example has: the states that it gave out."""
    given = 1 if isinstance(example, Tensor) else len(example)
    parameters = inspect.signature(model.forward).parameters.values()
    return sum(each.kind in (each.POSITIONAL_OR_KEYWORD, each.KEYWORD_ONLY) for each in parameters) > given


def _scaled(args: tuple[object, ...]) -> Tensor | None:
    """Numbers of rows that are taken times a scalar are theirs still."""
    if len(args) < 2:
        return None
    tensor, factor = args[:2] if isinstance(args[0], Tensor) and args[0].dim() else args[1::-1]
    scalar = isinstance(factor, float | int) or (isinstance(factor, Tensor) and factor.dim() == 0)
    if not (scalar and isinstance(tensor, Tensor) and tensor.is_floating_point() and tensor.numel()):
        return None
    return tensor if bool(tensor.flatten()[0] >= _SPAN) else None


def _first(args: tuple[object, ...], named: Mapping[str, object], names: tuple[str, ...]) -> list[Any]:
    """Positional arguments by their names, however they were given."""
    return [args[index] if index < len(args) else named[name] for index, name in enumerate(names)]


def _scales(module: nn.Module) -> bool:
    """Whether a module's own tensors are of one dimension at most, as a norm's: its channels stay where they are."""
    own = [*module.parameters(recurse=False)]
    return bool(own) and all(tensor.dim() <= 1 for tensor in own) and not list(module.children())


def _alike(inputs: tuple[object, ...], output: object) -> bool:
    first = inputs[0] if inputs else None
    return isinstance(first, Tensor) and isinstance(output, Tensor) and first.shape == output.shape
