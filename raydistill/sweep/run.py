"""A whole sweep: dataset, baseline, trials, front. `run_sweep` is what ``raydistill sweep`` calls."""

from __future__ import annotations

import contextlib
import shutil
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import ray
import torch

from raydistill.cluster.address import Address
from raydistill.cluster.connect import connected, put
from raydistill.cluster.modules import named_in
from raydistill.cluster.nodes import Node, this_machine
from raydistill.cluster.team import Team, trial_team
from raydistill.cluster.watch import RayGone
from raydistill.errors import RaydistillError, RayLostError
from raydistill.files import clear_temporaries
from raydistill.records import FAILED, FINISHED, INTERRUPTED, TrialRecord
from raydistill.search import FrontRow
from raydistill.search.highlights import progress
from raydistill.storage import Store, open_store
from raydistill.sweep.baseline import ensure_baseline
from raydistill.sweep.common_start import ensure_common_start
from raydistill.sweep.curves import ensure_curves
from raydistill.sweep.episodes import ensure_episodes
from raydistill.sweep.evidence import ensure_evidence
from raydistill.sweep.file.load import Sweep
from raydistill.sweep.file.warm_entries import SweepEntry
from raydistill.sweep.packs import settled_pack
from raydistill.sweep.planning.packing import packing_of
from raydistill.sweep.planning.plan import check_plan, plan_sweep
from raydistill.sweep.planning.resources import Share, must_wait, trial_share
from raydistill.sweep.planning.seeds import Seeds, find_seeds, seeds_from_json, seeds_to_json
from raydistill.sweep.planning.task import data_of, sweep_task
from raydistill.sweep.record.journal import FORMAT, History, Journal, parse_journal, read_journal
from raydistill.sweep.record.judgement import Judgement
from raydistill.sweep.record.ledger import Ledger
from raydistill.sweep.record.observer import Observer
from raydistill.sweep.record.resume import JOURNAL, check_gone, check_same, check_start
from raydistill.sweep.record.tracking_place import check_tracking, mlflow_files
from raydistill.sweep.results.confirm import confirm_front
from raydistill.sweep.results.front import can_be_taken, publish_front, test_front
from raydistill.sweep.results.retrain import train_lost
from raydistill.sweep.session import Session
from raydistill.sweep.trials import TUNE, run_trials
from raydistill.sweep.trunk import ensure_trunk
from raydistill.sweep.tune.interrupt import Interrupt
from raydistill.tasks import Task
from raydistill.tracking import DatasetCard, SweepLog, has_runs, visit

_LOST_S = 15.0
"""For MLflow, when Ray has gone: soon Ray ends the process."""

_LOST_SHOWN = 5
_INTERRUPTED_S = 8.0
"""For MLflow, after a signal."""


@dataclass(frozen=True)
class Outcome:
    """How a sweep ended. rows: finished trials and the baseline, the front first, its members tested.

    kept: the sweep's folder as the journal names it, a path or a URI; folder: the same on this machine.

    interrupted: by a signal; the sweep can be resumed. model: the knee as the registry has it ("simplenet"); "": it has
    none of this sweep. recorded: False where MLflow takes nothing any more; the journal has it all. front_page: the
    address of the front in MLflow's interface, once that is open. aliases: of the user's own that MLflow has taken,
    where its model is (``models:/simplenet@small``). can_be_taken: whether `raydistill pick` can write the knee.
    """

    folder: Path
    records: Mapping[str, TrialRecord]
    rows: Sequence[FrontRow]
    dataset: str
    used_fallback: bool
    interrupted: bool
    tracking_uri: str
    kept: str
    model: str = ""
    recorded: bool = True
    front_page: str = ""
    aliases: Mapping[str, str] = field(default_factory=dict)
    can_be_taken: bool = True


def run_sweep(
    sweep: Sweep,
    storage: Path | str,
    *,
    resume: bool = False,
    address: Address | None = None,
    observer: Observer | None = None,
    interrupt: Interrupt | None = None,
) -> Outcome:
    """Run or resume a sweep; its state stands in ``storage/NAME``. storage: a folder or a URI, see `open_store`.

    Raises:
        RaydistillError: whatever the user can mend; the sweep can be resumed if it had started.
    """
    observer, interrupt = observer or Observer(), interrupt or Interrupt()
    store = open_store(storage)
    folder = store.root / sweep.sections.name
    kept = store.reference(folder)
    check_tracking(sweep, store)
    store.check()
    history = check_start_of(sweep, store, resume)
    if history.start is not None:
        sweep = sweep.as_started(history.start["config"])
    check_plan(sweep)  # what is wrong with the file is said before the data are read
    if sweep.sections.tracking.uri is not None:
        visit(sweep.sections.tracking.uri)  # and what is wrong with MLflow before Ray takes seconds to start
    seeds = _seeds(sweep, store.root, history, observer)
    where = f"{sweep.file}: resources_per_trial"
    if address is None:
        here = [this_machine()]  # before Ray takes seconds to start
        _team(sweep, trial_share(sweep.sections.resources_per_trial, here, where, "this machine"), here)
    observer.step(f"loading {data_of(sweep.task, sweep.dataset)}")
    task = sweep_task(sweep)
    for line in filter(None, (task.warning, task.note)):
        observer.warning(line)
    plan = plan_sweep(sweep, task, seeds)
    if not resume:
        for line in plan.warnings:
            observer.warning(line)
        for line in () if sweep.automatic is None else sweep.automatic.lines():
            observer.step(line)
    packing = packing_of(sweep, plan, task)
    if packing.why:
        observer.warning(f"{where}.pack: {packing}")
    about = {"name": task.name, "fingerprint": task.fingerprint()}
    with store.held(folder / JOURNAL, f"the sweep in {kept}", observer.warning) as follower:
        clear_temporaries(folder, *(folder / "trials").glob("*"))  # of a driver and trials that were killed
        shutil.rmtree(folder / TUNE, ignore_errors=True)
        history = read_journal(folder / JOURNAL, kept)
        check_start(kept, history, resume)
        _tell_lost(history, observer)
        check_same(sweep.file, history, sweep.config(), about, plan)
        observer.step("starting Ray" if address is None else f"connecting to Ray at {address}")
        open_session: list[tuple[Session, SweepLog]] = []

        def lost(error: RayLostError) -> None:
            for session, log in open_session:
                with contextlib.suppress(RaydistillError):
                    _close(session, log, INTERRUPTED, timeout_s=_LOST_S)
            observer.lost(error)

        with connected(address, task.nbytes, named_in(sweep.config()), observer.warning, lost) as nodes:
            share = trial_share(sweep.sections.resources_per_trial, nodes, where)
            if must_wait(share, nodes):
                observer.step(f"no node has {share} yet: waiting for the cluster to start one")
            sweep_id = history.start["sweep_id"] if history.start else uuid.uuid4().hex
            log = _log(sweep, store, sweep_id, task, about["fingerprint"], observer)
            log.connect()
            with Journal(folder / JOURNAL, follower, kept) as journal:
                interrupt.begun = True
                _open(journal, history, sweep_id, sweep, about, seeds)
                log.start()  # not before: a driver killed in between would leave a run that no sweep knows
                observer.started()
                ledger = Ledger(journal, history, log, observer, sweep.objectives, sweep.metrics, sweep.constraints)
                session = Session(
                    sweep,
                    store,
                    folder,
                    task,
                    about["fingerprint"],
                    plan,
                    ledger,
                    observer,
                    interrupt,
                    nodes,
                    share,
                    team=_team(sweep, share, nodes),
                    packing=packing,
                )
                open_session.append((session, log))
                return _run(session, history, log)


def check_start_of(sweep: Sweep, store: Store, resume: bool) -> History:
    """The history of the sweep in this storage, if it may be started, or go on.

    Raises:
        ConfigError, StorageError: it may not, or its journal cannot be read.
    """
    folder = store.root / sweep.sections.name
    kept = store.reference(folder)
    history = parse_journal(store.content(folder / JOURNAL), f"{kept}/{JOURNAL}", kept)
    check_gone(kept, history, _results(folder))
    check_start(kept, history, resume)
    return history


def _results(folder: Path) -> list[str]:
    """What a sweep has left in its folder on this machine, besides its journal."""
    trials = [f"trials/{path.parent.name}" for path in sorted(folder.glob("trials/*/checkpoint.pt"))]
    return [*trials, *(["mlflow.db"] if has_runs(folder) else [])]


def _tell_lost(history: History, observer: Observer) -> None:
    """Damage to the journal, in a few lines."""
    for line in history.lost[:_LOST_SHOWN]:
        observer.warning(line)
    if len(history.lost) > _LOST_SHOWN:
        observer.warning(f"and {len(history.lost) - _LOST_SHOWN} more lines of the journal are lost")
    if history.lost:
        observer.warning("what the journal still says is kept; trials go on from their checkpoints")


def _team(sweep: Sweep, share: Share, nodes: Sequence[Node]) -> Team | None:
    """The workers of each trial; None: a trial is one process."""
    sections = sweep.sections
    if sections.workers_per_trial == 1:
        return None
    return trial_team(sections.workers_per_trial, share.cpu, share.gpu, sections.max_failures, nodes, str(sweep.file))


def _seeds(sweep: Sweep, storage: Path, history: History, observer: Observer) -> Seeds:
    """Other sweeps' trials to begin with: from MLflow once, then from the journal, whatever became of those sweeps."""
    if history.start is not None:
        return seeds_from_json(history.start.get("seeds", []))
    if any(isinstance(entry, SweepEntry) for entry in sweep.warm_start):
        observer.step("reading earlier sweeps from MLflow")
    return find_seeds(sweep, storage, observer.warning)


def _open(
    journal: Journal,
    history: History,
    sweep_id: str,
    sweep: Sweep,
    dataset: Mapping[str, str],
    seeds: Seeds,
) -> None:
    config = sweep.config()
    judged_by = Judgement(sweep.metrics, sweep.objectives, sweep.constraints).to_json()
    if history.start is not None:
        journal.append("sweep_resumed", config=config, judged_by=judged_by)
        return
    versions = {"ray": ray.__version__, "torch": torch.__version__, "numpy": np.__version__}
    journal.append(
        "sweep_started",
        format=FORMAT,
        sweep_id=sweep_id,
        config=config,
        judged_by=judged_by,
        dataset=dataset,
        seeds=seeds_to_json(seeds),
        versions=versions,
    )


def _run(session: Session, history: History, log: SweepLog) -> Outcome:
    ledger, interrupt = session.ledger, session.interrupt
    try:
        ledger.resend(history)
        session.shared = [put(session.task, session.task.nbytes)]
        if ensure_baseline(session) and ensure_trunk(session) and not interrupt.requested:
            session.pack = settled_pack(session)
            ensure_curves(session)
            ensure_evidence(session)
            if ensure_episodes(session) and ensure_common_start(session):
                run_trials(session, history)
            if not interrupt.requested:
                train_lost(session, history)
            confirm_front(session)
        if not interrupt.requested:
            test_front(session)
            publish_front(session, log)
    except KeyboardInterrupt:  # the second signal: at once
        _close(session, log, INTERRUPTED, timeout_s=0.0)
        raise
    except RayGone:
        raise  # `lost` has closed it
    except BaseException:
        with contextlib.suppress(RaydistillError):  # what went wrong first is what the user has to hear
            _close(session, log, FAILED)
        raise
    if interrupt.requested:
        _close(session, log, INTERRUPTED, timeout_s=_INTERRUPTED_S)
    else:
        _close(session, log, FINISHED)
    return Outcome(
        folder=session.folder,
        records=dict(ledger.records),
        rows=ledger.front(),
        dataset=session.task.name,
        used_fallback=session.task.used_fallback,
        interrupted=interrupt.requested,
        tracking_uri=log.uri,
        kept=session.kept,
        model=log.registered,
        recorded=not log.broken,
        front_page=log.front_page,
        aliases={
            alias: f"models:/{log.aliases[alias]}@{alias}"
            for alias in (own.name for own in session.sweep.aliases)
            if alias in log.aliases
        },
        can_be_taken=bool(log.registered) or (not interrupt.requested and can_be_taken(session)),
    )


def _close(session: Session, log: SweepLog, state: str, timeout_s: float = 60.0) -> None:
    """End what still runs, give MLflow the last front and the time to take it.

    Raises:
        StorageError: the journal or the front's files cannot be written; what MLflow can take has been delivered.
    """
    ledger = session.ledger
    try:
        for record in ledger.running():
            ledger.ended(record.trial_id, INTERRUPTED, "the sweep was interrupted")
    finally:
        rows, judged = ledger.front(), (session.sweep.objectives, session.sweep.metrics)
        log.front(rows, *judged, progress(rows, *judged))
        if timeout_s:
            session.observer.step("delivering to MLflow")
        left = log.finish(state, timeout_s)
        if left and not log.broken:  # that has been said, and waiting is of no use
            rule = f"MLflow did not take {left} records in time, they are safe in {session.kept}/{JOURNAL}"
            session.observer.warning(f"{rule}; once it answers again --resume sends them")


def _log(sweep: Sweep, store: Store, sweep_id: str, task: Task, fingerprint: str, observer: Observer) -> SweepLog:
    sections = sweep.sections
    folder = store.root / sections.name
    tags = {
        "dataset": task.name,
        "dataset_asked_for": sections.dataset.name,
        "arch": sections.model.arch,
        "file": sweep.file.name,
    }
    params: dict[str, object] = {
        "num_samples": sections.num_samples,
        "seed": sections.seed,
        "trial_scheduler": sections.trial_scheduler.name,
        "searcher": sections.searcher.name,
        **sections.training.model_dump(),
        **({} if sections.trunk is None else {"trunk.epochs": sections.trunk.epochs}),
        **{f"search.{d.path}": d.distribution.describe() for d in sweep.dimensions},
    }
    files = mlflow_files(sweep, store)
    dataset = DatasetCard(task.name, fingerprint)
    return SweepLog(
        sections.tracking.uri, folder, sections.name, sweep_id, params, tags, observer.warning, dataset=dataset, **files
    )
