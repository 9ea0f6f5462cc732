"""Where quantizers will stand. Schedules that name one load and are checked; running them says so in one line."""

from __future__ import annotations


class Quantizer:
    """Base of a quantizer: prepares the model (and the optimizer, if it adds parameters) before training begins."""

    def __init__(self, name: str, **arguments: object) -> None:
        self.name = name
        self.arguments = arguments


KNOWN = (
    "DorefaQuantizer",
    "PACTQuantizer",
    "PostTrainLinearQuantizer",
    "QuantAwareTrainRangeLinearQuantizer",
    "WRPNQuantizer",
)
"""Class names that schedule files use."""

MENU: dict[str, type[Quantizer]] = {name: type(name, (Quantizer,), {"__doc__": "Not built yet."}) for name in KNOWN}

__all__ = ["KNOWN", "MENU", "Quantizer"]
