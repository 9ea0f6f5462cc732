"""Quantization as a policy: from its first epoch on the network rounds."""

from __future__ import annotations

from collections.abc import Mapping

from raydistill.compression.policies.base import Policy
from raydistill.compression.quantizers.network import Quantization
from raydistill.compression.rates import PolicyTime


class QuantizationPolicy(Policy):
    """Begins to round in the first epoch it acts in, and goes on for good. Ranges follow what is seen in the epochs it
    acts in, and stay as they are in others: a schedule that ends earlier than the training freezes them.
    """

    def __init__(self, quantization: Quantization) -> None:
        self.quantization = quantization
        self.weights = tuple(quantization.weight_names())
        quantization.enabled = False
        quantization.track(False)

    def says(self, when: PolicyTime) -> str:
        weights, activations = len(self.quantization.weights), len(self.quantization.activations)
        return f"rounds {weights} weight{'s' * (weights != 1)} and the results of {activations} calls"

    def on_epoch_begin(self, when: PolicyTime) -> None:
        self.quantization.enabled = True
        self.quantization.track(True)

    def at_once(self, when: PolicyTime) -> None:
        self.quantization.enabled = True

    def on_epoch_end(self, when: PolicyTime, metrics: Mapping[str, float]) -> None:
        self.quantization.track(False)
