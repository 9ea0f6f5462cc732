"""The trials of a sweep through Ray Tune: those that have not ended, begun ones first."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from ray import tune

from raydistill.cluster.team import at_once
from raydistill.cluster.tune_bridge import REQUEST
from raydistill.errors import TrainingError
from raydistill.files import clear_temporaries, full_disk, unwritable
from raydistill.parts.training import Precision
from raydistill.records import BASELINE, ENDED, FAILED, FINISHED, RUNNING, Scalar, TrialRecord
from raydistill.search.decisions import RunAll, by_objectives
from raydistill.search.search import Search
from raydistill.sweep.packs import run_packed
from raydistill.sweep.planning.foresight import foreseen, wants_foresight
from raydistill.sweep.planning.methods import make_search
from raydistill.sweep.planning.plan import TrialPlan, shares_the_start, trial_name
from raydistill.sweep.planning.resources import concurrent
from raydistill.sweep.record.journal import History
from raydistill.sweep.record.ledger import Ledger
from raydistill.sweep.record.observer import Opening
from raydistill.sweep.search_driver import SearchDriver
from raydistill.sweep.session import Session
from raydistill.sweep.trial.local_files import taught_by
from raydistill.sweep.trial.trainable import train_trial
from raydistill.sweep.tune.callback import TuneCallback
from raydistill.sweep.tune.memory_kills import survive_memory_kills
from raydistill.sweep.tune.searcher import TuneSearcher
from raydistill.sweep.tune.trial_scheduler import TuneTrialScheduler
from raydistill.training import load_model, read_checkpoint

TUNE = "tune"
"""Ray Tune's own folder in the sweep's, while it runs."""
STATISTICS = "statistics"
"""The folder in the sweep's in which its trials share what calibration has found."""

_ENDLESS = 10**9
"""Legs that Tune may be given: the search knows when it is done."""


Trainable = Callable[..., None]
"""Runs one leg: see `trainable.train_trial`."""


def run_trials(session: Session, history: History, train: Trainable = train_trial) -> None:
    """Run every trial that has not ended.

    Raises:
        RaydistillError: the sweep cannot go on.
    """
    ledger, plan, sections = session.ledger, session.plan, session.sweep.sections
    epochs = sections.training.epochs
    methods = (sections.searcher, sections.trial_scheduler)
    warm = [trial.values for trial in plan.warm]
    objectives, dimensions = session.sweep.objectives, len(plan.space)
    constraints = [constraint.against(ledger.records.get(BASELINE)) for constraint in session.sweep.constraints]
    search = make_search(*methods, plan.searcher, objectives, epochs, plan.count, warm, dimensions, constraints)
    search_driver = SearchDriver(search, ledger, drawn(session), _recorded(session), session.interrupt)
    search_driver.replay(history)
    trials = [record for key, record in ledger.records.items() if key != BASELINE and not record.confirms]
    left = plan.count - sum(record.state in ENDED for record in trials)
    opening = Opening(
        name=sections.name,
        trials=plan.count,
        epochs=epochs if sections.training.trains else 0,
        max_concurrent=_at_once(session, left),
        dataset=session.task.name,
        arch=sections.model.arch,
        records=dict(ledger.records),
    )
    session.observer.opening(opening)
    run_legs(session, search_driver, left, train)
    if not session.interrupt.requested:
        search_driver.close()
        _check_any_finished(ledger)


def run_all(
    session: Session,
    names: Sequence[str],
    values: Sequence[Mapping[str, Scalar]],
    draw: Callable[[int, Mapping[str, Scalar]], TrialPlan],
    record: Callable[[int, Mapping[str, Scalar], TrialPlan | None], TrialRecord],
) -> None:
    """Run each of these trials from its start to its end; nothing is searched and none is stopped.

    names, values: of each. draw, record: a trial's position among them and its values to its plan and its record.

    Raises:
        RaydistillError: the sweep cannot go on.
    """
    search = Search(
        session.plan.searcher,
        RunAll(),
        by_objectives(session.sweep.objectives),
        num_samples=len(names),
        stages=[session.sweep.sections.training.epochs],
        fixed=values,
    )
    search_driver = SearchDriver(
        search, session.ledger, draw, record, session.interrupt, names.__getitem__, names.index
    )
    run_legs(session, search_driver, len(names))


def run_legs(session: Session, search_driver: SearchDriver, most: int, train: Trainable = train_trial) -> None:
    """Everything that a search driver has to run, at most `most` at once, through Ray Tune.

    Raises:
        RaydistillError: the sweep cannot go on.
    """
    if not search_driver.idle:
        if session.pack > 1 and train is train_trial:
            run_packed(session, search_driver, _at_once(session, most))
        else:
            _tune(session, search_driver, _at_once(session, most), train)
    if search_driver.fatal is not None:
        raise search_driver.fatal


def _at_once(session: Session, most: int) -> int:
    alone = concurrent(session.share, session.nodes)
    fit = session.pack * alone if session.team is None else at_once(session.team, session.nodes)
    return max(1, min(fit, most))


def _tune(session: Session, search_driver: SearchDriver, most: int, train: Trainable) -> None:
    survive_memory_kills()
    team, latency = session.team, session.sweep.wants_latency
    said = {"latency": latency, "team": team, "own": session.sweep.own_figures}
    trainable = tune.with_parameters(train, shared=session.shared, store=session.store, **said)
    tuner = tune.Tuner(
        tune.with_resources(trainable, session.share.request() if team is None else REQUEST),
        tune_config=tune.TuneConfig(
            scheduler=TuneTrialScheduler(search_driver),
            search_alg=TuneSearcher(search_driver),
            num_samples=_ENDLESS,
            max_concurrent_trials=most,
            reuse_actors=True,
        ),
        run_config=tune.RunConfig(
            name=TUNE,
            storage_path=str(session.folder),
            verbose=0,
            callbacks=[TuneCallback(search_driver, session.observer.beat)],
            stop=session.interrupt,
            failure_config=tune.FailureConfig(max_failures=session.sweep.sections.max_failures),
        ),
    )
    try:
        tuner.fit()
    except Exception as error:
        full = full_disk(error)
        if full is None:
            raise
        search_driver.fatal = search_driver.fatal or unwritable(full.filename or session.folder / TUNE, full)
    finally:
        shutil.rmtree(session.folder / TUNE, ignore_errors=True)  # all that counts is in the journal and in trials/
        clear_temporaries(*(session.folder / "trials").glob("*"))


def drawn(session: Session) -> Callable[[int, Mapping[str, Scalar]], TrialPlan]:
    """A trial's number and values to its plan, made once and placed in its folder."""
    share, store = session.share, session.store
    checkpoint = str(session.ledger.records[BASELINE].checkpoint)
    given = session.sweep.sections.baseline.checkpoint is not None
    precision: Precision = "auto"
    if not given:
        with store.lent(checkpoint) as path:
            precision = read_checkpoint(path)["precision"]
    plans: dict[int, TrialPlan] = dict(enumerate(session.plan.trials))
    warm = len(session.plan.warm)
    shared = None if store.outlives_this_machine else str(session.folder / STATISTICS)
    placed: dict[int, TrialPlan] = {}

    def draw(number: int, values: Mapping[str, Scalar]) -> TrialPlan:
        if number not in placed:
            known = plans.get(number)
            plan = known if known is not None and known.values == values else session.plan.draw(number, values)
            if not plan.origin and number >= warm:
                plan = replace(plan, origin=session.plan.searcher.origin(number - warm))
            fork = session.common_start if shares_the_start(session.plan, plan) else None
            plan = taught_by(replace(plan, fork=fork), store)
            folder = store.reference(session.folder / "trials" / plan.trial_id)
            where = (folder, share.threads, share.device, precision)
            plan = plan.placed(checkpoint, *where, session.branches, shared)
            if wants_foresight(session.sweep):
                plan = replace(plan, planned=_foreseen(session, plan))
            placed[number] = plan
        return placed[number]

    return draw


def _foreseen(session: Session, plan: TrialPlan) -> dict[str, float]:
    with session.store.lent(str(plan.run.init_from)) as path:
        start = load_model(path, session.sweep.sections.model.arch)
    return foreseen(plan.run.schedule, start, session.task.example_input())


def _recorded(session: Session) -> Callable[[int, Mapping[str, Scalar], TrialPlan | None], TrialRecord]:
    def record(number: int, values: Mapping[str, Scalar], plan: TrialPlan | None) -> TrialRecord:
        sections = session.sweep.sections
        return TrialRecord(
            trial_id=trial_name(number),
            values=dict(values),
            state=RUNNING,
            arch=sections.model.arch,
            dataset=session.task.name,
            seed=sections.seed,
            planned_sparsity=plan.planned_sparsity if plan is not None else 0.0,
            planned=plan.planned if plan is not None else {},
            epochs=sections.training.epochs,
            started_ms=time.time_ns() // 1_000_000,
            schedule_text=plan.schedule_text if plan is not None else "",
            extra={} if plan is None else _parents(plan, session.plan.common_start),
        )

    return record


def _parents(plan: TrialPlan, common: int) -> dict[str, Scalar]:
    """Where a trial is from, if not from the baseline with drawn values. common: epochs that trials share."""
    return {
        **({"warm_start": plan.origin} if plan.origin else {}),
        **({} if plan.branch is None else {"branch": f"trunk, {plan.branch} epochs"}),
        **({} if plan.fork is None else {"fork": f"after {common} epochs that trials have in common"}),
    }


def _check_any_finished(ledger: Ledger) -> None:
    trials = [record for record in ledger.records.values() if record.trial_id != BASELINE]
    if any(record.state == FINISHED for record in trials):
        return
    failed = [record for record in trials if record.state == FAILED]
    if failed:
        raise TrainingError(f"no trial finished; {failed[0].trial_id} failed: {failed[0].reason}")
