"""Live progress of a sweep: one table on a terminal, plain lines anywhere else."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence

from rich import box
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from raydistill.cli import lines
from raydistill.cli.tables import cell, counts, first_in_words, heading, percent
from raydistill.errors import RayLostError
from raydistill.masking import masked
from raydistill.metrics import Metric, selecting
from raydistill.records import BASELINE, ENDED, FAILED, FINISHED, PAUSED, RUNNING, STOPPED, EpochMetrics, TrialRecord
from raydistill.search import FrontRow
from raydistill.sweep.record.observer import Observer, Opening

_BEST_SHOWN = 6
_RUNNING_SHOWN = 8
_LINE_EVERY_S = 300.0
"""Seconds between plain lines while no trial ends."""


class Progress(Observer):
    """Use as a context manager around `run_sweep`. metrics: the task's. clock: seconds, for tests.

    resumable: the sweep has begun. on_started: called when it has. on_lost: ends the process when Ray has gone.
    """

    def __init__(
        self,
        console: Console,
        metrics: Mapping[str, Metric],
        clock: Callable[[], float] = time.monotonic,
        on_lost: Callable[[RayLostError], None] | None = None,
        on_started: Callable[[], None] | None = None,
    ) -> None:
        self.resumable = False
        self._on_lost, self._on_started = on_lost, on_started
        self._console, self._metrics = console, metrics
        self._clock = clock
        self._opening: Opening | None = None
        self._records: dict[str, TrialRecord] = {}
        self._rows: Sequence[FrontRow] = ()
        self._preparing = Text()
        self._pace_from = 0.0
        self._trained = 0
        self._last_line = 0.0
        self._shown: object = None
        self._live: Live | None = None
        self._taken_down = False

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Take the live part down; what is printed next stands in its place."""
        if self._live is not None:
            self._taken_down = True  # rich draws it once more, whole, and could not reach the rows that scroll away
            self._live.stop()
            self._live = None

    def step(self, text: str) -> None:
        if not any(record.state == RUNNING for record in self._records.values()):
            self.stop()
        self._print(Text(masked(text)))

    def warning(self, text: str) -> None:
        lines.warn(self._console, masked(text))

    def started(self) -> None:
        self.resumable = True
        if self._on_started is not None:
            self._on_started()

    def opening(self, opening: Opening) -> None:
        self.stop()
        self._opening = opening
        self._records = {
            key: record for key, record in opening.records.items() if key != BASELINE and not record.confirms
        }
        self._last_line = self._clock()
        ended = sum(record.state in ENDED for record in self._records.values())
        left = f", {ended} of them ended before" if ended else ""
        length = f" of {opening.epochs} epochs" if opening.epochs else " without training"
        about = f"{opening.trials} trials{length}{left}, {opening.max_concurrent} at a time"
        self._print(Text(f"{opening.name}: {opening.arch} on {opening.dataset}, {about}"))
        self._show()

    def baseline_epoch(self, metrics: EpochMetrics) -> None:
        self._prepared("baseline", metrics)

    def trunk_epoch(self, metrics: EpochMetrics) -> None:
        self._prepared("trunk", metrics)

    def common_epoch(self, metrics: EpochMetrics) -> None:
        self._prepared("trials'", metrics)

    def _prepared(self, what: str, metrics: EpochMetrics) -> None:
        """One epoch of what is trained before the trials."""
        self._preparing = self._preparing_line(what, metrics)
        self._show()
        last, now = metrics.epoch + 1 == metrics.epochs, self._clock()
        if last:
            self.stop()
        if last or (self._live is None and now - self._last_line >= _LINE_EVERY_S):
            self._last_line = now
            self._print(self._preparing)

    def trial(self, record: TrialRecord) -> None:
        if record.trial_id == BASELINE:
            return
        if record.confirms:
            self._confirmed(record)
            return
        before = self._records.get(record.trial_id)
        self._count(_epochs(record) - _epochs(before))
        self._records[record.trial_id] = record
        if record.state in ENDED and (before is None or before.state != record.state):
            self._ended(record)

    def _count(self, epochs: int) -> None:
        """The pace counts from the first epoch: what processes take to start says nothing of what is left."""
        if epochs and not self._pace_from:
            self._pace_from = self._clock()
        else:
            self._trained += epochs

    def front(self, rows: Sequence[FrontRow]) -> None:
        self._rows = rows

    def lost(self, error: RayLostError) -> None:
        self.stop()
        if self._on_lost is not None:
            self._on_lost(error)

    def beat(self) -> None:
        """A plain line, where something has changed since the last one."""
        if self._live is not None or self._opening is None or self._clock() - self._last_line < _LINE_EVERY_S:
            return
        state = (counts(self._records), self._trained)
        if state != self._shown:
            self._last_line, self._shown = self._clock(), state
            self._print(Text(self._summary()))

    def _ended(self, record: TrialRecord) -> None:
        if self._live is not None and record.state != FAILED:
            return  # the table shows it
        self._last_line = self._clock()
        figures = ""
        if record.last is not None:
            figures = f"  {self._quality(record.last)}  sparsity {percent(record.last.sparsity)} %"
        reason = f"  {record.reason.removeprefix('stopped ')}" if record.state != FINISHED else ""
        style = "red" if record.state == FAILED else ""
        self._print(Text(f"{record.trial_id} {record.state:<8}{figures}{reason}", style=style))

    def _confirmed(self, record: TrialRecord) -> None:
        if record.state in ENDED and record.last is not None:
            self._print(Text(f"{record.trial_id} {record.state}  {self._quality(record.last)}"))

    def _print(self, text: RenderableType) -> None:
        self._console.print(text, soft_wrap=not self._console.is_terminal)

    def _show(self) -> None:
        """Begin the live part where there is a terminal."""
        if self._console.is_terminal and self._live is None:
            self._taken_down = False
            self._live = Live(console=self._console, get_renderable=self._table, refresh_per_second=4, transient=True)
            self._live.start()

    def _preparing_line(self, what: str, metrics: EpochMetrics) -> Text:
        pruned = f", {percent(metrics.sparsity)} % sparsity" if metrics.sparsity else ""
        about = f"{what} epoch {metrics.epoch + 1}/{metrics.epochs}"
        return Text(f"  {about}, validation {self._quality(metrics)}{pruned}")

    def _quality(self, metrics: EpochMetrics) -> str:
        return first_in_words(metrics.metrics, self._metrics)

    def _summary(self) -> str:
        total = self._opening.trials if self._opening is not None else 0
        number = counts(self._records)
        parts = [f"{number.get(state, 0)} {state}" for state in (RUNNING, FINISHED, STOPPED)]
        parts += [f"{number[PAUSED]} paused"] if PAUSED in number else []
        parts += [f"{number[FAILED]} failed"] if FAILED in number else []
        waiting = total - sum(number.get(state, 0) for state in (RUNNING, PAUSED, FINISHED, STOPPED, FAILED))
        parts += [f"{waiting} waiting"] if waiting > 0 else []
        left = self._seconds_left()
        if left is None:
            parts.append("processes are starting")
        elif left:
            parts.append(f"about {_duration(left)} left")
        return ", ".join(parts)

    def _seconds_left(self) -> float | None:
        """At the pace so far, if trials to come are stopped as often and as early as those that ended."""
        if self._opening is None or not self._trained:
            return None
        ended = [_epochs(record) for record in self._records.values() if record.state in ENDED]
        usual = sum(ended) / len(ended) if ended else float(self._opening.epochs)
        running = [r for r in self._records.values() if r.state not in (*ENDED, PAUSED)]
        epochs = sum(max(0.0, self._opening.epochs - _epochs(record)) for record in running)
        epochs += usual * (self._opening.trials - len(self._records))
        return epochs * (self._clock() - self._pace_from) / self._trained

    def _table(self) -> RenderableType:
        if self._taken_down:
            return Text()
        if self._opening is None:
            return self._preparing
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
        table.add_column("trial", no_wrap=True)
        table.add_column("", no_wrap=True)
        name = selecting(self._metrics)
        for title in ("epoch", heading(name, self._metrics[name]), "sparsity %", "planned %"):
            table.add_column(title, justify="right", no_wrap=True)
        running = [record for record in self._records.values() if record.state == RUNNING]
        for record in running[:_RUNNING_SHOWN]:
            self._add_row(table, record, "running")
        if len(running) > _RUNNING_SHOWN:
            table.add_row(f"and {len(running) - _RUNNING_SHOWN} more")
        table.add_section()
        for row in [row for row in self._rows if row.pareto][-_BEST_SHOWN:]:
            self._add_row(table, row.record, "front")
        return Group(Text(self._summary(), style="bold"), table)

    def _add_row(self, table: Table, record: TrialRecord, what: str) -> None:
        last, name = record.last, selecting(self._metrics)
        table.add_row(
            record.trial_id,
            what,
            f"{_epochs(record)}/{record.epochs}",
            cell(self._metrics[name], last.metrics[name] if last else None),
            percent(last.sparsity if last else None),
            percent(record.planned_sparsity),
        )


def _epochs(record: TrialRecord | None) -> int:
    return 0 if record is None or record.last is None else record.last.epoch + 1


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
