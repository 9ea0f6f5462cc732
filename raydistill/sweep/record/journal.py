"""The state of a sweep: an append-only file of JSON lines, written by the driver only.

A line is written whole or, when the driver is killed in mid-write, torn: the torn tail is dropped at the next start.
Events: sweep_started, sweep_resumed, baseline, curves, evidence, episode, trial_started, epoch, trial_retried,
trial_paused, trial_ended, tested.
A trial that is promoted, or resumed after an interruption, starts again.

Files are named from where the sweep's folder is (``trials/t0003/checkpoint.pt``): it may be moved, with its storage or
alone. Whoever reads the journal gets references into the storage as it is now.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from types import TracebackType
from typing import Any

from raydistill.errors import ABSENT, Fault, StorageError
from raydistill.files import unwritable
from raydistill.records import BASELINE, FAILED, FINISHED, PAUSED, EpochMetrics, Evaluation, TrialRecord
from raydistill.storage import JournalListener
from raydistill.storage.store import read_or_nothing

FORMAT = 1
_DURABLE = frozenset({"sweep_started", "baseline", "curves", "evidence", "trial_ended", "tested"})
"""Events worth an fsync; the others survive the driver's death, though not a power cut."""

_AWAITED = frozenset({"sweep_started", "baseline", "curves", "evidence", "trial_started", "tested"})
"""Events that whoever follows the journal must have before the sweep goes on: no trial runs that a driver on another
machine could draw otherwise."""

_LAST_WORDS_S = 5.0
"""How long a failing sweep waits for who follows the journal."""

_WITH_FILES = frozenset({"record", "metrics", "epochs"})
"""What of an event names checkpoints."""

_TRAINED = re.compile(r"/(baselines/[0-9a-f]{16}/checkpoint\.pt)$")


@dataclass
class History:
    """What a journal tells. start: the data of ``sweep_started``; None in an empty journal.

    records: by trial id, in order of first start. epochs: (trial id, metrics) in the order they arrived.
    """

    start: dict[str, Any] | None = None
    records: dict[str, TrialRecord] = field(default_factory=dict)
    epochs: list[tuple[str, EpochMetrics]] = field(default_factory=list)
    curves: dict[str, list[tuple[float, float]]] | None = None
    """By weight: (level, loss), as measured for the searcher."""

    sizes: dict[str, float] | None = None
    beside: dict[str, dict[str, float]] = field(default_factory=dict)
    allocations: dict[str, list[dict[str, float]]] = field(default_factory=dict)
    evidence: list[float] | None = None
    """What each candidate loses that was pruned at once; None: none was."""
    """By weight: what a level of 1 would change in the figure of the network; None of an earlier version."""

    episodes: list[tuple[list[float], float, float]] = field(default_factory=list)
    """Levels, metric and figure of the network, of each episode that AMC has played."""

    lost: list[str] = field(default_factory=list)
    """Lines about events that are damaged, or make no sense without those."""

    story: list[tuple[str, str, EpochMetrics | None]] = field(default_factory=list)
    """(event, trial id, its metrics) in order, what a search is replayed from: trial_started, epoch, and trial_ended of
    a trial that failed."""


class Journal:
    """Open a journal for appending; a torn last line is cut off first.

    follower: told of every line. kept: how the storage names the sweep's folder; None: its path.

    Raises:
        StorageError: the folder cannot be written to.
    """

    def __init__(self, path: Path, follower: JournalListener | None = None, kept: str | None = None) -> None:
        self.path = path
        self._kept = kept or str(path.parent)
        self._follower = follower or JournalListener()
        self._unwritable: StorageError | None = None
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if path.exists():
                _cut_torn_tail(path)
            self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        except OSError as error:
            raise unwritable(path, error) from error
        self._follower.begin(path)

    def append(self, event: str, **data: object) -> None:
        """Write one event. It is with the operating system on return, on the disk too if it is a durable one.

        Raises:
            StorageError: it cannot be written; from then on no event can.
        """
        if self._unwritable is not None:  # a line is missing: what follows it, shorter perhaps, might not make sense
            raise self._unwritable
        for name in _WITH_FILES & set(data):
            data[name] = _map_files(data[name], lambda reference: _relative(reference, self._kept))
        line = json.dumps({"event": event, "time_ms": time.time_ns() // 1_000_000, **data}) + "\n"
        try:
            whole = os.fstat(self._file).st_size
            try:
                rest = memoryview(line.encode())
                while rest:
                    rest = rest[os.write(self._file, rest) :]
            except OSError:  # half a line must not stand before the next one: space may be freed meanwhile
                os.ftruncate(self._file, whole)
                raise
            if event in _DURABLE:
                os.fsync(self._file)
        except OSError as error:
            self._unwritable = unwritable(self.path, error)
            raise self._unwritable from error
        self._follower.grown(wait=event in _AWAITED)

    def close(self, timeout_s: float | None = None) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1
            self._follower.close(timeout_s)

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if error is None:
            self.close()
        else:
            with contextlib.suppress(StorageError):  # what went wrong first is what the user has to hear
                self.close(_LAST_WORDS_S)


def read_journal(path: Path, kept: str | None = None) -> History:
    """Read a journal back; an empty history where there is none. kept: as `Journal`'s.

    Raises:
        StorageError: its first event, who the sweep is, is damaged, or the journal is of another format.
    """
    return parse_journal(read_or_nothing(path), str(path), kept or str(path.parent))


def parse_journal(content: bytes, path: str, kept: str) -> History:
    """`read_journal` of what has been read already; path: where from, for errors.

    Damage costs what the damaged lines said and what makes no sense without them; all that is whole is kept.
    """
    history = History()
    *lines, _torn = content.split(b"\n")
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            event = json.loads(line)
            _locate(event, history, kept)
            _apply(history, event)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            if history.start is None:
                way_out = "start the sweep anew under another --name"
                raise StorageError(Fault(f"{path}:{number}", "is not an event of a sweep", ABSENT, way_out)) from error
            history.lost.append(f"{path}:{number}: is not an event of a sweep, what it said is lost")
        if history.start is not None and history.start.get("format") != FORMAT:
            rule = f"is of journal format {history.start.get('format')}, this version reads {FORMAT}"
            raise StorageError(Fault(path, rule, ABSENT, "start the sweep anew under another --name"))
    return history


def _apply(history: History, event: Mapping[str, Any]) -> None:
    kind = event["event"]
    if kind == "sweep_started":
        history.start = dict(event)
    elif kind == "sweep_resumed" and history.start is not None:
        history.start |= {key: event[key] for key in ("config", "judged_by") if key in event}
    elif kind in ("baseline", "trial_started"):
        record = TrialRecord.from_json(event["record"])
        if record.last is not None:
            _check(record.last)
        trained = [(record.trial_id, _check(EpochMetrics.from_json(m))) for m in event.get("epochs", [])]
        known = history.records.get(record.trial_id)
        if known is not None and kind == "trial_started":  # started again after an interruption: keep its progress
            record = replace(record, last=known.last, started_ms=known.started_ms)
        history.records[record.trial_id] = record
        if kind == "trial_started":
            history.story.append((kind, record.trial_id, None))
        history.epochs += trained
    elif kind == "epoch":
        metrics = _check(EpochMetrics.from_json(event["metrics"]))
        trial_id = event["trial_id"]
        known = history.records[trial_id]
        history.epochs.append((trial_id, metrics))
        history.story.append((kind, trial_id, metrics))
        history.records[trial_id] = replace(known, last=metrics, checkpoint=metrics.checkpoint)
    elif kind == "curves":
        history.curves = {
            str(weight): [(float(level), float(loss)) for level, loss in points]
            for weight, points in event["curves"].items()
        }
        history.sizes = _numbers(event.get("sizes", {})) or None
        history.beside = {str(figure): _numbers(sizes) for figure, sizes in event.get("beside", {}).items()}
        rules = event.get("allocations", {}).items()
        history.allocations = {str(rule): [_numbers(levels) for levels in rows] for rule, rows in rules}
    elif kind == "evidence":
        history.evidence = [math.nan if loss is None else float(loss) for loss in event["losses"]]
    elif kind == "episode":
        levels = [float(level) for level in event["levels"]]
        history.episodes.append((levels, float(event["metric"]), float(event["figure"])))
    elif kind == "trial_paused":
        known = history.records[event["trial_id"]]
        history.records[event["trial_id"]] = replace(known, state=PAUSED, reason=event["reason"])
    elif kind == "trial_ended":
        known = history.records[event["trial_id"]]
        if event["state"] == FINISHED and known.last is None:
            raise ValueError("a trial that finished without an epoch")
        ended = replace(known, state=event["state"], reason=event["reason"], ended_ms=event["time_ms"])
        history.records[event["trial_id"]] = ended
        if ended.state == FAILED:
            history.story.append((kind, event["trial_id"], None))
    elif kind == "tested":
        known = history.records[event["trial_id"]]
        history.records[event["trial_id"]] = replace(known, test=Evaluation.from_json(event["evaluation"]))


def _check(metrics: EpochMetrics) -> EpochMetrics:
    """Raises TypeError where a figure is no number."""
    numbers = [getattr(metrics, f.name) for f in fields(metrics) if f.type in ("int", "float")]
    numbers += [] if metrics.train_loss is None else [metrics.train_loss]
    numbers += [*metrics.layer_sparsity.values(), *metrics.footprint.values(), *metrics.metrics.values()]
    if not all(isinstance(number, int | float) and not isinstance(number, bool) for number in numbers):
        raise TypeError("a figure is no number")
    return metrics


def _map_files(data: Any, change: Callable[[str], str]) -> object:
    """A record, metrics or a list of them, with every checkpoint's name changed."""
    if isinstance(data, list):
        return [_map_files(one, change) for one in data]
    changed = {**data}
    if isinstance(data.get("checkpoint"), str):
        changed["checkpoint"] = change(data["checkpoint"])
    if data.get("last") is not None:
        changed["last"] = _map_files(data["last"], change)
    return changed


def _relative(reference: str, kept: str) -> str:
    """A reference into the sweep's folder, or into the storage around it, from there; any other as it is."""
    for base, prefix in ((kept, ""), (kept.rpartition("/")[0], "../")):
        if base and reference.startswith(f"{base}/"):
            return prefix + reference.removeprefix(f"{base}/")
    return reference


def _locate(event: dict[str, Any], history: History, kept: str) -> None:
    """Have an event name its files in the storage as it is now.

    Journals of old named them in full, wherever the sweep was then: its own files are known by where they end.
    """
    trial_id = event.get("trial_id") or event.get("record", {}).get("trial_id", "")
    storage = kept.rpartition("/")[0]
    own = f"trials/{trial_id}/checkpoint.pt"
    given = history.start is not None and (history.start["config"].get("baseline") or {}).get("checkpoint")

    def located(reference: str) -> str:
        if not reference.startswith("/") and "://" not in reference:
            return f"{storage}/{reference[3:]}" if reference.startswith("../") else f"{kept}/{reference}"
        if trial_id != BASELINE:
            return f"{kept}/{own}" if reference.endswith(f"/{own}") else reference
        found = None if given else _TRAINED.search(reference)
        return f"{storage}/{found.group(1)}" if found else reference

    for name in _WITH_FILES & set(event):
        event[name] = _map_files(event[name], located)


def _cut_torn_tail(path: Path) -> None:
    with path.open("r+b") as file:
        content = file.read()
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            file.truncate(whole)


def _numbers(said: Mapping[str, Any]) -> dict[str, float]:
    return {str(name): float(value) for name, value in said.items()}
