"""Steps that are learned, of weights and of activations: quantization-aware training that ends with few bits.

Esser et al. 2020 (LSQ, arXiv 1902.08153); how a step is learned: `steps`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor, nn

from raydistill.compression.pruners.arguments import checked_number
from raydistill.compression.quantizers.activations import LearnedStep
from raydistill.compression.quantizers.aware import between
from raydistill.compression.quantizers.base import Quantizer
from raydistill.compression.quantizers.overrides import checked_bits
from raydistill.compression.quantizers.plan import Rounding, planned
from raydistill.compression.quantizers.points import ACTIVATIONS, JOINS, POOLS, RESULT, UNCHANGED, calls_of
from raydistill.compression.quantizers.weights import LearnedStepWeight, LinearWeight
from raydistill.compression.trace import Trace

_ABOVE_ZERO = frozenset({"relu", "relu6", "hardsigmoid", "sigmoid", "softmax", "softplus"})
_KEEPS_SIGN = UNCHANGED | POOLS | (JOINS - {"sub"})


class LSQQuantizer(Quantizer):
    """Weights and activations onto grids whose steps training learns. Esser et al. 2020 (LSQ, arXiv 1902.08153).

    Numbers are signed, but for what cannot be negative, as what a ReLU gives. per_channel_wts: each output channel of a
    weight has a step of its own. quantize_inputs: the network's inputs are rounded too, to num_bits_inputs
    (bits_activations where that is left out). quantize_residuals: what a layer, a sum or a concatenation reads is
    rounded too where no activation gave it. step_decay: the weight decay of the steps; None: the optimizer's own. A
    bias is rounded over its own range.
    """

    LEAST_BITS = 2

    def __init__(
        self,
        name: str,
        bits_activations: int | None = None,
        bits_weights: int | None = None,
        bits_bias: int | None = None,
        overrides: Mapping[str, Mapping[str, Any]] | None = None,
        per_channel_wts: bool = False,
        quantize_inputs: bool = True,
        num_bits_inputs: int | None = None,
        quantize_residuals: bool = True,
        step_decay: float | None = 0.0,
    ) -> None:
        super().__init__(name, bits_activations, bits_weights, bits_bias, overrides)
        self.per_channel, self.residuals = bool(per_channel_wts), bool(quantize_residuals)
        said = bits_activations if num_bits_inputs is None else num_bits_inputs
        self.bits_inputs = checked_bits("num_bits_inputs", said, self.LEAST_BITS) if quantize_inputs else None
        self.decay = None if step_decay is None else checked_number("step_decay", step_decay, 0.0)

    def optimizer_settings(self) -> dict[str, object]:
        return {} if self.decay is None else {"weight_decay": self.decay}

    def _calls(self, model: nn.Module, seen: Trace) -> Iterable[tuple[int, int]]:
        found = {(index, RESULT) for index in calls_of(seen, ACTIVATIONS)}
        if self.residuals:
            found |= between(seen)
        return sorted(found)

    def _weight(self, bits: int, parameter: Tensor, axis: int | None, is_bias: bool) -> Rounding:
        if is_bias:
            return planned(LinearWeight(bits))
        own = axis if self.per_channel else None
        return planned(LearnedStepWeight(bits, own, 1 if own is None else parameter.shape[own]))

    def _activation(self, bits: int) -> Rounding:
        return planned(LearnedStep(bits))

    def _at(self, bits: int, model: nn.Module, seen: Trace, index: int, argument: int) -> Rounding:
        signed = argument != RESULT or not _above_zero(model, seen, index)
        return planned(LearnedStep(bits, signed))

    def _input(self) -> Rounding | None:
        return None if self.bits_inputs is None else self._activation(self.bits_inputs)


def _above_zero(model: nn.Module, seen: Trace, index: int) -> bool:
    """Whether nothing that this call gives is negative."""
    call = seen.calls[index]
    if call.function == "hardtanh":
        return bool(getattr(model.get_submodule(call.module), "min_val", -1.0) >= 0)
    if call.function in _ABOVE_ZERO:
        return True
    if call.function not in _KEEPS_SIGN or call.parameters or not call.inputs:
        return False
    alone = call.function in JOINS and len(call.arguments) < 2  # with a number, which nobody knows
    return not alone and -1 not in call.arguments and all(_above_zero(model, seen, maker) for maker in call.inputs)
