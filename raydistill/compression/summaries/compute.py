"""What each layer computes: multiply-accumulates (MACs) of one forward pass, biases not counted."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from torch import Tensor, nn

from raydistill.compression.layer_kinds import kernel_text, kind_of
from raydistill.compression.trace import Call, trace

TOTAL = "total"


@dataclass(frozen=True)
class ComputeRow:
    """One layer, or the total.

    type: class of the module, or name of the function that was called without one. calls: how often in a forward
    pass; shapes and volumes (numbers of elements) are of the first call, macs of all. weights: elements of its weights
    (parameters of two or more dimensions).
    """

    name: str
    type: str
    attributes: str
    calls: int
    input_shape: tuple[int, ...]
    input_volume: int
    output_shape: tuple[int, ...]
    output_volume: int
    weights: int
    macs: int


def compute_table(model: nn.Module, example_input: Tensor | Sequence[object]) -> tuple[ComputeRow, ...]:
    """One row a layer that multiplies, in the order they first run, and a last one in total.

    A module used more than once is one row, and so is a functional layer, by the name of its weight. Products of
    activations (attention written by hand) stand under the module that computes them. example_input: the model's
    positional inputs; with a batch dimension of 1 the MACs are of one image.

    Raises:
        ConfigError: the model does not run on this input.
    """
    seen = trace(model, example_input)
    modules, parameters = dict(model.named_modules()), dict(model.named_parameters())
    rows: dict[tuple[str, str, int], ComputeRow] = {}
    ordinals: Counter[tuple[str, int, str]] = Counter()
    sizes: dict[int, int] = {}
    for call in seen.calls:
        if call.macs == 0:
            continue
        key, row, used = _row(call, modules, parameters, ordinals)
        sizes.update((id(weight), weight.numel()) for weight in used)  # a tied weight counts once in total
        if key in rows:
            rows[key] = replace(rows[key], calls=rows[key].calls + 1, macs=rows[key].macs + row.macs)
        else:
            rows[key] = row
    found = list(rows.values())
    rest = seen.macs - sum(row.macs for row in found)
    if rest:  # inside scripted or compiled code, which shows no functions
        found.append(ComputeRow("(not told apart)", "", "", 1, (), 0, (), 0, 0, rest))
    calls = sum(row.calls for row in found)
    return (*found, ComputeRow(TOTAL, "", "", calls, (), 0, (), 0, sum(sizes.values()), seen.macs))


def total_macs(model: nn.Module, example_input: Tensor | Sequence[object]) -> int:
    """MACs of one forward pass."""
    return trace(model, example_input).macs


def _row(
    call: Call,
    modules: dict[str, nn.Module],
    parameters: dict[str, nn.Parameter],
    ordinals: Counter[tuple[str, int, str]],
) -> tuple[tuple[str, str, int], ComputeRow, list[nn.Parameter]]:
    """The row of one call, a key that other calls of the same layer share, and the weights it uses."""
    module = modules[call.module]
    names = [name for name in call.parameters if parameters[name].dim() >= 2]
    weights = [parameters[name] for name in names]
    layer = kind_of(module)
    name, kind, attributes = call.module, call.function, ""
    key = (name, "", 0)
    if layer.counted:
        kind = type(module).__name__
        attributes = layer.attributes(module)
        weights = [parameter for parameter in module.parameters() if parameter.dim() >= 2]
    elif len(weights) == 1:
        name = names[0].removesuffix(".weight")
        attributes = kernel_text(weights[0].shape[2:])
        key = (name, "", 0)
    else:
        key = (name, kind, ordinals[(name, call.visit, kind)])
        ordinals[(name, call.visit, kind)] += 1
    inputs = call.input_shapes[0] if call.input_shapes else ()
    outputs = call.output_shapes[0]
    row = ComputeRow(
        name=name or "(model)",
        type=kind,
        attributes=attributes,
        calls=1,
        input_shape=inputs,
        input_volume=math.prod(inputs),
        output_shape=outputs,
        output_volume=math.prod(outputs),
        weights=sum(weight.numel() for weight in weights),
        macs=call.macs,
    )
    return key, row, weights
