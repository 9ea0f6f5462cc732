"""Which activation belongs to which layer: followed from a layer's output to the nonlinearity that first reads it.

On the way stand batch norms, poolings, sums (a residual connection) and concatenations. Tensors are followed, not
modules, so functional layers, a ReLU module that is used three times and a layer that is used twice are all told
apart. A layer that no nonlinearity follows is represented by its own output, after its norm.
"""

from __future__ import annotations

import functools
import re
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from raydistill.compression.layer_kinds import kind_of, weighted
from raydistill.errors import ConfigError, Fault, close_match

if TYPE_CHECKING:
    from torch.utils.hooks import RemovableHandle

NOT_NEGATIVE = frozenset({"relu", "relu6", "sigmoid", "hardsigmoid", "softplus"})
NONLINEARITIES = NOT_NEGATIVE | {
    *("leaky_relu", "prelu", "rrelu", "elu", "selu", "celu", "gelu", "silu", "mish", "hardtanh", "hardswish", "tanh"),
    *("softsign", "threshold", "clamp", "clamp_min", "clip", "hardshrink", "softshrink", "tanhshrink", "logsigmoid"),
}
_NORMS = frozenset({"batch_norm", "instance_norm", "group_norm", "layer_norm", "rms_norm", "local_response_norm"})
_THROUGH = _NORMS | {
    *("dropout", "alpha_dropout", "feature_alpha_dropout", "max_pool", "avg_pool", "lp_pool", "adaptive_avg_pool"),
    *("adaptive_max_pool", "contiguous", "to", "type", "float", "half", "bfloat16", "clone"),
}
_JOIN = frozenset({"add", "iadd", "radd", "sub", "isub"})
_CONCATENATE = frozenset({"cat", "concat", "concatenate"})
_FOLLOWED = NONLINEARITIES | _THROUGH | _JOIN | _CONCATENATE


class _Visit:
    """One call of a followed layer: whether its activation has been seen, and its own output until then."""

    __slots__ = ("met", "own")

    def __init__(self) -> None:
        self.met = False
        self.own: Tensor | None = None


@dataclass(frozen=True)
class Span:
    """Channels of a layer in a tensor: `count` of them from `start` on, along the dimension `axis` (negative)."""

    name: str
    axis: int
    start: int
    count: int
    visit: _Visit

    def inside(self, tensor: Tensor) -> bool:
        return tensor.dim() >= -self.axis and tensor.shape[self.axis] >= self.start + self.count


@dataclass(frozen=True)
class Activation:
    """What a layer's channels look like after their nonlinearity.

    tensor: all of it; the layer's are `span`. function: the nonlinearity's name, "" where there is none.
    """

    span: Span
    tensor: Tensor
    function: str

    def channels(self) -> Tensor:
        """The layer's own part."""
        return self.tensor.narrow(self.span.axis, self.span.start, self.span.count)


class Follower:
    """Calls `see` with every activation of some layers while it is attached to a model, in any mode.

    names: dotted names of modules whose output is one tensor, such as convolutions and linear layers; None: all of
    these. see: gets all activations that one call of a nonlinearity gave, without gradients.

    Raises:
        ConfigError: the model has no module of such a name.
    """

    def __init__(
        self, model: nn.Module, names: Sequence[str] | None, see: Callable[[Sequence[Activation]], None]
    ) -> None:
        self.names = tuple(names) if names is not None else tuple(layers(model))
        known = dict(model.named_modules())
        unknown = [name for name in self.names if name not in known]
        if unknown:
            rule = "the model has no such module"
            raise ConfigError(*(Fault("names", rule, name, close_match(name, known)) for name in unknown))
        self._model, self._see = model, see
        self._modules = {name: known[name] for name in self.names}
        self._hooks: list[RemovableHandle] = []
        self._mode: _Mode | None = None

    def attach(self) -> None:
        """Begin to look at every forward pass of the model; a second call changes nothing."""
        if self._hooks:
            return
        model = self._model
        self._hooks = [
            model.register_forward_pre_hook(self._begin, prepend=True),
            model.register_forward_hook(self._end, always_call=True),
        ]
        for name, module in self._modules.items():
            self._hooks.append(module.register_forward_hook(self._hook(name)))
        for module in model.modules():  # one that no torch function of its name stands for
            if kind_of(module).norm and not any(module is own for own in self._modules.values()):
                self._hooks.append(module.register_forward_hook(self._through_norm))

    def detach(self) -> None:
        """Take every hook out of the model."""
        for handle in self._hooks:
            handle.remove()
        self._hooks = []

    def _begin(self, model: nn.Module, inputs: object) -> None:
        if self._mode is None:
            self._mode = _Mode(self._see)
            self._mode.__enter__()

    def _end(self, model: nn.Module, inputs: object, output: object) -> None:
        mode, self._mode = self._mode, None
        if mode is not None:
            mode.__exit__(None, None, None)
            mode.finish()

    def _hook(self, name: str) -> Callable[..., None]:
        def hook(module: nn.Module, inputs: object, output: object) -> None:
            if self._mode is not None and isinstance(output, Tensor):
                self._mode.begin(name, output, kind_of(module).channel_axis(module, output.dim()))

        return hook

    def _through_norm(self, module: nn.Module, inputs: tuple[object, ...], output: object) -> None:
        if self._mode is not None and inputs and isinstance(output, Tensor):
            self._mode.normalized(inputs[0], output)


def layers(model: nn.Module) -> list[str]:
    """Names of the model's convolutions, linear layers and others that multiply by a weight."""
    return [name for name, module in model.named_modules() if weighted(module)]


@functools.cache
def _stem(name: str) -> str:
    """``relu_`` is ``relu``, ``__iadd__`` is ``iadd``, ``max_pool2d``, with its indices too, is ``max_pool``."""
    return re.sub(r"[123]d(_with_indices)?$", "", name.strip("_"))


class _Mode(TorchFunctionMode):
    """Sees each torch function of one forward pass. Tensors are known by weak references: none lives longer for it."""

    def __init__(self, see: Callable[[Sequence[Activation]], None]) -> None:
        super().__init__()
        self._see = see
        self._spans: dict[int, tuple[weakref.ref[Tensor], tuple[Span, ...]]] = {}
        self._visits: list[Span] = []

    def begin(self, name: str, output: Tensor, axis: int) -> None:
        """A followed layer has given its output."""
        visit = _Visit()
        span = Span(name, max(axis, -output.dim()), 0, output.shape[max(axis, -output.dim())], visit)
        visit.own = output
        self._visits.append(span)
        self._know(output, (span,))

    def normalized(self, tensor: object, output: Tensor) -> None:
        """A norm has given its output."""
        spans = tuple(span for span in self._known(tensor) if span.inside(output))
        self._know(output, spans)
        for span in spans:
            span.visit.own = output

    def finish(self) -> None:
        """The forward pass is over: layers whose activation was not met give their own output."""
        for span in self._visits:
            own, span.visit.own = span.visit.own, None
            if own is not None and not span.visit.met:
                self._seen((span,), own, "")
        self._visits, self._spans = [], {}

    def __torch_function__(
        self,
        func: Callable[..., object],
        types: object,
        args: Sequence[object] = (),
        kwargs: Mapping[str, object] | None = None,
    ) -> object:
        if not self._spans:
            return func(*args, **kwargs) if kwargs else func(*args)
        name = _stem(getattr(func, "__name__", ""))
        if name not in _FOLLOWED:
            return func(*args, **kwargs) if kwargs else func(*args)
        first = args[0] if args else (kwargs or {}).get("input", (kwargs or {}).get("tensors"))
        if name in _CONCATENATE:
            spans = self._concatenated(first, args, kwargs or {})
        else:
            spans = self._known(first)
            if name in _JOIN and len(args) > 1:
                spans += self._known(args[1])
        result = func(*args, **kwargs) if kwargs else func(*args)
        output = result[0] if isinstance(result, tuple) else result  # max_pool2d may return indices too
        if not spans or not isinstance(output, Tensor):
            return result
        spans = tuple(span for span in spans if span.inside(output))
        if name in NONLINEARITIES:
            self._seen(spans, output, name)
            self._spans.pop(id(output), None)  # an in-place one: what comes after is another activation
            return result
        if name in _NORMS:
            self.normalized(first, output)
        else:
            self._know(output, spans)
        return result

    def _seen(self, spans: Sequence[Span], output: Tensor, function: str) -> None:
        new = [span for span in spans if not span.visit.met]
        for span in new:
            span.visit.met, span.visit.own = True, None
        if new:
            with torch.no_grad():
                self._see([Activation(span, output.detach(), function) for span in new])

    def _know(self, tensor: Tensor, spans: tuple[Span, ...]) -> None:
        if spans:
            self._spans[id(tensor)] = (weakref.ref(tensor), spans)

    def _known(self, tensor: object) -> tuple[Span, ...]:
        found = self._spans.get(id(tensor))
        if found is None or found[0]() is not tensor:  # an id that another tensor had before
            return ()
        return tuple(span for span in found[1] if not span.visit.met)

    def _concatenated(self, parts: object, args: Sequence[object], kwargs: Mapping[str, object]) -> tuple[Span, ...]:
        """Spans of all parts, moved to where they are in the whole."""
        if not isinstance(parts, (list, tuple)) or not all(isinstance(part, Tensor) for part in parts):
            return ()
        dim = args[1] if len(args) > 1 else kwargs.get("dim", kwargs.get("axis", 0))
        moved: list[Span] = []
        before = 0
        for part in parts:
            for span in self._known(part):
                along = isinstance(dim, int) and dim % part.dim() == span.axis % part.dim()
                moved.append(replace(span, start=span.start + before) if along else span)
            before += part.shape[dim] if isinstance(dim, int) else 0
        return tuple(moved)
