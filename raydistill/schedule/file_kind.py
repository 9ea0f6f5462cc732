"""Which of the three kinds of file a mapping is: a schedule, a sweep file, a run file. Told by its sections, so that a
file given to the wrong command is named as what it is instead of being taken apart key by key.
"""

from __future__ import annotations

from collections.abc import Mapping

from raydistill.errors import ABSENT, ConfigError, Fault
from raydistill.schedule.spec import SECTIONS

SCHEDULE, SWEEP, RUN = "a schedule", "a sweep file", "a run file"
_WAYS_OUT = {
    (SWEEP, SCHEDULE): "raydistill sweep FILE --dry-run checks it, raydistill sweep FILE runs it; a schedule has "
    "pruners and policies",
    (RUN, SCHEDULE): "raydistill compress FILE runs it; a schedule has pruners and policies",
    (
        SCHEDULE,
        SWEEP,
    ): "name it in one ('schedule: FILE'), which raydistill init writes; raydistill compress --arch ARCH "
    "--compress FILE runs it alone",
    (SCHEDULE, RUN): "give it with --compress, and the network with --arch",
    (SWEEP, RUN): "raydistill sweep FILE runs it",
}


def kind_of(mapping: Mapping[str, object]) -> tuple[str, str] | None:
    """(the kind, the section that tells it); None where nothing does."""
    instances = [key for key in (*SECTIONS, "policies") if key in mapping]
    others = [key for key in ("search", "model", "schedule") if key in mapping]
    if instances and not others:
        return SCHEDULE, instances[0]
    if instances or not others:
        return None
    return (SWEEP, "search") if "search" in mapping else (RUN, others[0])


def check_kind(mapping: Mapping[str, object], wanted: str, where: str) -> None:
    """Raises ConfigError where the mapping is another kind of file than is wanted. where: the file."""
    found = kind_of(mapping)
    if found is None or (found[0], wanted) not in _WAYS_OUT:
        return
    kind, section = found
    way_out = _WAYS_OUT[(kind, wanted)].replace("FILE", where)
    raise ConfigError(Fault(where, f"is {kind} (it has '{section}'), and {wanted} is wanted here", ABSENT, way_out))
