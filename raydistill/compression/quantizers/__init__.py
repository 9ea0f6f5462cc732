"""Quantizers by the class names that schedule files use."""

from __future__ import annotations

from raydistill.compression.quantizers.aware import NCFQuantAwareTrainQuantizer, QuantAwareTrainRangeLinearQuantizer
from raydistill.compression.quantizers.base import Quantizer
from raydistill.compression.quantizers.clipped import DorefaQuantizer, PACTQuantizer, WRPNQuantizer
from raydistill.compression.quantizers.learned_step import LSQQuantizer
from raydistill.compression.quantizers.network import detach, quantization_of
from raydistill.compression.quantizers.plan import Plan
from raydistill.compression.quantizers.post_train import PostTrainLinearQuantizer

MENU: dict[str, type[Quantizer]] = {
    kind.__name__: kind
    for kind in (
        DorefaQuantizer,
        LSQQuantizer,
        NCFQuantAwareTrainQuantizer,
        PACTQuantizer,
        PostTrainLinearQuantizer,
        QuantAwareTrainRangeLinearQuantizer,
        WRPNQuantizer,
    )
}

__all__ = ["MENU", "Plan", "PostTrainLinearQuantizer", "Quantizer", "detach", "quantization_of"]
