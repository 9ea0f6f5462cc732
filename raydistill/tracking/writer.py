"""A background thread that delivers a sweep's operations, so that a slow or absent server never holds up a trial.

The order within a run is kept; consecutive batches of a run travel as one. While the server is away everything waits
and is tried again with exponential backoff. An operation that the server refuses is reported once and dropped.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from raydistill.masking import masked

if TYPE_CHECKING:
    from mlflow import MlflowClient

MAX_METRICS, MAX_PARAMS, MAX_TAGS, MAX_ENTITIES = 1000, 100, 100, 1000
"""MLflow's limits for one log_batch."""

FIRST_DELAY_S, LAST_DELAY_S = 0.5, 15.0
MAX_ATTEMPTS = 5
"""Attempts for one operation while the server answers others; then it is the operation that is at fault."""


class Unavailable(Exception):
    """Try again later. alive: the server does answer, only this operation failed. trouble: what it does else."""

    def __init__(self, message: str, alive: bool = False, trouble: str = "does not answer") -> None:
        super().__init__(message)
        self.alive, self.trouble = alive, trouble


class Refused(Exception):
    """Trying again is of no use for this operation."""


class Broken(Exception):
    """Trying again is of no use for any operation."""


@dataclass(frozen=True)
class Point:
    """One metric value. The timestamp is the record's, so that the same point sent twice is one point in the store."""

    key: str
    value: float
    timestamp_ms: int
    step: int


@dataclass(frozen=True)
class Batch:
    """Metrics, params and tags of one run, within MLflow's limits; see `batches`."""

    metrics: tuple[Point, ...] = ()
    params: tuple[tuple[str, str], ...] = ()
    tags: tuple[tuple[str, str], ...] = ()

    def fits(self) -> bool:
        return (
            len(self.metrics) <= MAX_METRICS
            and len(self.params) <= MAX_PARAMS
            and len(self.tags) <= MAX_TAGS
            and len(self.metrics) + len(self.params) + len(self.tags) <= MAX_ENTITIES
        )

    def merged(self, later: Batch) -> Batch:
        """Both in one; a later tag replaces an earlier one."""
        tags = tuple({**dict(self.tags), **dict(later.tags)}.items())
        return Batch(tuple(dict.fromkeys(self.metrics + later.metrics)), _union(self.params, later.params), tags)


@dataclass(frozen=True)
class Action:
    """Anything else done to a run; must be safe to do twice. do: called with the client and the run's id.

    replaces: a still waiting action of this run with the same word is given up for this one.
    """

    what: str
    do: Callable[[MlflowClient, str], None]
    replaces: str | None = None


Operation = Batch | Action


class Sink(Protocol):
    """Where operations go; `run` is the key of a run."""

    def send(self, run: str, operation: Operation) -> None:
        """Raises Unavailable, Refused or Broken."""


def batches(
    metrics: tuple[Point, ...] = (), params: tuple[tuple[str, str], ...] = (), tags: tuple[tuple[str, str], ...] = ()
) -> list[Batch]:
    """As few batches as the limits allow."""
    parts = [Batch(metrics=metrics[i : i + MAX_METRICS]) for i in range(0, len(metrics), MAX_METRICS)]
    parts += [Batch(params=params[i : i + MAX_PARAMS]) for i in range(0, len(params), MAX_PARAMS)]
    parts += [Batch(tags=tags[i : i + MAX_TAGS]) for i in range(0, len(tags), MAX_TAGS)]
    packed: list[Batch] = []
    for part in parts:
        if packed and packed[-1].merged(part).fits():
            packed[-1] = packed[-1].merged(part)
        else:
            packed.append(part)
    return packed


class TrackingWriter:
    """report: called with one line, from this thread, for each thing the user should know, and never twice the same.

    clean: takes out of a line what nobody is to read.
    """

    def __init__(
        self, sink: Sink, report: Callable[[str], None] | None = None, clean: Callable[[str], str] = masked
    ) -> None:
        self.errors: list[str] = []
        self.broken = False
        self._sink = sink
        self._report = report
        self._clean = clean
        self._pending: dict[str, deque[Operation]] = {}
        self._in_flight: tuple[str, int] = ("", 0)
        self._one_by_one: dict[str, int] = {}
        self._attempts: dict[str, int] = {}
        self._changed = threading.Condition()
        self._closing = self._abandoned = self._away = False
        self._thread = threading.Thread(target=self._loop, name="raydistill-tracking", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def put(self, run: str, *operations: Operation) -> None:
        """Queue operations of one run; returns at once."""
        with self._changed:
            waiting = self._pending.setdefault(run, deque())
            for operation in operations:
                if isinstance(operation, Action) and operation.replaces is not None:
                    self._drop_replaced(run, waiting, operation.replaces)
                waiting.append(operation)
            self._changed.notify_all()

    def undelivered(self) -> int:
        with self._changed:
            return sum(len(waiting) for waiting in self._pending.values())

    def close(self, timeout_s: float) -> int:
        """Deliver what waits, for at most `timeout_s`; the number of operations left behind."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        if self._thread.is_alive():
            self._thread.join(timeout_s)
        with self._changed:
            self._abandoned = True
            self._changed.notify_all()
        return self.undelivered()

    def flush(self, timeout_s: float) -> int:
        """Wait until nothing waits, for at most `timeout_s`; the number of operations still waiting."""
        deadline = time.monotonic() + timeout_s
        with self._changed:
            while any(self._pending.values()) and self._thread.is_alive():
                if not self._changed.wait(max(0.0, deadline - time.monotonic())):
                    break
        return self.undelivered()

    def _drop_replaced(self, run: str, waiting: deque[Operation], word: str) -> None:
        start = self._in_flight[1] if self._in_flight[0] == run else 0
        kept = [op for i, op in enumerate(waiting) if i < start or not (isinstance(op, Action) and op.replaces == word)]
        waiting.clear()
        waiting.extend(kept)

    def _loop(self) -> None:
        delay = FIRST_DELAY_S
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._closing or any(self._pending.values()))
                if self._abandoned or not any(self._pending.values()):
                    return
                runs = [run for run, waiting in self._pending.items() if waiting]
            try:
                held_up = self._round(runs)
            except Broken as error:
                self.broken = True
                self._tell(f"MLflow cannot be written, its records stay behind: {error}")
                return
            if not held_up:
                delay = FIRST_DELAY_S
                continue
            with self._changed:
                self._changed.wait_for(lambda: self._abandoned, delay)
            delay = min(delay * 2, LAST_DELAY_S)

    def _round(self, runs: list[str]) -> bool:
        """One delivery for each run; True if one has to wait."""
        held_up = False
        for run in runs:
            if self._abandoned:
                return True
            operation, count = self._take(run)
            try:
                self._sink.send(run, operation)
            except Unavailable as error:
                held_up = True
                if not error.alive:
                    if not self._away:  # once an outage
                        self._tell(f"MLflow {error.trouble}, its records wait: {error}")
                    self._away = True
                    return True
                self._attempts[run] = self._attempts.get(run, 0) + 1
                if self._attempts[run] >= MAX_ATTEMPTS:
                    self._refuse(run, operation, count, str(error))
            except Refused as error:
                self._refuse(run, operation, count, str(error))
            except Broken:
                raise
            except Exception as error:  # a defect must not end the delivery of everything else
                self._refuse(run, operation, count, f"{type(error).__name__}: {error}")
            else:
                self._away = False
                self._done(run, count)
        return held_up

    def _take(self, run: str) -> tuple[Operation, int]:
        """The run's next operation, and how many queued ones it is made of."""
        with self._changed:
            waiting = self._pending[run]
            operation, count = waiting[0], 1
            if isinstance(operation, Batch) and not self._one_by_one.get(run):
                while count < len(waiting):
                    following = waiting[count]
                    if not isinstance(following, Batch) or not operation.merged(following).fits():
                        break
                    operation, count = operation.merged(following), count + 1
            self._in_flight = (run, count)
            return operation, count

    def _done(self, run: str, count: int) -> None:
        with self._changed:
            for _ in range(count):
                self._pending[run].popleft()
            self._in_flight = ("", 0)
            self._attempts.pop(run, None)
            self._one_by_one[run] = max(0, self._one_by_one.get(run, 0) - count)
            self._changed.notify_all()

    def _refuse(self, run: str, operation: Operation, count: int, reason: str) -> None:
        if count > 1:  # find the one that is at fault
            self._one_by_one[run] = count
            self._attempts.pop(run, None)
            return
        what = operation.what if isinstance(operation, Action) else "figures"
        self._tell(f"not in MLflow: {what} of {run or 'the sweep'}: {reason}")
        self._done(run, 1)

    def _tell(self, message: str) -> None:
        line = self._clean(" ".join(message.split()))
        line = line if len(line) <= 400 else line[:397] + "..."
        if line in self.errors:
            return
        self.errors.append(line)
        if self._report is not None:
            with contextlib.suppress(Exception):  # a report that fails must not stop the delivery
                self._report(line)


def _union(first: tuple[tuple[str, str], ...], second: tuple[tuple[str, str], ...]) -> tuple[tuple[str, str], ...]:
    """Params of both; two values for one key stay apart, so that MLflow refuses the second."""
    return tuple(dict.fromkeys(first + second))
