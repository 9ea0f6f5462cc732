"""Quantization-aware training over ranges: what a network of integers will do is done while it trains.

Jacob et al. 2018 (arXiv 1712.05877), section 3.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor, nn

from raydistill.compression.pruners.arguments import checked_number, chosen
from raydistill.compression.quantizers.activations import TrackedRange
from raydistill.compression.quantizers.base import Quantizer
from raydistill.compression.quantizers.grid import Mode
from raydistill.compression.quantizers.overrides import checked_bits
from raydistill.compression.quantizers.plan import Rounding, planned
from raydistill.compression.quantizers.points import ACTIVATIONS, JOINS, LAYERS, RESULT, UNCHANGED, calls_of, readers
from raydistill.compression.quantizers.weights import LinearWeight
from raydistill.compression.trace import Trace
from raydistill.errors import ConfigError, Fault

MODES = {mode.value: mode for mode in Mode}


def checked_modes(value: object, of_activations: Mode | None = Mode.ASYMMETRIC_UNSIGNED) -> tuple[Mode, Mode]:
    """The modes of weights and of activations that an argument gives, by one name or two; ConfigError otherwise.

    of_activations: theirs, where one name is given; None: the same.
    """
    if not isinstance(value, Mapping):
        weights = chosen("mode", value, MODES, Mode)
        return weights, of_activations or weights
    keys = ("weights", "activations")
    if sorted(map(str, value)) != sorted(keys):
        raise ConfigError(Fault("mode", "must name one mode, or map weights and activations to one each", dict(value)))
    weights, activations = (chosen(f"mode.{key}", value[key], MODES, Mode) for key in keys)
    return weights, activations


class QuantAwareTrainRangeLinearQuantizer(Quantizer):
    """Weights over their own range at each step, activations over a moving average of theirs.

    mode: of `quantizers.grid.Mode`, for the weights; activations are ASYMMETRIC_UNSIGNED (in Distiller both are that,
    whatever is said); {weights: ..., activations: ...} says both. ema_decay: of that average. per_channel_wts: each
    output channel of a weight has a range of its own. quantize_inputs: the network's inputs are rounded too, to
    num_bits_inputs (bits_activations where that is left out). quantize_residuals: what a layer, a sum or a
    concatenation reads is rounded too where no activation gave it, so that nothing between two layers is a float;
    Distiller leaves it.
    """

    LEAST_BITS = 2

    def __init__(
        self,
        name: str,
        bits_activations: int | None = 32,
        bits_weights: int | None = 32,
        bits_bias: int | None = 32,
        overrides: Mapping[str, Mapping[str, Any]] | None = None,
        mode: str | Mapping[str, str] = Mode.SYMMETRIC.value,
        ema_decay: float = 0.999,
        per_channel_wts: bool = False,
        quantize_inputs: bool = True,
        num_bits_inputs: int | None = None,
        quantize_residuals: bool = True,
    ) -> None:
        super().__init__(name, bits_activations, bits_weights, bits_bias, overrides)
        self.of_weights, self.of_activations = checked_modes(mode)
        self.ema_decay = checked_number("ema_decay", ema_decay, 0.0, 0.999999)
        self.per_channel, self.residuals = bool(per_channel_wts), bool(quantize_residuals)
        said = bits_activations if num_bits_inputs is None else num_bits_inputs
        self.bits_inputs = checked_bits("num_bits_inputs", said, self.LEAST_BITS) if quantize_inputs else None

    def _calls(self, model: nn.Module, seen: Trace) -> Iterable[tuple[int, int]]:
        found = {(index, RESULT) for index in calls_of(seen, ACTIVATIONS)}
        if self.residuals:
            found |= between(seen)
        return sorted(found)

    def _weight(self, bits: int, parameter: Tensor, axis: int | None, is_bias: bool) -> Rounding:
        return planned(LinearWeight(bits, self.of_weights.value, axis if self.per_channel else None))

    def _activation(self, bits: int) -> Rounding:
        return planned(TrackedRange(bits, self.of_activations.value, self.ema_decay))

    def _input(self) -> Rounding | None:
        return None if self.bits_inputs is None else self._activation(self.bits_inputs)


class NCFQuantAwareTrainQuantizer(QuantAwareTrainRangeLinearQuantizer):
    """The same for neural collaborative filtering: linear layers, products and concatenations are rounded, inputs are
    indices and are not."""

    def __init__(
        self,
        name: str,
        bits_activations: int | None = 32,
        bits_weights: int | None = 32,
        bits_bias: int | None = 32,
        overrides: Mapping[str, Mapping[str, Any]] | None = None,
        mode: str | Mapping[str, str] = Mode.SYMMETRIC.value,
        ema_decay: float = 0.999,
        per_channel_wts: bool = False,
    ) -> None:
        super().__init__(
            name, bits_activations, bits_weights, bits_bias, overrides, mode, ema_decay, per_channel_wts, False
        )

    def _calls(self, model: nn.Module, seen: Trace) -> Iterable[tuple[int, int]]:
        return [(index, RESULT) for index in calls_of(seen, ("relu", "mul", "cat", "linear"))]


def between(seen: Trace) -> set[tuple[int, int]]:
    """Sums and concatenations that no activation alone reads, and what goes into one, or into a layer, as a float.

    The latter is rounded where it is read: a batch norm that gives it may be folded away.
    """
    reads = readers(seen)
    rounded = {0, *calls_of(seen, ACTIVATIONS)}
    for index in calls_of(seen, JOINS):
        if reads[index] and not all(call.function in ACTIVATIONS for call in reads[index]):
            rounded.add(index)
    found = {(index, RESULT) for index in rounded if seen.calls[index].function in JOINS}
    for index in calls_of(seen, JOINS | LAYERS):
        for argument, maker in enumerate(seen.calls[index].inputs):
            while seen.calls[maker].function in UNCHANGED and maker not in rounded and seen.calls[maker].inputs:
                maker = seen.calls[maker].inputs[0]
            if maker not in rounded and seen.calls[maker].function not in JOINS:
                found.add((index, argument))
    return found
