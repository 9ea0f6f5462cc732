"""What ``raydistill compress`` makes of ``--one-shot`` and its options: a schedule of one pruner."""

from __future__ import annotations

from typing import Any

from raydistill.errors import ABSENT, ConfigError, Fault, close_match
from raydistill.parts import OneShot
from raydistill.schedule import ScheduleSpec, parse_schedule

METHODS = {"wanda": "WandaPruner", "sparsegpt": "SparseGPTPruner"}


def schedule_of(said: OneShot) -> ScheduleSpec | None:
    """None where nothing of it is asked for.

    Raises:
        ConfigError: an option cannot be, or they do not go together.
    """
    if said.method is None:
        if said != OneShot():
            raise ConfigError(Fault("--one-shot", "is missing", ABSENT, "wanda or sparsegpt: the others say how"))
        return None
    if said.method not in METHODS:
        way_out = close_match(said.method, METHODS)
        raise ConfigError(Fault("--one-shot", f"must be one of {', '.join(METHODS)}", said.method, way_out))
    if (said.sparsity is None) == (said.pattern is None):
        given = "both are given" if said.pattern is not None else "neither is given"
        rule = f"or --one-shot-pattern must be given, one of the two ({given})"
        raise ConfigError(Fault("--one-shot-sparsity", rule, ABSENT, "as in --one-shot-sparsity 0.5"))
    pruner: dict[str, Any] = {"class": METHODS[said.method], "weights": list(said.weights)}
    narrowing = {"types": list(said.types), "except": list(said.excluded)}
    pruner |= {key: entries for key, entries in narrowing.items() if entries}
    if said.pattern is not None:
        kept, of = _pattern(said.pattern)
        pruner |= {"n": kept, "m": of}
    else:
        pruner["final_sparsity"] = said.sparsity
    if said.allocation != "uniform":
        pruner["allocation"] = said.allocation
    use = {"instance_name": "one_shot", "args": {"evidence_minibatches": said.batches}}
    mapping = {"version": 1, "pruners": {"one_shot": pruner}, "policies": [{"pruner": use, "epochs": [0]}]}
    return parse_schedule(mapping, "--one-shot")


def _pattern(text: str) -> tuple[int, int]:
    kept, _, of = text.partition(":")
    if not (kept.strip().isdigit() and of.strip().isdigit()):
        raise ConfigError(Fault("--one-shot-pattern", "must be two numbers", text, "as in 2:4"))
    return int(kept), int(of)
