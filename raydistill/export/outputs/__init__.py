"""The kinds of output that can be delivered, by name; whoever asks for the kind of an output asks in this order."""

from __future__ import annotations

from raydistill.errors import CheckpointError, Fault, close_match
from raydistill.export.outputs.base import Output, OutputKind, Runner, Wrapped, parts, together
from raydistill.export.outputs.detections import Detections
from raydistill.export.outputs.tensor import OneTensor

MENU: dict[str, OutputKind] = {kind.NAME: kind for kind in (Detections(), OneTensor())}

__all__ = ["MENU", "Output", "OutputKind", "Runner", "Wrapped", "kind_named", "kind_of_output", "parts", "together"]


def kind_of_output(output: object) -> OutputKind:
    """Raises ConfigError where there is none for what a network gave."""
    return next(kind for kind in MENU.values() if kind.fits(output))


def kind_named(name: object, where: str) -> OutputKind:
    """Raises CheckpointError where a file names one that is not on the menu."""
    if not isinstance(name, str) or name not in MENU:
        raise CheckpointError(Fault(where, "no such kind of output", name, close_match(str(name), MENU)))
    return MENU[name]
