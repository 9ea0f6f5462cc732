"""A sweep read back from its folder or bucket, while it runs or afterwards, without Ray; nothing is changed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from raydistill.errors import ABSENT, ConfigError, Fault, close_match
from raydistill.records import BASELINE, TrialRecord
from raydistill.search import FrontRow, front_rows
from raydistill.search.constraints import Constraint
from raydistill.storage import Store, open_store
from raydistill.sweep.record.journal import parse_journal
from raydistill.sweep.record.judgement import Judgement, judgement_of
from raydistill.sweep.record.resume import JOURNAL


@dataclass(frozen=True)
class KeptSweep:
    """kept: its folder as the storage names it; folder: the same on this machine. start: the event that started it.

    lost: lines about damage to its journal.
    """

    name: str
    store: Store
    kept: str
    folder: Path
    start: Mapping[str, Any]
    records: Mapping[str, TrialRecord]
    judgement: Judgement
    lost: tuple[str, ...] = ()

    @property
    def config(self) -> Mapping[str, Any]:
        found: Mapping[str, Any] = self.start["config"]
        return found

    @property
    def sweep_id(self) -> str:
        return str(self.start["sweep_id"])

    @property
    def baseline(self) -> TrialRecord | None:
        return self.records.get(BASELINE)

    def rows(self, constraints: Sequence[Constraint] | None = None) -> list[FrontRow]:
        """All finished trials and the baseline, the front first. constraints: in place of the sweep's own."""
        bounds = self.judgement.constraints if constraints is None else constraints
        return front_rows(list(self.records.values()), self.judgement.objectives, bounds)


def read_sweep(sweep: str | None, storage: str) -> KeptSweep:
    """sweep: its name in the storage, or its folder; None: the one that was written to last.

    Raises:
        ConfigError, StorageError: there is none, or its journal cannot be read.
    """
    store, name = _place(sweep, storage)
    folder = store.root / name
    kept = store.reference(folder)
    history = parse_journal(store.content(folder / JOURNAL), f"{kept}/{JOURNAL}", kept)
    if history.start is None:
        known = store.sweeps(JOURNAL)
        way_out = close_match(name, known) if known else f"give its folder, or --storage (now {store.shown})"
        raise ConfigError(Fault("SWEEP", f"there is no sweep in {kept}", ABSENT, way_out))
    judged = judgement_of(history.start, f"{kept}/{JOURNAL}")
    return KeptSweep(name, store, kept, folder, history.start, history.records, judged, tuple(history.lost))


def _place(sweep: str | None, storage: str) -> tuple[Store, str]:
    if sweep is None:
        store = open_store(storage)
        names = store.sweeps(JOURNAL)
        if not names:
            raise ConfigError(Fault("SWEEP", f"there is no sweep in {store.shown}", ABSENT, "name one, or --storage"))
        return store, names[0]
    text = sweep.rstrip("/")
    if "/" in text or (Path(text) / JOURNAL).is_file():
        above, _, name = (text if "://" in text else str(Path(text).resolve())).rpartition("/")
        return open_store(above), name
    return open_store(storage), text
