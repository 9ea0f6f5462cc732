"""Quantizers for training with few bits: what ReLUs give is clipped and rounded, weights are scaled first."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor, nn

from raydistill.compression.pruners.arguments import checked_number
from raydistill.compression.quantizers.activations import FixedClip, LearnedClip
from raydistill.compression.quantizers.base import Quantizer
from raydistill.compression.quantizers.plan import Rounding, planned
from raydistill.compression.quantizers.points import RESULT, calls_of
from raydistill.compression.quantizers.weights import DorefaWeight, WrpnWeight
from raydistill.compression.trace import Trace


class ClippingQuantizer(Quantizer):
    """Rounds what ReLUs give, as modules or calls; what else there is stays a float."""

    def _calls(self, model: nn.Module, seen: Trace) -> Iterable[tuple[int, int]]:
        for index in calls_of(seen, ("relu", "relu6", "hardtanh")):
            call = seen.calls[index]
            module = model.get_submodule(call.module)
            if call.function != "hardtanh" or getattr(module, "min_val", -1.0) >= 0:
                yield index, RESULT

    def _activation(self, bits: int) -> Rounding:
        return planned(FixedClip(bits))


class DorefaQuantizer(ClippingQuantizer):
    """Weights through tanh onto [-1, 1], activations onto [0, 1]. Zhou et al. 2016 (DoReFa-Net, arXiv 1606.06160).

    Gradients are not quantized.
    """

    def _weight(self, bits: int, parameter: Tensor, axis: int | None, is_bias: bool) -> Rounding:
        return planned(DorefaWeight(bits))


class WRPNQuantizer(ClippingQuantizer):
    """Weights clipped to [-1, 1], activations to [0, 1]. Mishra et al. 2017 (WRPN, arXiv 1709.01134).

    Widening the layers is left to the network.
    """

    LEAST_BITS = 2

    def _weight(self, bits: int, parameter: Tensor, axis: int | None, is_bias: bool) -> Rounding:
        return planned(WrpnWeight(bits))


class PACTQuantizer(ClippingQuantizer):
    """Activations onto [0, a], a learned for each; weights as DoReFa's. Choi et al. 2018 (PACT, arXiv 1805.06085).

    act_clip_init_val: where each a begins. act_clip_decay: the weight decay of the a; None: the optimizer's own.
    """

    def __init__(
        self,
        name: str,
        bits_activations: int | None = None,
        bits_weights: int | None = None,
        bits_bias: int | None = None,
        overrides: Mapping[str, Mapping[str, Any]] | None = None,
        act_clip_init_val: float = 8.0,
        act_clip_decay: float | None = None,
    ) -> None:
        super().__init__(name, bits_activations, bits_weights, bits_bias, overrides)
        self.initial = checked_number("act_clip_init_val", act_clip_init_val, 1e-3, 1e6)
        self.decay = None if act_clip_decay is None else checked_number("act_clip_decay", act_clip_decay, 0.0)

    def optimizer_settings(self) -> dict[str, object]:
        return {} if self.decay is None else {"weight_decay": self.decay}

    def _weight(self, bits: int, parameter: Tensor, axis: int | None, is_bias: bool) -> Rounding:
        return planned(DorefaWeight(bits))

    def _activation(self, bits: int) -> Rounding:
        return planned(LearnedClip(bits, self.initial))
