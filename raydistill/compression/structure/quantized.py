"""The record of one quantization: what of a network is rounded, and to what."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from raydistill.compression.quantizers.plan import Plan
from raydistill.errors import CheckpointError, ConfigError, Fault


@dataclass(frozen=True)
class Quantized:
    """plan: of the quantizer. What training learns beside the weights (ranges, clipping values) are parameters and
    buffers of the network from then on."""

    NAME: ClassVar[str] = "quantized"

    plan: Plan

    def __bool__(self) -> bool:
        return bool(self.plan)

    def apply(self, model: nn.Module, where: str = "structure") -> None:
        """Quantize it, in place.

        Raises:
            CheckpointError: the model has no such weights, or is quantized already.
        """
        try:
            self.plan.carry_out(model, where)
        except ConfigError as error:
            rules = "; ".join(fault.rule if isinstance(fault, Fault) else fault for fault in error.faults)
            raise CheckpointError(Fault(where, rules, way_out="it belongs to another architecture")) from error

    def to_state(self) -> dict[str, object]:
        return self.plan.to_state()

    @classmethod
    def from_state(cls, state: Mapping[str, object], where: str = "structure") -> Quantized:
        """What `to_state` gave, whoever wrote it down.

        Raises:
            CheckpointError: it is not of that form.
        """
        return cls(Plan.from_state(state, where))
