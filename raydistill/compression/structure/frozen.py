"""The record that a quantized network's numbers are settled."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from raydistill.compression.quantizers.frozen import settle
from raydistill.compression.quantizers.network import quantization_of
from raydistill.errors import ABSENT, CheckpointError, Fault


@dataclass(frozen=True)
class Frozen:
    """Weights lie on their grids, ranges are fixed: see `quantizers.frozen`."""

    NAME: ClassVar[str] = "frozen"

    def apply(self, model: nn.Module, where: str = "structure") -> None:
        """Settle it, in place.

        Raises:
            CheckpointError: the model is not quantized.
        """
        if quantization_of(model) is None:
            raise CheckpointError(Fault(where, "the model is not quantized", ABSENT, "the file is damaged"))
        settle(model)

    def to_state(self) -> dict[str, object]:
        return {}

    @classmethod
    def from_state(cls, state: Mapping[str, object], where: str = "structure") -> Frozen:
        """What `to_state` gave."""
        del state, where
        return cls()
