"""What runs in a process that trains several trials as one network: an epoch of all of them for each call."""

from __future__ import annotations

import contextlib
import os
import traceback
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import ray

from raydistill.cluster.last_words import witnessed
from raydistill.errors import RaydistillError, StorageError
from raydistill.files import full_disk, write_atomically
from raydistill.masking import masked
from raydistill.records import EpochMetrics
from raydistill.storage import Store
from raydistill.storage.store import Workplace
from raydistill.sweep.planning.plan import TrialPlan
from raydistill.sweep.trial.checkpoint_damage import history_or_damage
from raydistill.sweep.trial.fork import fork
from raydistill.sweep.trial.local_files import here
from raydistill.sweep.trial.orphans import patience_s
from raydistill.sweep.trial.trainable import ANEW, TRACEBACK, failure, report_of, with_figures
from raydistill.tasks import Task
from raydistill.training import RunConfig
from raydistill.training.checkpoint import FILE_NAME
from raydistill.training.packing import Pack

Report = tuple[str, dict[str, Any]]
"""A trial's id, and what it would report to Ray Tune."""


@dataclass(frozen=True)
class PackedLeg:
    """A leg of a trial (see `search_driver.Leg`)."""

    plan: TrialPlan
    known: int
    until: int | None

    @property
    def trial_id(self) -> str:
        return self.plan.trial_id


@dataclass(frozen=True)
class EpochOfAll:
    """reports: in their order. ended: trials whose leg is over. lines: what the user has to hear."""

    reports: tuple[Report, ...]
    ended: tuple[str, ...]
    lines: tuple[str, ...]


class PackedTrials:
    """An actor. shared, store, latency, own: see `trainable.train_trial`."""

    def __init__(self, shared: list[Any], store: Store, latency: bool, own: Sequence[str]) -> None:
        self._task: Task = ray.get(shared[0])
        self._store, self._latency, self._own = store, latency, own
        self._lines: list[str] = []
        self._pack = Pack(self._task, self._lines.append)
        self._trials: dict[int, _Trial] = {}
        self._count = 0

    def place(self) -> tuple[str, int]:
        """Its node's address and its process."""
        return ray.util.get_node_ip_address(), os.getpid()

    def epoch(self, legs: Sequence[PackedLeg], stopped: Sequence[str]) -> EpochOfAll:
        """Let trials go, take others in, and train an epoch of all that are there."""
        reports: list[Report] = []
        ended: list[str] = []
        with witnessed():
            for trial in list(self._trials.values()):
                if trial.leg.trial_id in stopped:
                    self._let_go(trial)
            for leg in legs:
                self._take_in(leg, reports, ended)
            for key, outcome in self._pack.epoch():
                trial = self._trials[key]
                more, over = self._told(trial, outcome)
                reports += more
                if over:
                    ended.append(trial.leg.trial_id)
                    self._let_go(trial)
        lines, self._lines[:] = tuple(self._lines), []
        return EpochOfAll(tuple(reports), tuple(ended), lines)

    def _take_in(self, leg: PackedLeg, reports: list[Report], ended: list[str]) -> None:
        self._count += 1
        trial = _Trial(self._count, leg, str(leg.plan.run.out_dir))
        self._trials[trial.key] = trial
        try:
            trial.run = here(leg.plan.run, self._store)
            wait_s = patience_s(self._store.local(trial.kept))
            trial.place = trial.opened.enter_context(self._store.workplace(trial.kept, "this trial", wait_s))
            fork(leg.plan, self._store, trial.place.folder)
            checkpoint = trial.place.folder / FILE_NAME
            history, damage = history_or_damage(checkpoint) if checkpoint.exists() else ([], "")
            if damage:
                reports.append((leg.trial_id, {ANEW: damage}))
            over = False
            for metrics in history:
                more, over = self._told(trial, metrics)
                reports += more
                if over:
                    break
            if not over:
                self._pack.add(trial.key, trial.run)
        except Exception as error:
            more, over = self._told(trial, error)
            reports += more
        if over:
            ended.append(leg.trial_id)
            self._let_go(trial)

    def _told(self, trial: _Trial, outcome: EpochMetrics | BaseException) -> tuple[list[Report], bool]:
        """(what there is to report of an epoch or of what ended it, whether the leg is over)."""
        leg, run = trial.leg, trial.run
        if isinstance(outcome, EpochMetrics):
            try:
                assert run is not None
                assert trial.place is not None
                if not trial.place.ours:
                    return [], True  # this machine was cut off, and the trial goes on elsewhere
                last = outcome.epoch + 1 == run.epochs
                if last and not outcome.footprint:
                    outcome = with_figures(outcome, run, self._task, self._latency, self._own)
                trial.place.push()
                over = last or outcome.epoch + 1 == leg.until
                if outcome.epoch < leg.known:
                    return [], over
                kept = replace(outcome, checkpoint=f"{trial.kept}/{FILE_NAME}")
                return [(leg.trial_id, report_of(kept))], over
            except Exception as error:
                outcome = error
        _leave_trace(trial, outcome)
        return [(leg.trial_id, failure(outcome, trial.kept, self._store))], True

    def _let_go(self, trial: _Trial) -> None:
        self._pack.drop(trial.key)
        self._trials.pop(trial.key, None)
        trial.opened.close()


class _Trial:
    def __init__(self, key: int, leg: PackedLeg, kept: str) -> None:
        self.key, self.leg, self.kept = key, leg, kept
        self.run: RunConfig | None = None
        self.place: Workplace | None = None
        self.opened = contextlib.ExitStack()


def _leave_trace(trial: _Trial, error: BaseException) -> None:
    """The traceback of a defect, ours or the user's, in the trial's folder."""
    if trial.place is None or isinstance(error, RaydistillError) or full_disk(error) is not None:
        return
    with contextlib.suppress(StorageError):
        text = "".join(traceback.format_exception(error))
        write_atomically(Path(trial.place.folder) / TRACEBACK, masked(text))
