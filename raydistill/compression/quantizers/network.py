"""A network that computes with rounded weights and activations, its code and its parameters' names as they were.

Every forward pass of a quantized network runs under a torch function mode: a function that is given a parameter gets
the rounded one, and what a function of a `Point` gives is rounded before it goes on. So it makes no difference whether
a network is written with modules, functional calls or operators. What quantization keeps (ranges, clipping values)
stands in one module beside the network's own, ``quantization``.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode, _get_current_function_mode_stack, _pop_mode

from raydistill.compression.floats import rounds_nothing
from raydistill.compression.quantizers.activations import Accumulator, ActivationQuantizer
from raydistill.compression.quantizers.grid import grid_under, on_grid
from raydistill.compression.quantizers.points import ACCUMULATOR, RESULT, UNCHANGED, Point
from raydistill.compression.quantizers.watch import Place, Places, call_name, computed
from raydistill.compression.quantizers.weights import WeightQuantizer
from raydistill.errors import ABSENT, ConfigError, Fault

CHILD = "quantization"
"""The name of the module that a quantized network has beside its own."""


class Quantization(nn.Module):
    """What of a network is rounded, and to what.

    weights: by the parameter's name. activations: a quantizer of each point. inputs: of the network's inputs, one for
    each that is a tensor of floats, in their order; empty where they are not rounded. enabled: whether anything is
    rounded at all.
    """

    _enabled: Tensor

    def __init__(
        self,
        weights: Mapping[str, WeightQuantizer],
        activations: Sequence[tuple[Point, ActivationQuantizer]],
        inputs: Sequence[ActivationQuantizer] = (),
    ) -> None:
        super().__init__()
        self.weights = nn.ModuleDict({_as_key(name): quantizer for name, quantizer in weights.items()})
        self.activations = nn.ModuleDict({_as_key(point.key): quantizer for point, quantizer in activations})
        self.points = tuple(point for point, _ in activations)
        self.inputs = nn.ModuleList(inputs)
        self.register_buffer("_enabled", torch.ones((), dtype=torch.uint8))
        self._on = True

    @property
    def enabled(self) -> bool:
        return self._on

    @enabled.setter
    def enabled(self, value: bool) -> None:
        self._on = value
        self._enabled.fill_(int(value))

    def _load_from_state_dict(self, state_dict: Mapping[str, object], prefix: str, *rest: object) -> None:
        super()._load_from_state_dict(state_dict, prefix, *rest)
        self._on = bool(self._enabled)

    def forward(self, values: object) -> object:
        """What it is given: a network that is a sequence runs through all of its children."""
        return values

    def weight(self, name: str) -> WeightQuantizer:
        """Of the parameter of this name; KeyError where it is not rounded."""
        return self.weights[_as_key(name)]  # type: ignore[return-value]

    def weight_names(self) -> list[str]:
        return [_as_name(key) for key in self.weights]

    def bits_at(self, point: Point, argument: int) -> int | None:
        """The bits of this argument of a call, or of its result; None where it is not rounded there."""
        key = _as_key(replace(point, argument=argument).key)
        if key not in self.activations:
            return None
        found = self.activations[key]
        assert isinstance(found, ActivationQuantizer)
        return found.bits

    def replace_weight(self, name: str, quantizer: WeightQuantizer) -> None:
        self.weights[_as_key(name)] = quantizer

    def replace_activation(self, point: Point, quantizer: ActivationQuantizer) -> None:
        self.activations[_as_key(point.key)] = quantizer

    def activation(self, point: Point) -> ActivationQuantizer:
        return self.activations[_as_key(point.key)]  # type: ignore[return-value]

    def each_activation(self) -> Iterator[ActivationQuantizer]:
        """Those of the inputs, then those of the points."""
        for quantizer in (*self.inputs, *self.activations.values()):
            assert isinstance(quantizer, ActivationQuantizer)
            yield quantizer

    def learned(self) -> Iterator[nn.Parameter]:
        """What training learns beside the network's own parameters."""
        return self.parameters()

    def track(self, tracking: bool) -> None:
        """Whether ranges follow what is seen in training."""
        for quantizer in self.each_activation():
            quantizer.tracking = tracking


def attach(model: nn.Module, quantization: Quantization) -> None:
    """Make a network a quantized one, in place.

    Raises:
        ConfigError: it is one already, or has something of its own of that name.
    """
    if quantization_of(model) is not None:
        raise ConfigError(Fault("quantizer", "the network is quantized already", ABSENT, "begin with a float one"))
    if hasattr(model, CHILD):
        way_out = "call it otherwise in the network's code"
        raise ConfigError(Fault("quantizer", f"the network has a '{CHILD}' of its own", ABSENT, way_out))
    device = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
    modules = list(model.named_modules())
    model.add_module(CHILD, quantization.to(device).train(model.training))
    forward = _Forward(model, quantization)
    for name, module in modules:
        module.register_forward_pre_hook(_Enter(forward, name))
        module.register_forward_hook(_Leave(forward), always_call=True)


def detach(model: nn.Module) -> None:
    """Make a quantized network a float one again, with its float weights."""
    if quantization_of(model) is None:
        return
    delattr(model, CHILD)
    for module in model.modules():
        for hooks in (module._forward_pre_hooks, module._forward_hooks):
            for key in [key for key, hook in hooks.items() if isinstance(hook, (_Enter, _Leave))]:
                del hooks[key]
                module._forward_hooks_always_called.pop(key, None)


def quantization_of(model: nn.Module) -> Quantization | None:
    """What of a network is quantized; None of a float one."""
    found = getattr(model, CHILD, None)
    return found if isinstance(found, Quantization) else None


def weight_prefix(name: str) -> str:
    """What the names begin with, in a quantized network, of what is kept for this parameter."""
    return f"{CHILD}.weights.{_as_key(name)}"


def _as_key(name: str) -> str:
    return name.replace(".", "/") or "/"


def _as_name(key: str) -> str:
    return key.replace("/", ".")


@contextlib.contextmanager
def modes_kept() -> Iterator[None]:
    """Where it ends, the function modes of torch are those of its beginning.

    A forward pass that fails under torch.export ends without its hooks, and leaves a quantized network's mode on top of
    torch's own, which then takes off the wrong one.
    """
    before = len(_get_current_function_mode_stack())
    try:
        yield
    finally:
        for _ in range(len(_get_current_function_mode_stack()) - before):
            _pop_mode()


class _Forward:
    """A forward pass that is under way: which modules run, and how often each function was called in them."""

    def __init__(self, model: nn.Module, quantization: Quantization) -> None:
        self.quantization = quantization
        self._owners = [_owner(model, name) for name in quantization.weight_names()]
        self._points: dict[Place, dict[int, str]] = {}
        for point in quantization.points:
            place = (point.module, point.function, point.position)
            self._points.setdefault(place, {})[point.argument] = _as_key(point.key)
        self.follows = any(point.argument == ACCUMULATOR for point in quantization.points)
        self._places = Places()
        self._mode: _Rounding | None = None

    def enter(self, name: str, inputs: tuple[object, ...]) -> tuple[object, ...] | None:
        if not name:  # a pass that failed while torch.export looked on was not told to leave
            self._places, self._mode = Places(), None
        self._places.enter(name)
        if self._places.depth > 1 or not self.quantization._on or rounds_nothing():
            return None
        rounded = self._rounded_inputs(inputs) if not name else None
        weights = {}
        for (owner, attribute), quantizer in zip(self._owners, self.quantization.weights.values(), strict=True):
            weights[id(owner._parameters[attribute])] = quantizer
        self._mode = _Rounding(self, weights)
        self._mode.__enter__()
        return rounded

    def leave(self, output: object) -> None:
        self._places.leave()
        if not self._places.depth and self._mode is not None:
            mode, self._mode = self._mode, None
            mode.__exit__(None, None, None)
            if isinstance(output, Tensor):
                on_grid(output, None)  # what leaves the network is a tensor as any other

    def _rounded_inputs(self, inputs: tuple[object, ...]) -> tuple[object, ...] | None:
        if not len(self.quantization.inputs):
            return None
        quantizers = iter(self.quantization.inputs)
        return tuple(
            next(quantizers)(value) if isinstance(value, Tensor) and value.is_floating_point() else value
            for value in inputs
        )

    def rounds(self, function: str) -> Mapping[int, nn.Module]:
        """The quantizers of this call, which is counted: by the argument each rounds, or what else of the call."""
        place = self._places.next(function)
        keys = None if place is None else self._points.get(place)
        return _NOTHING if keys is None else {at: self.quantization.activations[key] for at, key in keys.items()}


_NOTHING: Mapping[int, nn.Module] = {}
_BIAS = 2
"""Where a layer's function has its bias among its positional arguments."""


def _owner(model: nn.Module, name: str) -> tuple[nn.Module, str]:
    path, _, attribute = name.rpartition(".")
    return model.get_submodule(path), attribute


class _Rounding(TorchFunctionMode):
    """Rounds the parameters that functions are given, once a forward pass each, and what they give at the points.

    Where sums are accumulated, each tensor carries the grid that it lies on. What quantizers compute themselves is
    nobody's call.
    """

    def __init__(self, forward: _Forward, weights: Mapping[int, nn.Module]) -> None:
        super().__init__()
        self._forward, self._weights = forward, weights
        self._rounded: dict[int, Tensor] = {}

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if self._forward._mode is not self:  # of a pass that failed under torch.export
            return func(*args, **(kwargs or {}))
        name = call_name(func)
        if not name:
            result = func(*args, **(kwargs or {}))
            if self._forward.follows and isinstance(result, Tensor) and isinstance(args[0], Tensor):
                on_grid(result, grid_under(args[0]))  # x.T
            return result
        quantizers = self._forward.rounds(name)
        if quantizers and max(quantizers) >= 0:
            args = self._arguments(args, quantizers)
        args = [self._of(value) for value in args]
        given_by_name = {key: self._of(value) for key, value in kwargs.items()} if kwargs else {}
        accumulator, unit = quantizers.get(ACCUMULATOR), None
        if isinstance(accumulator, Accumulator):
            unit = self._unit(accumulator, args, given_by_name)
        result = func(*args, **given_by_name)
        with torch._C.DisableTorchFunction():
            if self._forward.follows and args and isinstance(args[0], Tensor) and isinstance(result, Tensor):
                kept = name in UNCHANGED or name == "relu"
                on_grid(result, grid_under(args[0]) if kept else None)  # which may be written over in place
            if isinstance(accumulator, Accumulator) and unit is not None:
                result = accumulator.sums(result, unit, _channel_axis(name))
            after = quantizers.get(RESULT)
            return result if after is None else self._of_result(result, after)

    def _of_result(self, result: Any, after: nn.Module) -> object:
        """What a call gives, rounded; of several tensors the first, which is the output of a recurrent layer."""
        if isinstance(result, Tensor) and result.is_floating_point():
            return after(result)
        if type(result) in (tuple, list) and result and isinstance(result[0], Tensor) and result[0].is_floating_point():
            return type(result)([after(result[0]), *result[1:]])
        return result

    def _unit(self, accumulator: Accumulator, args: list[Any], kwargs: dict[str, Any]) -> Tensor | None:
        """That of the sums of this call, whose bias is rounded to it; None where a factor is a float."""
        factors = [value for value in args[:2] if isinstance(value, Tensor)]
        grids = [grid_under(value) for value in factors]
        if len(grids) < 2 or grids[0] is None or grids[1] is None:
            return None
        with torch._C.DisableTorchFunction():
            unit = accumulator.unit(grids[0], grids[1])
            if isinstance(kwargs.get("bias"), Tensor):
                kwargs["bias"] = accumulator.bias(kwargs["bias"], unit)
            elif len(args) > _BIAS and isinstance(args[_BIAS], Tensor):
                args[_BIAS] = accumulator.bias(args[_BIAS], unit)
        return unit

    def _arguments(self, args: Sequence[object], quantizers: Mapping[int, nn.Module]) -> list[Any]:
        """The arguments of a call, those rounded that are to be; one that is given twice counts once."""
        with torch._C.DisableTorchFunction():
            done = {
                id(value): quantizers[position](value)
                for position, value in enumerate(computed(args))
                if position in quantizers and value.is_floating_point()
            }

            def rounded(value: object) -> Any:
                if isinstance(value, (list, tuple)):
                    return type(value)([rounded(entry) for entry in value])
                return done.get(id(value), value)

            return [rounded(value) for value in args]

    def _of(self, value: object) -> object:
        if isinstance(value, Tensor):
            quantizer = self._weights.get(id(value))
            if quantizer is None:
                return value
            if id(value) not in self._rounded:
                with torch._C.DisableTorchFunction():
                    self._rounded[id(value)] = quantizer(value)
            return self._rounded[id(value)]
        if isinstance(value, (list, tuple)) and any(isinstance(entry, Tensor) for entry in value):
            parts = [self._of(entry) for entry in value]
            return parts if isinstance(value, list) else type(value)(parts) if type(value) is tuple else value
        return value


def _channel_axis(function: str) -> int:
    """Of what a layer's function gives, counted from the end."""
    return -(int(function[-2]) + 1) if function[-2:] in ("1d", "2d", "3d") else -1


class _Enter:
    """Called before a module runs."""

    def __init__(self, forward: _Forward, name: str) -> None:
        self.forward, self.name = forward, name

    def __call__(self, module: nn.Module, inputs: tuple[object, ...]) -> tuple[Any, ...] | None:
        return self.forward.enter(self.name, inputs)


class _Leave:
    """Called after a module has run, or failed."""

    def __init__(self, forward: _Forward) -> None:
        self.forward = forward

    def __call__(self, module: nn.Module, inputs: object, output: object) -> None:
        self.forward.leave(output)
