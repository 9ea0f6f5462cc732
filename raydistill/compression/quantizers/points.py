"""The places of a network whose results a quantizer rounds: calls of torch functions, in modules or between them."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from torch import nn

from raydistill.compression.trace import Call, Trace

RELUS = frozenset({"relu", "relu6", "hardtanh"})
"""Functions whose results are not negative (or are clipped as the files' networks use them)."""
ACTIVATIONS = RELUS | {
    "celu", "elu", "gelu", "hardsigmoid", "hardswish", "leaky_relu", "mish", "prelu", "selu", "sigmoid", "silu",
    "softmax", "softplus", "softsign", "tanh",
}  # fmt: skip
"""Functions that act on each element alone."""
JOINS = frozenset({"add", "cat", "mul", "sub"})
"""Functions that bring two tensors together."""
LAYERS = frozenset(
    {"bmm", "conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d", "linear",
     "matmul", "multi_head_attention_forward", "scaled_dot_product_attention"}
)  # fmt: skip
"""Functions that multiply: integer kernels want whole numbers to read."""
WEIGHTED = frozenset(
    {"conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d", "linear"}
)
"""Those that multiply by a weight and add a bias."""
POOLS = frozenset(
    {"adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_avg_pool3d", "avg_pool1d", "avg_pool2d", "avg_pool3d",
     "interpolate", "mean"}
)  # fmt: skip
"""Functions that give means of what they are given."""
NORMS = frozenset({"batch_norm", "group_norm", "instance_norm", "layer_norm", "rms_norm"})
UNCHANGED = frozenset(
    {"alpha_dropout", "attribute", "channel_shuffle", "chunk", "clone", "contiguous", "detach", "dropout", "dropout1d",
     "dropout2d", "dropout3d", "expand", "expand_as", "feature_dropout", "flatten", "flip", "getitem", "index_select",
     "max_pool1d", "max_pool2d", "max_pool3d", "movedim", "narrow", "permute", "pixel_shuffle", "pixel_unshuffle",
     "repeat", "reshape", "reshape_as", "roll", "select", "split", "squeeze", "swapaxes", "t", "to", "transpose",
     "unbind", "unflatten", "unsqueeze", "view", "view_as"}
)  # fmt: skip
"""Functions that give some of the values that they are given: what is on a grid stays on it."""
RESULT, ACCUMULATOR = -1, -2
"""In the place of an argument: what a call gives; the sums of its products, before what comes of them is rounded."""


@dataclass(frozen=True)
class Point:
    """A call, found again in each forward pass: the so-many-th (position, from 0) of its function while its module runs
    once. name: as files and errors call it: the module's, where the module is nothing else. argument: which of the
    call's tensors, parameters not counted, is rounded before it; RESULT: what the call gives, after it; ACCUMULATOR:
    its sums, before that."""

    name: str
    module: str
    function: str
    position: int
    argument: int = RESULT

    @property
    def key(self) -> str:
        """Unlike every other point's."""
        own = f"{self.module}:{self.function}:{self.position}"
        return own if self.argument == RESULT else f"{own}:{self.argument}"


def points_of(model: nn.Module, seen: Trace) -> dict[int, Point]:
    """By the position of a call in the trace, its point. A module that runs twice has the same points both times."""
    counts: Counter[tuple[str, int, str]] = Counter()
    places: dict[int, tuple[str, str, int]] = {}
    distinct: dict[str, set[tuple[str, int]]] = defaultdict(set)
    for index, call in enumerate(seen.calls):
        if index == 0:
            continue
        key = (call.module, call.visit, call.function)
        places[index] = (call.module, call.function, counts[key])
        distinct[call.module].add((call.function, counts[key]))
        counts[key] += 1
    leaves = {name for name, module in model.named_modules() if name and not list(module.children())}
    return {
        index: Point(_name(module, function, position, module in leaves and len(distinct[module]) == 1), *place)
        for index, place in places.items()
        for module, function, position in [place]
    }


def _name(module: str, function: str, position: int, alone: bool) -> str:
    if alone:
        return module
    own = f"{function}_{position}"
    return f"{module}.{own}" if module else own


def readers(seen: Trace) -> dict[int, list[Call]]:
    """By the position of a call, the calls that read what it gave."""
    found: dict[int, list[Call]] = defaultdict(list)
    for call in seen.calls:
        for position in call.inputs:
            found[position].append(call)
    return found


def calls_of(seen: Trace, functions: Iterable[str]) -> list[int]:
    """The positions of the calls of these functions, in order."""
    wanted = frozenset(functions)
    return [index for index, call in enumerate(seen.calls) if call.function in wanted and index]
