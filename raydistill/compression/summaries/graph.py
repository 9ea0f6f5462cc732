"""A trace as boxes to draw: shape changes are left out, batch norms and activations join the layer before them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence, Set
from dataclasses import dataclass, replace

from torch import nn

from raydistill.compression.layer_kinds import kind_of
from raydistill.compression.summaries.rows import shape_text
from raydistill.compression.trace import INPUT, Call, Trace

_SHAPE_ONLY = frozenset(
    {
        *("to", "contiguous", "detach", "clone", "type", "type_as", "float", "half", "view", "view_as", "reshape", "t"),
        *("flatten", "unflatten", "permute", "transpose", "movedim", "swapaxes", "squeeze", "unsqueeze", "expand"),
        *("expand_as", "getitem", "attribute", "chunk", "split", "unbind", "narrow", "select", "roll", "pad"),
    }
)
_JOINED = frozenset(
    {
        *(
            "batch_norm",
            "instance_norm",
            "group_norm",
            "layer_norm",
            "rms_norm",
            "local_response_norm",
            "relu",
            "relu6",
        ),
        *("leaky_relu", "prelu", "rrelu", "elu", "selu", "celu", "gelu", "silu", "mish", "hardtanh", "hardswish"),
        *("hardsigmoid", "sigmoid", "tanh", "softplus", "softmax", "log_softmax", "threshold", "clamp", "dropout"),
        *("dropout1d", "dropout2d", "dropout3d", "alpha_dropout", "feature_alpha_dropout", "stochastic_depth"),
    }
)
_KINDS = {
    "merge": ("add", "sub", "mul", "div", "cat", "stack", "concat", "matmul", "bmm", "einsum", "maximum", "minimum"),
    "attention": ("multi_head_attention_forward", "scaled_dot_product_attention"),
    "recurrent": ("lstm", "gru", "rnn_tanh", "rnn_relu", "lstm_cell", "gru_cell", "embedding"),
    "linear": ("linear", "bilinear"),
    "input": (INPUT,),
}
_KIND_OF = {function: kind for kind, functions in _KINDS.items() for function in functions}


@dataclass(frozen=True)
class Box:
    """One step of the network. kind: conv, linear, attention, recurrent, pool, merge, input or other. title: the
    layer's name. detail: its type. joined: functions that follow at once. shape: of its output, without the batch.
    inputs: positions of the boxes it reads."""

    kind: str
    title: str
    detail: str
    shape: str
    inputs: tuple[int, ...]
    joined: tuple[str, ...] = ()


def boxes(seen: Trace, model: nn.Module) -> tuple[Box, ...]:
    """The boxes of a trace in the order they run, the input first; constants and what is made of them have none."""
    modules = dict(model.named_modules())
    matrices = {name for name, parameter in model.named_parameters() if parameter.dim() >= 2}
    sources = _sources(seen.calls)
    readers = Counter(source for inputs in sources.values() for source in inputs)
    found: list[Box] = []
    place: dict[int, int] = {}
    for index, inputs in sources.items():
        call = seen.calls[index]
        above = tuple(dict.fromkeys(place[source] for source in inputs))
        if call.function in _JOINED and len(inputs) == 1 and readers[inputs[0]] == 1 and above != (0,):
            box = found[above[0]]
            found[above[0]] = replace(box, joined=(*box.joined, call.function), shape=_shape(call))
            place[index] = above[0]
        else:
            place[index] = len(found)
            found.append(_box(call, modules[call.module], above, matrices))
    return tuple(found)


def _sources(calls: Sequence[Call]) -> dict[int, tuple[int, ...]]:
    """The calls that are drawn, with the drawn calls each reads; only what depends on the input."""
    behind: dict[int, tuple[int, ...]] = {}
    drawn: dict[int, tuple[int, ...]] = {}
    for index, call in enumerate(calls):
        inputs = tuple(dict.fromkeys(source for i in call.inputs for source in behind.get(i, ())))
        if call.function != INPUT and not inputs:
            continue
        if call.function in _SHAPE_ONLY:
            behind[index] = inputs
        else:
            behind[index], drawn[index] = (index,), inputs
    return drawn


def _box(call: Call, module: nn.Module, inputs: tuple[int, ...], matrices: Set[str]) -> Box:
    kind = _KIND_OF.get(call.function, "other")
    if "conv" in call.function:
        kind = "conv"
    elif "pool" in call.function or (
        call.function == "mean" and len(call.output_shapes[0]) < len(call.input_shapes[0])
    ):
        kind = "pool"
    title, detail = call.function, ""
    weights = [name for name in call.parameters if name in matrices]
    if call.module and (call.parameters or next(module.children(), None) is None):
        title, detail = call.module, f"{type(module).__name__} {kind_of(module).attributes(module)}".strip()
    elif weights:
        title, detail = weights[0].removesuffix(".weight"), call.function
    elif call.module:
        detail = f"in {call.module}"
    return Box(kind, title, detail, _shape(call), inputs)


def _shape(call: Call) -> str:
    shape = call.output_shapes[0]
    return shape_text(shape[1:] if len(shape) > 1 else shape)
