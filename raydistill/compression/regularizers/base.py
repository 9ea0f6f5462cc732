"""A regularizer adds a term to the loss, and may zero what it has made small enough."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from raydistill.compression.structure import StructureChange
from raydistill.compression.thresholds import CRITERIA
from raydistill.errors import ConfigError, Fault, close_match


class Regularizer(ABC):
    """weights: names of the parameters it acts on. thresholds: whether it also zeroes small groups."""

    def __init__(self, name: str, weights: tuple[str, ...], threshold_criteria: str | None) -> None:
        if threshold_criteria is not None and threshold_criteria not in CRITERIA:
            rule = f"must be one of {', '.join(CRITERIA)}, or left out"
            way_out = close_match(str(threshold_criteria), CRITERIA)
            raise ConfigError(Fault("threshold_criteria", rule, threshold_criteria, way_out))
        self.name = name
        self.weights = weights
        self.threshold_criteria = threshold_criteria

    def bind(self, model: nn.Module, example_input: Sequence[object] | None) -> None:
        """The network that it is to act on, before anything else is asked; the place to set `weights`.

        Raises:
            ConfigError: it can act on nothing of this network.
        """
        del model, example_input

    def on_structure_change(self, happened: StructureChange) -> None:
        """The network lost filters or channels: the place to cut what it keeps of their shapes itself."""
        del happened

    def state_dict(self) -> dict[str, object]:
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        del state

    def fault_of(self, weight_name: str, weight: Tensor) -> str:
        """What keeps it from acting on a weight of this shape; empty if nothing does."""
        return ""

    @abstractmethod
    def term(self, weight_name: str, weight: Tensor) -> Tensor:
        """What one weight adds to the loss: a scalar with a gradient."""

    def threshold_mask(self, weight_name: str, weight: Tensor) -> Tensor:
        """The mask (1 keeps) of what is above the strength, by `threshold_criteria`."""
        raise NotImplementedError(type(self).__name__)

    def loss(self, weights: Mapping[str, Tensor], loss: Tensor) -> Tensor:
        """`loss` and the terms of these weights."""
        for name, weight in weights.items():
            loss = loss + self.term(name, weight)
        return loss
