"""The formats that a network is delivered in, by name."""

from __future__ import annotations

from collections.abc import Sequence

from raydistill.errors import ConfigError, Fault, close_match
from raydistill.export.formats.base import Format, Runner
from raydistill.export.formats.bitmask import Bitmask
from raydistill.export.formats.checkpoint import Checkpoint
from raydistill.export.formats.onnx import Onnx, write_onnx
from raydistill.export.formats.openvino import OpenVino
from raydistill.export.formats.pt2 import Pt2
from raydistill.export.formats.pt2e import Pt2e
from raydistill.export.formats.safetensors import Safetensors

MENU: dict[str, Format] = {
    form.NAME: form for form in (Onnx(), Pt2(), Safetensors(), Checkpoint(), Bitmask(), OpenVino(), Pt2e())
}
DEFAULT = (Onnx.NAME, Pt2.NAME, Safetensors.NAME, Checkpoint.NAME)

__all__ = ["DEFAULT", "Format", "MENU", "Runner", "asked_for", "write_onnx"]


def asked_for(names: Sequence[str], where: str) -> tuple[Format, ...]:
    """The formats of these names, each once, in this order.

    Raises:
        ConfigError: one is not on the menu, or its packages are missing; all such faults together.
    """
    faults: list[Fault | str] = []
    found: dict[str, Format] = {}
    for name in names:
        if name not in MENU:
            faults.append(Fault(where, "no such format", name, close_match(name, MENU)))
            continue
        try:
            MENU[name].check(f"{where} {name}")
        except ConfigError as error:
            faults += error.faults
        found[name] = MENU[name]
    if not names:
        faults.append(Fault(where, "needs one format at least", "", close_match("", MENU)))
    if faults:
        raise ConfigError(*faults)
    return tuple(found.values())
