"""Who writes to one residual stream and who reads it, through norms and sums, whatever the model's code.

Each layer that could write to a stream of some width gives a random vector of its own, the same at every position, and
norms give what they get. Sums, scalings and moves leave whoever reads a stream with a sum of its writers' vectors, in
their order of channels; anything else is no such sum. So what a reader gets says who its writers are.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from raydistill.compression.layer_kinds import kind_of, weighted
from raydistill.compression.layer_kinds.base import along, one_each
from raydistill.compression.thinning.inputs import Example, call, tensors

_SMALL = 1e-7
_MOST_TIMES = 4
_PRODUCTS = frozenset({"mul", "mul_", "__mul__", "__rmul__", "multiply"})
_OF_LINEAR = ("input", "weight")


@dataclass
class Stream:
    """One residual stream.

    writers: layers whose rows are its channels, embeddings too. tables: parameters outside layers that are added, with
    their dimension. readers: layers of which it is the columns. norms: modules that it passes. apart: modules that it
    passes and that take each channel by itself, depthwise convs and layer scales. factors: parameters outside layers
    that it is taken times, with their dimension. times: of those that have it more than once, side by side (patches
    that are merged), how often. escapes: whether the network gives it out.
    """

    width: int
    writers: set[str] = field(default_factory=set)
    tables: dict[str, int] = field(default_factory=dict)
    readers: set[str] = field(default_factory=set)
    norms: set[str] = field(default_factory=set)
    apart: set[str] = field(default_factory=set)
    factors: dict[str, int] = field(default_factory=dict)
    times: dict[str, int] = field(default_factory=dict)
    escapes: bool = False

    def positions(self, name: str, channels: Tensor) -> Tensor:
        """Where a reader or norm has these channels, (channels, times)."""
        return channels.view(-1, 1) + self.width * torch.arange(self.times.get(name, 1))


@torch.no_grad()
def streams(model: nn.Module, example: Example, widths: Collection[int] | None = None) -> list[Stream]:
    """Those that pass a norm over channels. model: in double precision, in eval mode; it is left as it is. widths: only
    those of such."""
    found = []
    for width in sorted(_widths(model)):
        if widths is None or width in widths:
            found += _of_width(model, example, width)
    return found


def unwritten_widths(model: nn.Module) -> set[int]:
    """Widths of norms over channels in which some layer leaves a channel unwritten: only such streams can lose one."""
    kinds = [(kind_of(module), module) for module in model.modules()]
    dead = [(kind, module) for kind, module in kinds if weighted(module) or kind.embedding]
    widths = _widths(model)
    written = ((kind.rows(module), kind, module) for kind, module in dead)
    return {width for width, kind, module in written if width in widths and bool(kind.zero_rows(module).any())}


def _widths(model: nn.Module) -> set[int]:
    return {len(next(module.parameters())) for _, module in _norms(model)}


def _norms(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Modules with a number a channel and nothing else, which are no batch norms: norms over channels."""
    for name, module in model.named_modules():
        own = list(module.parameters())
        alone = bool(own) and all(tensor.dim() == 1 for tensor in own) and not list(module.children())
        if alone and not kind_of(module).norm and len({len(tensor) for tensor in own}) == 1:
            yield name, module


def _of_width(model: nn.Module, example: Example, width: int) -> list[Stream]:
    sources = _sources(model, width)
    passes = 2 + 2 * len(sources) // width  # so many numbers tell sums of some vectors from any others
    read: list[dict[tuple[str, str], Tensor]] = []
    vectors = []
    times: dict[str, int] = {}
    generator = torch.Generator().manual_seed(width)
    for _ in range(passes):
        drawn = torch.randn(len(sources), width, generator=generator, dtype=torch.float64)
        vectors.append(drawn)
        read.append(_run(model, example, dict(zip(sources, drawn, strict=True)), width, times))
    basis = torch.cat(vectors, 1)  # (sources, passes * width)
    groups: list[_Found] = []
    for key in set.intersection(*map(set, read)):
        members = _members(torch.cat([each[key] for each in read], 1), basis, list(sources))
        if members:
            sides = {_side(model, name, sources[name], False) for name in members}
            if key[0] == "read":
                sides.add(_side(model, key[1], None, True))
            groups = _joined(groups, (set(members), {key}, sides))
    result = []
    for who, keys, _ in groups:
        stream = Stream(width)
        for name in who:
            if sources[name] is None:
                stream.writers.add(name)
            else:
                stream.tables[name] = int(sources[name])
        for role, name in keys:
            {"read": stream.readers, "norm": stream.norms, "apart": stream.apart}.get(role, set()).add(name)
            if role == "factor":
                stream.factors[name] = along(model.get_parameter(name))
        stream.escapes = any(role == "given" for role, _ in keys)
        stream.times = {name: count for name, count in times.items() if name in stream.readers | stream.norms}
        if any(kind_of(model.get_submodule(name)).norm is False for name in stream.norms):
            result.append(stream)
    return result


_Found = tuple[set[str], set[tuple[str, str]], set[tuple[int, int]]]
"""Writers, who reads them in which role, and which dimensions of which tensors are of these channels."""


def _joined(groups: list[_Found], one: _Found) -> list[_Found]:
    """With one more; those of one writer are one, and those with one side of a tensor (tied embeddings)."""
    apart = []
    for other in groups:
        if other[0] & one[0] or other[2] & one[2]:
            one = (one[0] | other[0], one[1] | other[1], one[2] | other[2])
        else:
            apart.append(other)
    return [*apart, one]


def _side(model: nn.Module, name: str, dim: int | None, is_column: bool) -> tuple[int, int]:
    """A tensor and its dimension: of a parameter (dim), or of a layer's weight."""
    if dim is not None:
        return id(model.get_parameter(name)), dim
    module = model.get_submodule(name)
    kind = kind_of(module)
    return id(model.get_parameter(f"{name}.{kind.weight}")), kind.in_dim if is_column else kind.out_dim


def _sources(model: nn.Module, width: int) -> dict[str, Any]:
    """Layers that have so many rows (None), and parameters outside layers (their dimension)."""
    found: dict[str, Any] = {}
    for name, module in model.named_modules():
        kind = kind_of(module)
        if (weighted(module) or kind.embedding) and kind.rows(module) == width:
            if not kind.is_depthwise(module):
                found[name] = None
        elif kind.block:
            for own, tensor in module.named_parameters(name, recurse=False):
                dims = [dim for dim, size in enumerate(tensor.shape) if size == width]
                if tensor.dim() > 1 and len(dims) == 1:
                    found[own] = dims[0]
    return found


def _members(seen: Tensor, basis: Tensor, names: list[str]) -> list[str]:
    """Whose vectors add up to each row of `seen` (positions, numbers); nobody's where one row is no such sum."""
    if len(seen) > 1:  # most are the same everywhere, or a sum nowhere: to tell different rows apart takes long
        first = _members(seen[:1], basis, names)
        if not first or bool((seen == seen[0]).all()):
            return first
        seen = seen.unique(dim=0)
    weights = torch.linalg.lstsq(basis.T, seen.T).solution  # (sources, positions)
    rest = (seen.T - basis.T @ weights).abs().amax(0)
    if not bool(torch.isfinite(rest).all()) or not bool((rest <= _SMALL * seen.abs().amax(1).clamp_min(1.0)).all()):
        return []
    return [name for name, own in zip(names, weights.abs().amax(1).tolist(), strict=True) if own > _SMALL]


def _run(
    model: nn.Module, example: Example, vectors: dict[str, Tensor], width: int, times: dict[str, int]
) -> dict[tuple[str, str], Tensor]:
    """What is read by layers ("read"), norms ("norm"), what takes each channel by itself ("apart") and parameters
    ("factor"), and given out ("given"): (different positions, width). times: is told who has it how often, where that
    is more than once."""
    seen: dict[tuple[str, str], list[Tensor]] = {}

    def look(role: str, name: str, tensor: object, axis: int) -> None:
        if not isinstance(tensor, Tensor) or not tensor.is_floating_point() or not tensor.dim():
            return
        count, rest = divmod(tensor.shape[axis], width)
        if not rest and 1 <= count <= (1 if role == "given" else _MOST_TIMES):
            seen.setdefault((role, name), []).append(tensor.movedim(axis, -1).reshape(-1, width))
            if count > 1:
                times[name] = count

    def write(name: str, axis: Callable[[int], int], module: nn.Module, inputs: object, output: Any) -> Any:
        result = output[0] if isinstance(output, tuple) else output
        shape = [1] * result.dim()
        shape[axis(result.dim())] = width
        result = vectors[name].view(shape).expand_as(result).clone()
        return (result, *output[1:]) if isinstance(output, tuple) else result

    def read(name: str, module: nn.Module, inputs: tuple[object, ...], named: dict[str, object]) -> None:
        kind = kind_of(module)
        for tensor in (*inputs, *named.values()) if kind.heads(module) else [*inputs, *named.values()][:1]:
            axis = kind.channel_axis(module, tensor.dim()) if weighted(module) and isinstance(tensor, Tensor) else -1
            look("read", name, tensor, axis)

    def norm(name: str, module: nn.Module, inputs: tuple[Any, ...], output: object) -> object:
        axis = _axis(module, inputs[0])
        look("apart" if _is_scale(module, inputs[0], output, axis) else "norm", name, inputs[0], axis)
        return inputs[0] if isinstance(output, Tensor) else output

    def apart(name: str, module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> Tensor:
        axis = kind_of(module).channel_axis(module, output.dim())
        look("apart", name, inputs[0], axis)
        first = inputs[0].movedim(axis, 0).flatten(1)[:, 0]
        shape = [1] * output.dim()
        shape[axis] = -1
        return first.view(shape).expand_as(output).clone()

    with _hooked(model, vectors, write, read, norm, apart, width), _Functional(model, vectors, look, width):
        for tensor in tensors(call(model, example)):
            for axis in range(-tensor.dim(), 0):
                look("given", str(axis), tensor, axis)
    return {key: torch.cat(parts) for key, parts in seen.items()}


def _axis(module: nn.Module, tensor: Tensor) -> int:
    """The dimension of a norm's channels, counted from the end: the last one, or of maps the third from there, where
    their values differ. All positions read the same."""
    kind, count = kind_of(module), len(next(module.parameters()))
    if kind.norm:
        return kind.channel_axis(module, tensor.dim())
    fitting = [axis for axis in (-1, -3) if tensor.dim() >= -axis and tensor.shape[axis] == count]
    for axis in fitting:
        rows = tensor.movedim(axis, -1).reshape(-1, count)
        if bool((rows == rows[0]).all()):
            return axis
    return -1


def _is_scale(module: nn.Module, given: Tensor, output: object, axis: int) -> bool:
    """Whether a module takes each channel times its only parameter, and no more."""
    own = list(module.parameters())
    if len(own) > 1 or not isinstance(output, Tensor) or given.shape[axis] != len(own[0]):
        return False
    shape = [1] * given.dim()
    shape[axis] = -1
    return torch.allclose(output, given * own[0].view(shape))


class _Functional(TorchFunctionMode):
    """A layer's weight that somebody else's code multiplies by reads and writes as the layer does; a parameter with a
    number a channel that is a factor passes what it is taken times."""

    def __init__(
        self, model: nn.Module, vectors: dict[str, Tensor], look: Callable[[str, str, object, int], None], width: int
    ) -> None:
        super().__init__()
        self._vectors, self._look = vectors, look
        layers = ((name, module) for name, module in model.named_modules() if weighted(module))
        self._owners = {id(getattr(module, kind_of(module).weight)): name for name, module in layers}
        norms = {name for name, _ in _norms(model)}
        self._factors = {
            parameter.untyped_storage().data_ptr(): own
            for name, module in model.named_modules()
            for own, parameter in module.named_parameters(name, recurse=False)
            if kind_of(module).block and name not in norms and one_each(parameter) and parameter.numel() == width
        }

    def __torch_function__(
        self, func: Callable[..., object], types: object, args: Any = (), kwargs: Mapping[str, object] | None = None
    ) -> object:
        named = dict(kwargs or {})
        name = getattr(func, "__name__", "")
        if name in _PRODUCTS and len(args) == 2:
            scaled = self._scaled(*args)
            if scaled is not None:
                return scaled
        result = func(*args, **named)
        if name != "linear" or not isinstance(result, Tensor):
            return result
        given, weight = (args[index] if index < len(args) else named[key] for index, key in enumerate(_OF_LINEAR))
        layer = self._owners.get(id(weight))
        if layer is not None:
            self._look("read", layer, given, -1)
        return self._vectors[layer].expand_as(result).clone() if layer in self._vectors else result

    def _scaled(self, one: object, other: object) -> Tensor | None:
        """What is taken times a factor, as it is; None where neither of the two is one."""
        for factor, given in ((one, other), (other, one)):
            if isinstance(factor, Tensor) and isinstance(given, Tensor) and one_each(factor):
                name = self._factors.get(factor.untyped_storage().data_ptr())
                axis = along(factor) - factor.dim()
                if name is not None and given.dim() >= factor.dim() and given.shape[axis] == factor.numel():
                    self._look("factor", name, given, axis)
                    return given
        return None


@contextlib.contextmanager
def _hooked(
    model: nn.Module, vectors: dict[str, Tensor], write: Any, read: Any, norm: Any, apart: Any, width: int
) -> Iterator[None]:
    handles = []
    kept: list[tuple[nn.Parameter, Tensor]] = []
    norms = {name for name, module in _norms(model) if len(next(module.parameters())) % width == 0}
    batch_norms = (name for name, module in model.named_modules() if kind_of(module).batch_norm)
    norms |= {name for name in batch_norms if kind_of(module := model.get_submodule(name)).rows(module) == width}
    for name, module in model.named_modules():
        kind = kind_of(module)
        if kind.heads(module):
            mixer = f"{name}.out_proj" if name else "out_proj"
            if mixer in vectors:
                handles.append(module.register_forward_hook(partial(write, mixer, lambda dims: -1)))
        elif name in vectors:
            axis = partial(kind.channel_axis, module)
            handles.append(module.register_forward_hook(partial(write, name, axis)))
        if weighted(module) and kind.is_depthwise(module):
            if kind.rows(module) == width:
                handles.append(module.register_forward_hook(partial(apart, name)))
        elif kind.heads(module) or weighted(module):
            handles.append(module.register_forward_pre_hook(partial(read, name), with_kwargs=True))
        if name in norms:
            handles.append(module.register_forward_hook(partial(norm, name)))
    for name, parameter in model.named_parameters():
        if name in vectors:
            kept.append((parameter, parameter.data))
            dim = next(d for d, size in enumerate(parameter.shape) if size == width)
            shape = [1] * parameter.dim()
            shape[dim] = width
            parameter.data = vectors[name].view(shape).expand_as(parameter).clone()
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
        for parameter, content in kept:
            parameter.data = content
