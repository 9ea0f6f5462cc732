"""Regimes: what schedule files call ``reg_regims`` (weight: [strength, group type]), and group thresholds by them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from raydistill.compression.granularity import MENU, Granularity, fault_of, granularity
from raydistill.errors import ConfigError, Fault

CRITERIA = ("Mean_Abs", "Max")


@dataclass(frozen=True)
class Regim:
    """The strength (also the threshold) of one weight, and its groups; a sum such as Rows+Cols names several."""

    strength: float
    group_type: str
    granularities: tuple[Granularity, ...]

    def fault_of(self, weight: Tensor) -> str:
        return next(filter(None, (fault_of(structure, weight) for structure in self.granularities)), "")


def checked_regims(regims: object) -> dict[str, Regim]:
    """``{weight: [strength, group type]}``, checked.

    Raises:
        ConfigError: one fault for each entry that is wrong.
    """
    if not isinstance(regims, Mapping) or not regims:
        way_out = "such as {conv1.weight: [0.001, Channels]}"
        raise ConfigError(Fault("reg_regims", "must map weight names to [strength, group type]", regims, way_out))
    faults, checked = [], {}
    for name, entry in regims.items():
        where = f"reg_regims.{name}"
        if not isinstance(entry, (list, tuple)) or len(entry) != 2:
            faults.append(Fault(where, "must be [strength, group type]", entry, "such as [0.001, Channels]"))
        elif isinstance(entry[0], bool) or not isinstance(entry[0], (int, float)) or not 0 <= entry[0] < float("inf"):
            faults.append(Fault(where, "the strength must be a number from 0 up", entry[0]))
        else:
            try:
                checked[str(name)] = Regim(float(entry[0]), str(entry[1]), _structures(where, str(entry[1])))
            except ConfigError as error:
                faults.extend(fault for fault in error.faults if isinstance(fault, Fault))
    if faults:
        raise ConfigError(*faults)
    return checked


def _structures(where: str, text: str) -> tuple[Granularity, ...]:
    return tuple(
        granularity(where, part, allowed=lambda name: name in MENU and name != "Element") for part in text.split("+")
    )


def group_threshold_mask(weight: Tensor, regim: Regim, criterion: str) -> Tensor:
    """1 for groups whose mean (Mean_Abs) or largest (Max) absolute value is above the regim's strength, else 0.

    Of several structures (Rows+Cols) an element is kept where each of its groups is.
    """
    mask = None
    for structure in regim.granularities:
        groups = structure.groups(weight.detach().abs())
        level = groups.mean(dim=1) if criterion == "Mean_Abs" else groups.amax(dim=1)
        part = structure.expand((level > regim.strength).to(weight.dtype), weight)
        mask = part if mask is None else mask * part
    assert mask is not None
    return mask
