"""The trials of a sweep through Ray Tune: those that have not ended, in order, compared by ASHA."""

from __future__ import annotations

import shutil
import time

from ray import tune
from ray.tune.schedulers import FIFOScheduler, TrialScheduler

from raydistill.datasets import Dataset
from raydistill.errors import TrainingError
from raydistill.files import clear_temporaries, full_disk, unwritable
from raydistill.records import BASELINE, ENDED, FAILED, FINISHED, RUNNING, STOPPED, TrialRecord
from raydistill.sweep.callback import Bookkeeper
from raydistill.sweep.events import Opening
from raydistill.sweep.journal import History
from raydistill.sweep.ledger import Ledger
from raydistill.sweep.memory_kills import survive_memory_kills
from raydistill.sweep.plan import TrialPlan
from raydistill.sweep.resources import concurrent
from raydistill.sweep.searchers import PlannedSearcher
from raydistill.sweep.session import Session
from raydistill.sweep.trainable import train_trial
from raydistill.sweep.trial_scheduler import ExplainedASHA
from raydistill.training import read_checkpoint

TUNE = "tune"
"""Ray Tune's own folder in the sweep's, while it runs."""


def run_trials(session: Session, history: History) -> None:
    """Run every trial that has not ended.

    Raises:
        RaydistillError: the sweep cannot go on.
    """
    sweep, ledger, share = session.sweep, session.ledger, session.share
    checkpoint = str(ledger.records[BASELINE].checkpoint)
    given = sweep.sections.baseline.checkpoint is not None
    precision = "auto" if given else read_checkpoint(checkpoint)["precision"]
    plans = {
        trial.trial_id: trial.placed(
            checkpoint, session.folder / "trials" / trial.trial_id, share.threads, share.device, precision
        )
        for trial in session.plan.trials
    }
    scheduler = _trial_scheduler(session)
    if isinstance(scheduler, ExplainedASHA):
        _replay(scheduler, history, ledger)
    waiting = [trial_id for trial_id in plans if _state(ledger, trial_id) not in ENDED]
    waiting.sort(key=lambda trial_id: trial_id not in ledger.records)  # begun ones first
    at_once = max(1, min(concurrent(share, session.nodes), len(waiting)))
    opening = Opening(
        name=sweep.sections.name,
        trials=len(plans),
        epochs=sweep.sections.training.epochs,
        max_concurrent=at_once,
        dataset=session.dataset.name,
        arch=sweep.sections.model.arch,
        records=dict(ledger.records),
    )
    session.observer.opening(opening)
    if not waiting:
        return
    reasons = scheduler.reasons if isinstance(scheduler, ExplainedASHA) else {}
    planned = {trial_id: _planned_record(trial, session.dataset) for trial_id, trial in plans.items()}
    bookkeeper = Bookkeeper(ledger, planned, reasons, session.observer.beat, session.interrupt)
    survive_memory_kills()
    tuner = tune.Tuner(
        tune.with_resources(tune.with_parameters(train_trial, plans=plans, shared=session.shared), share.request()),
        tune_config=tune.TuneConfig(
            scheduler=scheduler,
            search_alg=PlannedSearcher(waiting),
            num_samples=len(waiting),
            max_concurrent_trials=at_once,
            reuse_actors=True,
        ),
        run_config=tune.RunConfig(
            name=TUNE,
            storage_path=str(session.folder),
            verbose=0,
            callbacks=[bookkeeper],
            stop=session.interrupt,
            failure_config=tune.FailureConfig(max_failures=sweep.sections.max_failures),
        ),
    )
    try:
        tuner.fit()
    except Exception as error:
        full = full_disk(error)
        if full is None:
            raise
        bookkeeper.fatal = bookkeeper.fatal or unwritable(full.filename or session.folder / TUNE, full)
    finally:
        shutil.rmtree(session.folder / TUNE, ignore_errors=True)  # all that counts is in the journal and in trials/
        clear_temporaries(*(session.folder / "trials").glob("*"))
    if bookkeeper.fatal is not None:
        raise bookkeeper.fatal
    if not session.interrupt.requested:
        _check_any_finished(ledger)


def _trial_scheduler(session: Session) -> TrialScheduler:
    section, epochs = session.sweep.sections.trial_scheduler, session.sweep.sections.training.epochs
    if section.name == "none":
        return FIFOScheduler()
    return ExplainedASHA(
        max_t=epochs,
        grace_period=section.grace_period or max(1, epochs // 4),
        reduction_factor=section.reduction_factor,
        score=section.score,
        planned_sparsity={trial.trial_id: trial.planned_sparsity for trial in session.plan.trials},
    )


def _replay(scheduler: ExplainedASHA, history: History, ledger: Ledger) -> None:
    """Fill the rungs as they were. A trial whose stop was decided but not yet recorded is stopped now."""
    for trial_id, metrics in history.epochs:
        if trial_id == BASELINE:
            continue
        why = scheduler.decide(trial_id, metrics.epoch + 1, metrics.to_json())
        if why and _state(ledger, trial_id) not in ENDED:
            ledger.ended(trial_id, STOPPED, why)
    for trial_id, record in list(ledger.records.items()):
        done = record.last is not None and record.last.epoch + 1 >= record.epochs
        if trial_id != BASELINE and record.state not in ENDED and done:
            ledger.ended(trial_id, FINISHED, f"trained all {record.epochs} epochs")


def _state(ledger: Ledger, trial_id: str) -> str:
    record = ledger.records.get(trial_id)
    return record.state if record is not None else ""


def _planned_record(trial: TrialPlan, dataset: Dataset) -> TrialRecord:
    return TrialRecord(
        trial_id=trial.trial_id,
        values=dict(trial.values),
        state=RUNNING,
        arch=trial.run.arch,
        dataset=dataset.name,
        seed=trial.run.seed,
        planned_sparsity=trial.planned_sparsity,
        epochs=trial.run.epochs,
        started_ms=time.time_ns() // 1_000_000,
        schedule_text=trial.schedule_text,
    )


def _check_any_finished(ledger: Ledger) -> None:
    trials = [record for record in ledger.records.values() if record.trial_id != BASELINE]
    if any(record.state == FINISHED for record in trials):
        return
    failed = [record for record in trials if record.state == FAILED]
    if failed:
        raise TrainingError(f"no trial finished; {failed[0].trial_id} failed: {failed[0].reason}")
