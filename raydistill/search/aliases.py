"""Aliases of one's own in the model registry: ``small: {best: top1, where: size_bytes <= 150000}``."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from raydistill.errors import ABSENT, ConfigError, Fault, close_match
from raydistill.metrics import OF_NETWORK, Metric
from raydistill.records import TrialRecord
from raydistill.search.constraints import parse_constraints
from raydistill.search.objectives import Objective
from raydistill.search.pareto import FrontRow
from raydistill.search.pick import Rule, pick

OURS = "pareto-"
"""How the aliases begin that a sweep gives by itself: see `highlights.names`."""

NAME = re.compile(r"[A-Za-z0-9_-]{1,255}")
"""As MLflow takes it."""

_OF_MLFLOW = re.compile(r"latest|v\d+", re.IGNORECASE)
_EXAMPLE = "as in {best: top1, where: 'size_bytes <= 150000'}"


@dataclass(frozen=True)
class Alias:
    """name: as the registry has it. rule: which trial's model it is; see `pick.pick`."""

    name: str
    rule: Rule


def parse_aliases(
    node: Mapping[str, Mapping[str, object]], where: str, metrics: Mapping[str, Metric], own: Collection[str] = ()
) -> tuple[Alias, ...]:
    """Read the ``aliases`` section: of each name ``best``, ``where`` or both. metrics: the task's. own: names of
    figures that are objectives already.

    Raises:
        ConfigError: with all faults together.
    """
    faults: list[Fault | str] = []
    found = []
    known = (*metrics, *OF_NETWORK, *own)
    for name, said in node.items():
        at = f"{where}.{name}"
        if NAME.fullmatch(name) is None:
            faults.append(Fault(at, "an alias has letters, digits, '_' and '-'", name, "rename it"))
        elif name.startswith(OURS) or _OF_MLFLOW.fullmatch(name):
            whose = "a sweep's own" if name.startswith(OURS) else "MLflow's own"
            faults.append(Fault(at, f"is {whose}", name, "rename it"))
        best, bounds = said.get("best"), said.get("where") or []
        if best is None and not bounds:
            faults.append(Fault(at, "must say best, where or both", ABSENT, _EXAMPLE))
        if best is not None and best not in known:
            faults.append(Fault(f"{at}.best", "unknown figure", best, close_match(best, known)))
        try:
            limits = parse_constraints([bounds] if isinstance(bounds, str) else bounds, f"{at}.where", metrics, own)
        except ConfigError as error:
            faults += error.faults
            continue
        found.append(Alias(name, Rule(best=None if best is None else str(best), where=limits)))
    if faults:
        raise ConfigError(*faults)
    return tuple(found)


def chosen(
    aliases: Sequence[Alias],
    rows: Sequence[FrontRow],
    metrics: Mapping[str, Metric],
    objectives: Sequence[Objective],
    records: Mapping[str, TrialRecord],
) -> tuple[dict[str, FrontRow], dict[str, str]]:
    """By alias the row of `rows` that its rule means, on the front or not; and of those that mean none, why."""
    found, without = {}, {}
    for alias in aliases:
        try:
            found[alias.name] = pick(rows, alias.rule, metrics, objectives, records)
        except ConfigError as error:
            fault = error.faults[0]
            without[alias.name] = f"{fault.rule}; {fault.way_out}" if isinstance(fault, Fault) else fault
    return found, without
