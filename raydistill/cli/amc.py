"""What ``raydistill sweep`` makes of Distiller's ``--amc-...``: the searcher ``amc``, and a goal."""

from __future__ import annotations

from typing import Any

from raydistill.errors import ABSENT, ConfigError, Fault
from raydistill.parts import AMC, said


def searcher_of(asked: AMC) -> dict[str, Any] | None:
    """The ``searcher`` section; None where nothing is asked for."""
    options = said(asked)
    options.pop("target_density", None)
    return {"name": "amc", **options} if asked != AMC() else None


def goals_of(asked: AMC, goal: list[str] | None, file: object | None) -> list[str] | None:
    """The bounds of ``--goal``, with that of a density.

    Raises:
        ConfigError: it is no fraction, or there is a file to say it.
    """
    density = asked.target_density
    if density is None:
        return goal
    option = "--amc-target-density"
    if not 0.0 < density < 1.0:
        raise ConfigError(Fault(option, "must lie between 0 and 1", density, "0.5 leaves half of the MACs"))
    bound = f"macs <= {density:g}x"
    if file is not None:
        raise ConfigError(Fault(option, "takes the place of a file", ABSENT, f"say constraints: ['{bound}'] in it"))
    return [*(goal or []), bound]
