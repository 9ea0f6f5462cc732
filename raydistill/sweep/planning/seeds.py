"""The trials of finished sweeps that ``{sweep: NAME, top: K}`` names: looked up once, then kept in the journal."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from raydistill.errors import ABSENT, Fault, TrackingError, close_match
from raydistill.records import FINISHED
from raydistill.search import spread
from raydistill.sweep.file.load import Sweep
from raydistill.sweep.file.warm_entries import SweepEntry
from raydistill.tracking import RankedSweep, embedded_uri, ranked_trials

DATABASE = "mlflow.db"


@dataclass(frozen=True)
class Seed:
    """One trial of another sweep. params: as MLflow has them, key to text. scheduled: a hand-written schedule's."""

    trial_id: str
    params: Mapping[str, str]
    scheduled: bool = False


Seeds = Mapping[int, tuple[Seed, ...]]
"""By the entry's place in ``warm_start``."""


def find_seeds(sweep: Sweep, storage: Path, warn: Callable[[str], None]) -> Seeds:
    """Read from MLflow what the file's sweep entries name.

    storage: where this sweep's folder is or will be. warn: called with a line where less is found than was asked for.

    Raises:
        TrackingError: no such sweep or server, or a sweep without a front.
    """
    found = {}
    for i, entry in enumerate(sweep.warm_start):
        if isinstance(entry, SweepEntry):
            where = f"{sweep.file}: warm_start[{i}]"
            ranked = _ranked(entry, sweep.sections.tracking.uri, storage, where)
            if ranked.state != FINISHED:
                warn(f"{where}: sweep '{entry.sweep}' did not finish ({ranked.state}); its front so far is taken")
            trials = ranked.trials
            chosen = spread([trial.rank for trial in trials], [trial.sparsity for trial in trials], entry.top)
            if len(chosen) < entry.top:
                found_only = f"{len(chosen)} finished trial{'s' if len(chosen) > 1 else ''}"
                warn(f"{where}: sweep '{entry.sweep}' has {found_only}, {entry.top} were asked for")
            picked = [trials[index] for index in chosen]
            found[i] = tuple(Seed(t.trial_id, t.params, t.origin.startswith("schedule ")) for t in picked)
    return found


def seeds_to_json(seeds: Seeds) -> list[dict[str, object]]:
    return [{"entry": entry, "trials": [asdict(seed) for seed in found]} for entry, found in seeds.items()]


def seeds_from_json(data: list[dict[str, Any]]) -> Seeds:
    return {found["entry"]: tuple(Seed(**trial) for trial in found["trials"]) for found in data}


def _ranked(entry: SweepEntry, own_uri: str | None, storage: Path, where: str) -> RankedSweep:
    """From the URI that the entry names, else from this sweep's own store, else from the other's folder."""
    uri = entry.tracking_uri or own_uri
    folder = storage / entry.sweep
    if entry.tracking_uri is None and (folder / DATABASE).is_file():
        if uri is None:
            return ranked_trials(embedded_uri(folder), entry.sweep, where)
        try:
            return ranked_trials(uri, entry.sweep, where)
        except TrackingError:
            return ranked_trials(embedded_uri(folder), entry.sweep, where)
    if uri is not None:
        return ranked_trials(uri, entry.sweep, where)
    names = [path.parent.name for path in storage.glob(f"*/{DATABASE}")]
    way_out = close_match(entry.sweep, names) if names else "name its tracking_uri"
    rule = f"no such sweep in {storage}, and no tracking_uri says where else"
    raise TrackingError(Fault(f"{where}.sweep", rule, entry.sweep or ABSENT, way_out))
