"""What a model does, call by call: seen while it runs once, so any way of writing it will do.

Functional layers, modules used twice, operators between tensors: all are torch functions, and each call of one is
recorded with the module it happened in, the calls its inputs came from, and its multiply-accumulates (MACs). Attention
and recurrent layers are one call each.

Summaries, pictures and `adjacency` read what follows what from here. Two questions have answers of their own: which
channels stand and fall together (`thinning.graph`, which follows indices through autograd), and what a layer's
activations are in a forward pass of training (`statistics.follow`, which needs the live tensors).
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode
from torch.utils.flop_counter import FlopCounterMode

from raydistill.compression.floats import as_floats
from raydistill.compression.layer_kinds import kind_of
from raydistill.errors import ConfigError, Fault

if TYPE_CHECKING:
    from torch.utils.hooks import RemovableHandle

INPUT = "input"
"""The function of the call that stands for all of the model's inputs."""


@dataclass(frozen=True)
class Call:
    """One call of a torch function that gave a tensor.

    function: ``conv2d``, ``relu``, ``add``; in-place variants have the plain name. module: dotted name of the innermost
    module that ran it, "" for the model itself. visit: how many times that module had been entered before. inputs:
    positions in the trace of the calls that made its tensors; parameters and constants have none. parameters: names of
    the model's parameters among its arguments. macs: half of torch's FLOPs, biases not counted. arguments: of each
    different one of its positional tensors that is no parameter, in order, the position of the call that made it; -1 of
    a constant.
    """

    function: str
    module: str
    visit: int = 0
    inputs: tuple[int, ...] = ()
    input_shapes: tuple[tuple[int, ...], ...] = ()
    output_shapes: tuple[tuple[int, ...], ...] = ()
    parameters: tuple[str, ...] = ()
    macs: int = 0
    arguments: tuple[int, ...] = field(default=(), compare=False)


@dataclass(frozen=True)
class Visit:
    """One forward pass of one module: positions in the trace of the calls that made its inputs and its outputs."""

    module: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


@dataclass(frozen=True)
class Trace:
    """All calls of one forward pass, in order; the first stands for the inputs. macs: of the whole pass, including
    what could not be told apart; 0 where they were not counted. visits: of modules, in the order in which they end."""

    calls: tuple[Call, ...]
    macs: int
    visits: tuple[Visit, ...] = ()


def trace(model: nn.Module, example_input: Tensor | Sequence[object], macs: bool = True) -> Trace:
    """Run the model once in eval mode and tell what it did; the model and the random state stay as they were. A
    quantized one computes with floats then.

    example_input: the model's positional inputs, with their batch dimension, on any device. macs: whether to count
    them, for which the fused kernels of attention and recurrent layers are done without.

    Raises:
        ConfigError: the model does not run on this input.
    """
    inputs = (example_input,) if isinstance(example_input, Tensor) else tuple(example_input)
    device = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
    inputs = tuple(value.to(device) if isinstance(value, Tensor) else value for value in inputs)
    counter = FlopCounterMode(display=False)
    recorder = _Recorder(model, inputs, counter.get_total_flops if macs else int)
    with contextlib.ExitStack() as stack:
        if macs:
            stack.enter_context(_countable_kernels())
            stack.enter_context(counter)
        try:
            with as_floats(), recorder, _modules_told(model, recorder):
                _run_once(model, inputs)
        except Exception as error:  # a user's model may refuse an input in any way
            shapes = [tuple(value.shape) for value in inputs if isinstance(value, Tensor)]
            reason = (str(error) or type(error).__name__).strip().splitlines()[0]
            rule = f"the model does not run on it ({reason})"
            raise ConfigError(Fault("example input", rule, shapes, "give the shape it was made for")) from error
    total = counter.get_total_flops() // 2 + recorder.unseen if macs else 0
    return Trace(tuple(recorder.calls), total, tuple(recorder.visits))


@torch.no_grad()
def _run_once(model: nn.Module, inputs: Sequence[object]) -> None:
    """One forward pass in eval mode; each module's training flag is put back, and no random number is used up."""
    flags = {module: module.training for module in model.modules()}
    model.eval()
    try:
        with torch.random.fork_rng(devices=[]):
            model(*inputs)
    finally:
        for module, training in flags.items():
            module.training = training


@contextlib.contextmanager
def _countable_kernels() -> Iterator[None]:
    """Attention and recurrent layers from plain matrix products, whose FLOPs torch knows, not from fused kernels."""
    fused: tuple[Any, ...] = (torch.backends.mkldnn, torch.backends.cudnn)
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
    hooks: list[RemovableHandle] = []

    def enter(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, inputs: object) -> None:
            recorder.enter(name, inputs)

        return hook

    try:
        for name, module in model.named_modules():
            hooks.append(module.register_forward_pre_hook(enter(name)))
            hooks.append(module.register_forward_hook(recorder.leave))
        yield
    finally:
        for handle in hooks:
            handle.remove()


@dataclass(frozen=True)
class _Entered:
    """A module that is running: how often it had been entered before, how many calls there were, what it reads."""

    module: str
    visit: int
    calls: int
    inputs: tuple[int, ...]


class _Recorder(TorchFunctionMode):
    """Writes down every torch function; what it calls in turn is part of it.

    unseen: MACs of layers that say what they cost themselves, less what torch's counter saw of them.
    """

    def __init__(self, model: nn.Module, inputs: Sequence[object], flops: Callable[[], int]) -> None:
        super().__init__()
        self.unseen = 0
        self.visits: list[Visit] = []
        self._stack: list[_Entered] = []  # the innermost module last
        self._entered: Counter[str] = Counter()
        self._flops = flops
        self._parameters = {id(parameter): name for name, parameter in model.named_parameters()}
        self._made: dict[int, tuple[Tensor, int]] = {}  # the tensor is kept, so that its id stays its own
        given = _tensors(inputs)
        self.calls = [Call(INPUT, "", output_shapes=tuple(tuple(tensor.shape) for tensor in given))]
        self._made.update((id(tensor), (tensor, 0)) for tensor in given)

    def enter(self, name: str, inputs: object) -> None:
        """A module begins."""
        self._stack.append(_Entered(name, self._entered[name], len(self.calls), self._makers(_tensors(inputs))))
        self._entered[name] += 1

    def leave(self, module: nn.Module, inputs: object, output: object) -> None:
        """The innermost module ends."""
        entered = self._stack.pop()
        self._count(module, entered, _tensors(inputs), _tensors(output))
        self.visits.append(Visit(entered.module, entered.inputs, self._makers(_tensors(output))))

    def _count(self, module: nn.Module, entered: _Entered, inputs: list[Tensor], outputs: list[Tensor]) -> None:
        """Take over what a layer says it costs; what it called in turn costs nothing then."""
        if not inputs or not outputs:
            return
        macs = kind_of(module).macs(module, inputs[0], outputs[0])
        if macs is None:
            return
        read, given = ([tuple(tensor.shape) for tensor in tensors] for tensors in (inputs, outputs))
        inside = self.calls[entered.calls :]
        self.unseen += macs - sum(call.macs for call in inside)
        last = inside.pop() if inside else Call(type(module).__name__, "", output_shapes=tuple(given))
        last = replace(last, module=entered.module, visit=entered.visit, input_shapes=tuple(read), macs=macs)
        self.calls[entered.calls :] = [*(replace(call, macs=0) for call in inside), last]
        self._made.update((id(tensor), (tensor, len(self.calls) - 1)) for tensor in outputs)

    def _makers(self, tensors: list[Tensor]) -> tuple[int, ...]:
        """Positions of the calls that made these, one each; of parameters and constants there are none."""
        return tuple(self._made[id(tensor)][1] for tensor in tensors if id(tensor) in self._made)

    def __torch_function__(
        self,
        func: Callable[..., object],
        types: object,
        args: Sequence[object] = (),
        kwargs: Mapping[str, object] | None = None,
    ) -> object:
        arguments = _tensors((args, kwargs))
        shapes = tuple(tuple(tensor.shape) for tensor in arguments if id(tensor) not in self._parameters)
        before = self._flops()
        result = func(*args, **(kwargs or {}))
        name = getattr(func, "__name__", "") or type(func).__name__
        outputs = [args[0]] if name == "__setitem__" and isinstance(args[0], Tensor) else _tensors(result)
        outputs = [tensor for tensor in outputs if id(tensor) not in self._parameters]
        if outputs:
            computed = {id(tensor): tensor for tensor in _tensors(args) if not isinstance(tensor, nn.Parameter)}
            made = tuple(self._made[key][1] if key in self._made else -1 for key in computed)
            self._record(name, arguments, shapes, outputs, (self._flops() - before) // 2, made)
        return result

    def _record(
        self,
        name: str,
        arguments: list[Tensor],
        shapes: tuple[tuple[int, ...], ...],
        outputs: list[Tensor],
        macs: int,
        made: tuple[int, ...],
    ) -> None:
        parameters = [self._parameters[id(tensor)] for tensor in arguments if id(tensor) in self._parameters]
        module, visit = (self._stack[-1].module, self._stack[-1].visit) if self._stack else ("", 0)
        call = Call(
            function=plain_name(name),
            module=module,
            visit=visit,
            inputs=tuple(dict.fromkeys(self._makers(arguments))),
            input_shapes=shapes,
            output_shapes=tuple(tuple(tensor.shape) for tensor in outputs),
            parameters=tuple(dict.fromkeys(parameters)),
            macs=macs,
            arguments=made,
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


def _tensors(value: object) -> list[Tensor]:
    """The tensors in nested lists, tuples and mappings, in order."""
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, (list, tuple)):
        return [tensor for part in value for tensor in _tensors(part)]
    return []
