"""What a model does, call by call: seen while it runs once, so any way of writing it will do.

Functional layers, modules used twice, operators between tensors: all are torch functions, and each call of one is
recorded with the module it happened in, the calls its inputs came from, and its multiply-accumulates (MACs). Attention
and recurrent layers are one call each.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode
from torch.utils.flop_counter import FlopCounterMode

from raydistill.compression.adjacency import run_once
from raydistill.compression.layer_kinds import kind_of
from raydistill.errors import ConfigError, Fault

INPUT = "input"
"""The function of the call that stands for all of the model's inputs."""


@dataclass(frozen=True)
class Call:
    """One call of a torch function that gave a tensor.

    function: ``conv2d``, ``relu``, ``add``; in-place variants have the plain name. module: dotted name of the innermost
    module that ran it, "" for the model itself. visit: how many times that module had been entered before. inputs:
    positions in the trace of the calls that made its tensors; parameters and constants have none. parameters: names of
    the model's parameters among its arguments. macs: half of torch's FLOPs, biases not counted.
    """

    function: str
    module: str
    visit: int = 0
    inputs: tuple[int, ...] = ()
    input_shapes: tuple[tuple[int, ...], ...] = ()
    output_shapes: tuple[tuple[int, ...], ...] = ()
    parameters: tuple[str, ...] = ()
    macs: int = 0


@dataclass(frozen=True)
class Trace:
    """All calls of one forward pass, in order; the first stands for the inputs. macs: of the whole pass, including
    what could not be told apart."""

    calls: tuple[Call, ...]
    macs: int


def trace(model: nn.Module, example_input: Tensor | Sequence[Any]) -> Trace:
    """Run the model once in eval mode and tell what it did; the model and the random state stay as they were.

    example_input: the model's positional inputs, with their batch dimension, on any device.

    Raises:
        ConfigError: the model does not run on this input.
    """
    inputs = (example_input,) if isinstance(example_input, Tensor) else tuple(example_input)
    device = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
    inputs = tuple(value.to(device) if isinstance(value, Tensor) else value for value in inputs)
    counter = FlopCounterMode(display=False)
    recorder = _Recorder(model, inputs, counter.get_total_flops)
    with _countable_kernels(), counter, torch.no_grad():
        try:
            with recorder, _modules_told(model, recorder):
                run_once(model, inputs)
        except Exception as error:  # a user's model may refuse an input in any way
            shapes = [tuple(value.shape) for value in inputs if isinstance(value, Tensor)]
            reason = (str(error) or type(error).__name__).strip().splitlines()[0]
            rule = f"the model does not run on it ({reason})"
            raise ConfigError(Fault("example input", rule, shapes, "give the shape it was made for")) from error
    return Trace(tuple(recorder.calls), counter.get_total_flops() // 2 + recorder.unseen)


@contextlib.contextmanager
def _countable_kernels() -> Iterator[None]:
    """Attention and recurrent layers from plain matrix products, whose FLOPs torch knows, not from fused kernels."""
    fused: list[Any] = [torch.backends.mkldnn, torch.backends.cudnn]
    before = [backend.enabled for backend in fused]
    fast_path = torch.backends.mha.get_fastpath_enabled()
    try:
        for backend in fused:
            backend.enabled = False
        torch.backends.mha.set_fastpath_enabled(False)
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast_path)
        for backend, enabled in zip(fused, before, strict=True):
            backend.enabled = enabled


@contextlib.contextmanager
def _modules_told(model: nn.Module, recorder: _Recorder) -> Iterator[None]:
    """The recorder hears which modules begin and end. A shared module has its first name."""
    hooks: list[Any] = []

    def enter(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, inputs: Any) -> None:
            recorder.enter(name)

        return hook

    try:
        for name, module in model.named_modules():
            hooks.append(module.register_forward_pre_hook(enter(name)))
            hooks.append(module.register_forward_hook(recorder.leave))
        yield
    finally:
        for handle in hooks:
            handle.remove()


class _Recorder(TorchFunctionMode):
    """Writes down every torch function; what it calls in turn is part of it.

    unseen: MACs of layers that say what they cost themselves, less what torch's counter saw of them.
    """

    def __init__(self, model: nn.Module, inputs: Sequence[Any], flops: Callable[[], int]) -> None:
        super().__init__()
        self.unseen = 0
        self._stack: list[tuple[str, int, int]] = []  # name, visits before, calls before; the innermost module last
        self._visits: Counter[str] = Counter()
        self._flops = flops
        self._parameters = {id(parameter): name for name, parameter in model.named_parameters()}
        self._made: dict[int, tuple[Tensor, int]] = {}  # the tensor is kept, so that its id stays its own
        given = _tensors(inputs)
        self.calls = [Call(INPUT, "", output_shapes=tuple(tuple(tensor.shape) for tensor in given))]
        self._made.update((id(tensor), (tensor, 0)) for tensor in given)

    def enter(self, name: str) -> None:
        """A module begins."""
        self._stack.append((name, self._visits[name], len(self.calls)))
        self._visits[name] += 1

    def leave(self, module: nn.Module, inputs: Any, output: Any) -> None:
        """The innermost module ends."""
        name, visit, first = self._stack.pop()
        shapes, given = (tuple(tuple(tensor.shape) for tensor in _tensors(value)) for value in (inputs, output))
        if not shapes or not given:
            return
        macs = kind_of(module).macs(module, shapes[0], given[0])
        if macs is not None:
            self.unseen += macs - sum(call.macs for call in self.calls[first:])
            self.calls[first:] = [replace(call, macs=0) for call in self.calls[first:]]
            last = self.calls.pop() if len(self.calls) > first else Call(type(module).__name__, "", output_shapes=given)
            self.calls.append(replace(last, module=name, visit=visit, input_shapes=shapes, macs=macs))
            made = len(self.calls) - 1
            self._made.update((id(tensor), (tensor, made)) for tensor in _tensors(output))

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        arguments = _tensors((args, kwargs))
        shapes = tuple(tuple(tensor.shape) for tensor in arguments if id(tensor) not in self._parameters)
        before = self._flops()
        result = func(*args, **(kwargs or {}))
        name = getattr(func, "__name__", "") or type(func).__name__
        outputs = [args[0]] if name == "__setitem__" and isinstance(args[0], Tensor) else _tensors(result)
        outputs = [tensor for tensor in outputs if id(tensor) not in self._parameters]
        if outputs:
            self._record(name, arguments, shapes, outputs, (self._flops() - before) // 2)
        return result

    def _record(
        self, name: str, arguments: list[Tensor], shapes: tuple[tuple[int, ...], ...], outputs: list[Tensor], macs: int
    ) -> None:
        sources = [self._made[id(tensor)][1] for tensor in arguments if id(tensor) in self._made]
        parameters = [self._parameters[id(tensor)] for tensor in arguments if id(tensor) in self._parameters]
        module, visit, _ = self._stack[-1] if self._stack else ("", 0, 0)
        call = Call(
            function=plain_name(name),
            module=module,
            visit=visit,
            inputs=tuple(dict.fromkeys(sources)),
            input_shapes=shapes,
            output_shapes=tuple(tuple(tensor.shape) for tensor in outputs),
            parameters=tuple(dict.fromkeys(parameters)),
            macs=macs,
        )
        self._made.update((id(tensor), (tensor, len(self.calls))) for tensor in outputs)
        self.calls.append(call)


def plain_name(name: str) -> str:
    """``__iadd__``, ``__radd__`` and ``add_`` are ``add``; ``relu_`` is ``relu``; ``__get__`` is ``attribute``."""
    plain = name.strip("_")
    if plain != name and name.startswith("__"):
        plain = {"get": "attribute"}.get(plain, plain)
        stem = plain[1:]
        if plain[0] in "ir" and stem in _OPERATORS:
            plain = stem
    return {"truediv": "div"}.get(plain, plain)


_OPERATORS = frozenset({"add", "sub", "mul", "div", "truediv", "matmul", "pow"})


def _tensors(value: Any) -> list[Tensor]:
    """The tensors in nested lists, tuples and mappings, in order."""
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, (list, tuple)):
        return [tensor for part in value for tensor in _tensors(part)]
    return []
