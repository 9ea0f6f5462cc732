"""The front of a sweep: its members evaluated on the test split, made MLflow models, the knee registered."""

from __future__ import annotations

import json
from collections.abc import Sequence

import ray

from raydistill.errors import CheckpointError, ConfigError, Fault, RaydistillError, ResourceError, TrackingError
from raydistill.export import Deployed, deployed
from raydistill.records import BASELINE, FAILED, FINISHED, TrialRecord
from raydistill.search import FrontRow, highlights
from raydistill.search.aliases import chosen
from raydistill.search.pick import described
from raydistill.sweep.results.logged_model import delivered
from raydistill.sweep.results.retrain import tell, train_again
from raydistill.sweep.session import Session
from raydistill.sweep.trial.checkpoint_damage import is_of, named
from raydistill.sweep.trial.evaluation import evaluate_on_test
from raydistill.sweep.tune.callback import why_it_died
from raydistill.tracking import ALIAS_PREFIX, SweepLog, VersionCard

_TAG_LIMIT = 5000


def test_front(session: Session) -> None:
    """Evaluate the front's members, whatever else has an alias, and the baseline on the test split, each once in a
    sweep's life.

    A member whose checkpoint is lost is trained again. If that is lost too it fails, and is no point of the front:
    whoever comes up for it is evaluated.
    """
    while _test_members(session):
        pass


def _test_members(session: Session) -> bool:
    """Whether the front has changed: members were lost."""
    ledger, share = session.ledger, session.share
    untested = _untested(session)
    if not untested or session.interrupt.requested:
        return False
    lost = False
    session.observer.step(f"evaluating the front on the test split, {len(untested)} checkpoints")
    task = ray.remote(num_cpus=share.cpu, num_gpus=share.gpu, max_retries=1)(evaluate_on_test)
    arch = session.sweep.sections.model.arch
    pending = {
        task.remote(record.checkpoint, session.store, session.shared, share, arch): record.trial_id
        for record in untested
    }
    while pending and not session.interrupt.requested:
        ready, _ = ray.wait(list(pending), timeout=0.2)
        for reference in ready:
            try:
                result = ray.get(reference)
            except ray.exceptions.RayError as error:
                why = why_it_died(str(error))
                where = f"test of {pending[reference]}"
                raise ResourceError(Fault(where, why, way_out="run the command again with --resume")) from error
            trial_id = pending.pop(reference)
            if isinstance(result, RaydistillError):
                _lose(session, trial_id, result)
                lost = True
            else:
                ledger.tested(trial_id, result)
    return lost


def _untested(session: Session) -> list[TrialRecord]:
    """Of those that are to be tested, and their repeats with other seeds."""
    records, rows = session.ledger.records, session.ledger.front()
    aliased = {row.record.trial_id for row in _chosen(session, rows)[0].values()} | {BASELINE}
    members = [row.record for row in rows if row.pareto or row.record.trial_id in aliased]
    ids = {record.trial_id for record in members}
    repeats = [record for record in records.values() if record.confirms in ids and record.state == FINISHED]
    return [record for record in (*members, *repeats) if record.test is None]


def _lose(session: Session, trial_id: str, error: RaydistillError) -> None:
    """Train a finished trial again whose checkpoint is damaged or gone; the second time it fails.

    Any other error is raised, and one of the baseline.
    """
    checkpoint = session.ledger.records[trial_id].checkpoint
    if trial_id == BASELINE or checkpoint is None or not is_of(error, checkpoint):
        raise error
    reason = str(error.faults[0])
    if trial_id not in session.trained_again:
        tell(session, trial_id, reason)
        train_again(session, [session.ledger.records[trial_id]])
        return
    session.ledger.ended(trial_id, FAILED, reason)
    session.observer.warning(f"trial {trial_id} is lost: {reason}")


def can_be_taken(session: Session) -> bool:
    """Whether `pick` can write the knee as a folder: not what gives neither a tensor nor boxes."""
    knee = next((row.record for row in session.ledger.front() if row.knee), None)
    if knee is None or knee.checkpoint is None:
        return False
    try:
        with session.store.lent(knee.checkpoint) as path:
            deployed(path, knee.arch)
    except RaydistillError:
        return False
    return True


def publish_front(session: Session, log: SweepLog) -> None:
    """Log the front's members as MLflow models and register those that have a name: the knee, the best in each
    objective, and what the user's own aliases mean, which may lie behind the front.

    What is logged is what is delivered: thinned and folded. Where nothing is on the front nothing stays registered: a
    knee of this sweep's that was feasible once is none now.
    """
    rows, sweep = session.ledger.front(), session.sweep
    own, without = _chosen(session, rows)
    aliases = {ALIAS_PREFIX + name: trial_id for name, trial_id in highlights.members(rows, sweep.objectives).items()}
    aliases |= {name: row.record.trial_id for name, row in own.items()}
    for name in (*(ALIAS_PREFIX + name for name in highlights.names(sweep.objectives)), *without):
        if name not in aliases:
            log.withdraw(name)
    for name, why in without.items():
        session.observer.warning(f"alias {name}: {why}")
    log.withdraw_all_but(aliases)  # what is no longer in the file
    wanted = set(aliases.values())
    members = [row for row in rows if row.pareto or row.record.trial_id in wanted]
    members = [row for row in members if row.record.checkpoint and row.record.last]
    session.observer.step(f"logging the front's models, {len(members)}")
    for row in members:
        record, last = row.record, row.record.last
        if last is None or record.checkpoint is None or session.interrupt.requested:
            continue
        with session.store.lent(record.checkpoint) as path:
            try:
                found = delivered(session.task, path, record.arch)
            except CheckpointError as error:
                _lose(session, record.trial_id, named(error, path, record.checkpoint))
                test_front(session)
                publish_front(session, log)  # what is logged already is not logged twice
                return
            except ConfigError as error:
                session.observer.warning(f"the model of {record.trial_id} is not logged: {error.faults[0]}")
                continue
        if found is None:
            takes = "as MLflow's models do: members of the front stay checkpoints, none is registered"
            session.observer.warning(f"{record.arch} is not called with one tensor, {takes}")
            return
        try:
            member = found.log(log, record.trial_id, last, record.test, record.values)
        except TrackingError as error:
            session.observer.warning(str(error))
            continue
        for alias, trial_id in aliases.items():
            if trial_id == record.trial_id:
                log.register(member, alias, _version_card(session, row, found.network))


def _chosen(session: Session, rows: Sequence[FrontRow]) -> tuple[dict[str, FrontRow], dict[str, str]]:
    """What the user's own aliases mean: see `aliases.chosen`."""
    sweep = session.sweep
    return chosen(sweep.aliases, rows, sweep.metrics, sweep.objectives, session.ledger.records)


def _version_card(session: Session, row: FrontRow, network: Deployed) -> VersionCard:
    """What the registry says of a member: its figures, where it is from, how its inputs are prepared."""
    name, record = session.sweep.sections.name, row.record
    said = "; ".join(described(row, session.sweep.metrics, session.ledger.records.get(BASELINE)))
    lines = [f"Trial {record.trial_id} of the sweep {name}: {said}.", "", *network.deployment.lines, ""]
    lines += [f"As a folder to take away: `raydistill pick {name} --trial {record.trial_id}`"]
    tags = {"arch": record.arch, "dataset": record.dataset, "trial": record.trial_id}
    if network.preprocessing is not None:
        tags["preprocessing"] = json.dumps(network.preprocessing)
    if network.classes:
        tags["classes"] = json.dumps(network.classes)[:_TAG_LIMIT]
    if record.last is not None:
        tags |= {key: f"{value:.6g}" for key, value in record.last.metrics.items()}
        tags |= {"sparsity": f"{record.last.sparsity:.6g}"}
        tags |= {key: f"{value:.6g}" for key, value in record.last.footprint.items()}
    return VersionCard("\n".join(lines), tags)
