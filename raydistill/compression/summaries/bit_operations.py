"""How much a network computes, its bits counted."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from raydistill.compression.quantizers.activations import ActivationQuantizer
from raydistill.compression.quantizers.grid import FLOAT_BITS
from raydistill.compression.quantizers.network import Quantization, quantization_of
from raydistill.compression.quantizers.points import RESULT, UNCHANGED, Point, points_of
from raydistill.compression.trace import Call, Trace, trace


def bit_operations(model: nn.Module, example_input: Tensor | Sequence[object]) -> float:
    """Of one forward pass: each call's multiply-accumulates, times the bits of its weight and of what it reads, times
    the fraction of the weight that is not zero. Products of activations count the bits of both.

    Raises:
        ConfigError: the model does not run on this input.
    """
    seen = trace(model, example_input)
    held = quantization_of(model)
    held = held if held is not None and held.enabled else None
    points = {} if held is None else points_of(model, seen)
    named = dict(model.named_parameters())
    return float(
        sum(
            call.macs * _of_weight(call, named, held) * _read(index, seen, points, held)
            for index, call in enumerate(seen.calls)
            if call.macs
        )
    )


def _of_weight(call: Call, named: dict[str, nn.Parameter], held: Quantization | None) -> float:
    """The bits of a call's weight, less what is zero; 1 where it has none: then both factors are read."""
    names = [name for name in call.parameters if named[name].dim() >= 2]
    if not names:
        return 1.0
    whole = sum(named[name].numel() for name in names)
    kept = [int(torch.count_nonzero(named[name])) * _bits(name, held) for name in names]
    return sum(kept) / whole


def _bits(name: str, held: Quantization | None) -> int:
    return held.weight(name).bits if held is not None and name in held.weight_names() else FLOAT_BITS


def _read(index: int, seen: Trace, points: dict[int, Point], held: Quantization | None) -> float:
    """The bits of what a call reads: of the first argument, of both where no weight is one."""
    call = seen.calls[index]
    known = [_argument(index, at, seen, points, held) for at in range(len(call.inputs))] or [FLOAT_BITS]
    if call.parameters:
        return float(known[0])
    return float(known[0] * known[-1])


def _argument(index: int, argument: int, seen: Trace, points: dict[int, Point], held: Quantization | None) -> int:
    if held is None:
        return FLOAT_BITS
    there = held.bits_at(points[index], argument)
    maker = seen.calls[index].inputs[argument]
    while there is None and maker:
        there = held.bits_at(points[maker], RESULT)
        call = seen.calls[maker]
        if call.function not in UNCHANGED or not call.inputs:
            break
        maker = call.inputs[0]
    if there is None and maker == 0 and len(held.inputs):
        first = held.inputs[0]
        assert isinstance(first, ActivationQuantizer)
        return first.bits
    return FLOAT_BITS if there is None else there
