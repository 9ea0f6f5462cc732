"""How few bits each weight by itself bears: it is rounded to fewer and fewer while all others stay floats.

A weight is rounded over its own range, each output channel by itself, as `QuantAwareTrainRangeLinearQuantizer` does it
with ``per_channel_wts``; activations stay floats. `FLOAT_BITS` stands for the network as it is.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import nn

from raydistill.compression.layer_kinds import kind_of
from raydistill.compression.quantizers.grid import FLOAT_BITS
from raydistill.compression.quantizers.network import quantization_of
from raydistill.compression.quantizers.weights import LinearWeight
from raydistill.compression.sensitivity import Evaluate
from raydistill.errors import ABSENT, ConfigError, Fault, close_match
from raydistill.metrics import Metric

LEAST, MOST = 2, 16


@dataclass(frozen=True)
class RoundedPoint:
    """One weight at so many bits."""

    AXIS: ClassVar[str] = "bits of this weight, all others floats"

    weight: str
    bits: int
    metrics: Mapping[str, float]

    @property
    def level(self) -> float:
        return float(self.bits)

    @property
    def drawn(self) -> float | None:
        """Where it stands on the axis; the float network stands nowhere."""
        return None if self.bits == FLOAT_BITS else float(self.bits)


def checked_steps(text: str) -> tuple[int, ...]:
    """Numbers of bits as ``8,6,4,2``, the most first.

    Raises:
        ConfigError: they are no such numbers.
    """
    said = [part.strip() for part in text.split(",")]
    if not all(part.isascii() and part.isdigit() and LEAST <= int(part) <= MOST for part in said):
        rule = f"must be whole numbers from {LEAST} to {MOST}, with commas between"
        raise ConfigError(Fault("bits", rule, text, "as in 8,6,4,2"))
    return tuple(sorted({int(part) for part in said}, reverse=True))


def roundable(model: nn.Module) -> dict[str, int | None]:
    """The weights that a quantizer rounds, by their names, and the dimension of their channels; a shared one once.

    Raises:
        ConfigError: there is none, or the network is quantized.
    """
    if quantization_of(model) is not None:
        raise ConfigError(Fault("bits", "the network is quantized already", ABSENT, "give a checkpoint of floats"))
    found: dict[str, int | None] = {}
    seen: set[int] = set()
    for name, module in model.named_modules():
        for attribute, axis in kind_of(module).rounded(module).items():
            parameter = getattr(module, attribute)
            if isinstance(parameter, nn.Parameter) and id(parameter) not in seen and parameter.numel():
                seen.add(id(parameter))
                found[f"{name}.{attribute}" if name else attribute] = axis
    if not found:
        raise ConfigError(Fault("bits", "the model has no weight that is rounded", ABSENT))
    return found


def analyse_bits(
    model: nn.Module,
    evaluate: Evaluate,
    bits: Sequence[int],
    weights: Sequence[str] | None = None,
    known: Iterable[RoundedPoint] = (),
) -> Iterator[RoundedPoint]:
    """Measure every weight with so many bits, weight by weight; yields each point when it is measured.

    While `evaluate` runs one weight is rounded; before the next point is asked for, and however the generator ends, the
    model is bit for bit what it was. Of `FLOAT_BITS` the network is measured once for all. weights, known: as
    `sensitivity.analyse` has them.

    Raises:
        ConfigError: an unknown weight, or the network is quantized.
    """
    able = roundable(model)
    names = tuple(able) if weights is None else tuple(weights)
    unknown = [name for name in names if name not in able]
    if unknown:
        faults = (Fault("weights", "no weight of this name is rounded", n, close_match(n, able)) for n in unknown)
        raise ConfigError(*faults)
    found = {(point.weight, point.bits): point for point in known}
    dense = next((point.metrics for point in found.values() if point.bits == FLOAT_BITS), None)
    parameters = dict(model.named_parameters())
    for name in names:
        for count in bits:
            if (name, count) in found:
                yield found[(name, count)]
                continue
            if count == FLOAT_BITS:
                dense = dict(evaluate(model)) if dense is None else dense
                yield RoundedPoint(name, count, dense)
                continue
            with _rounded(parameters[name], LinearWeight(count, axis=able[name])):
                metrics = dict(evaluate(model))
            yield RoundedPoint(name, count, metrics)


@contextlib.contextmanager
def _rounded(weight: nn.Parameter, rounding: LinearWeight) -> Iterator[None]:
    before = weight.detach().clone()
    try:
        with torch.no_grad():
            weight.copy_(rounding(weight))
        yield
    finally:
        with torch.no_grad():
            weight.copy_(before)


def borne_bits(
    points: Iterable[RoundedPoint], name: str, metric: Metric, max_drop: float
) -> dict[str, tuple[int, ...]]:
    """By weight, the bits for which the metric of this name is at most `max_drop` worse than the float network's, from
    the most that were measured down to the first that cost more; () where even those do.

    Raises:
        ConfigError: a weight lacks the float network.
    """
    curves: dict[str, dict[int, float]] = {}
    for point in points:
        curves.setdefault(point.weight, {})[point.bits] = point.metrics[name] * (1 if metric.maximise else -1)
    found = {}
    for weight, curve in curves.items():
        if FLOAT_BITS not in curve:
            raise ConfigError(Fault("bits", f"{weight} was not measured as it is", ABSENT, "measure 32 bits too"))
        borne = []
        for count in sorted(curve.keys() - {FLOAT_BITS}, reverse=True):
            if curve[count] < curve[FLOAT_BITS] - max_drop - 1e-12:
                break
            borne.append(count)
        found[weight] = tuple(borne)
    return found
