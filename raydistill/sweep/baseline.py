"""The dense network that every trial starts from: trained once, kept by the hash of all that determines it."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import ray
from torch import nn

from raydistill.cluster.last_words import witnessed
from raydistill.compression import sparsity
from raydistill.compression.structure import structure_state
from raydistill.errors import ABSENT, CheckpointError, Fault, RaydistillError, ResourceError
from raydistill.files import clear_temporaries
from raydistill.parts import hashed
from raydistill.records import BASELINE, FINISHED, EpochMetrics, TrialRecord
from raydistill.schedule import dump_schedule
from raydistill.storage import Store
from raydistill.sweep.planning.plan import baseline_config
from raydistill.sweep.planning.resources import Share, baseline_share
from raydistill.sweep.session import Session
from raydistill.sweep.trial.checkpoint_damage import named
from raydistill.sweep.trial.trainable import left_by_its_code
from raydistill.sweep.tune.callback import LOST_MACHINE, MOST_LOSSES, why_it_died
from raydistill.tasks import Task, TaskConfig
from raydistill.training import RunConfig, evaluate_checkpoint, fit, load_model, read_checkpoint, read_history
from raydistill.training.checkpoint import FILE_NAME, arch_of, load_weights, without_training, write_checkpoint
from raydistill.training.distiller_checkpoint import read_any
from raydistill.training.footprint import footprint
from raydistill.training.teacher import digest

_AS_BEFORE = {"early_exit": None, "parameter_histograms": False}
"""What hashes hold since it was hashed with the rest; hashes of stored baselines stay what they are."""
_LOCK_WAIT_S = 3600.0
"""Two sweeps that want the same baseline: the second waits for the first to have trained it."""


def ensure_baseline(session: Session) -> bool:
    """Make sure that the dense baseline is there and recorded; False if it was interrupted."""
    sweep, ledger, task, store = session.sweep, session.ledger, session.task, session.store
    known = ledger.records.get(BASELINE)
    given = sweep.sections.baseline.checkpoint
    if known is not None and known.checkpoint is not None:
        why = _lost(store, known.checkpoint)
        if not why:
            return True
        if given is None:
            session.observer.warning(f"the dense baseline is trained again: {why}")
    run = baseline_config(sweep)
    if given is not None:
        session.observer.step("evaluating the dense baseline")
        given = str(adopted(given, run, task, store.root / "baselines"))
        last = given_baseline(given, run, task)
        reference = store.given(given)
        last = replace(last, checkpoint=reference, footprint=_footprint(session, reference))
        ledger.baseline(baseline_record(run, task.name, last, "taken from baseline.checkpoint"), [last])
        return True
    folder = store.reference(store.root / "baselines" / baseline_hash(run, session.fingerprint))
    run = replace(run, out_dir=folder)
    checkpoint = f"{folder}/{FILE_NAME}"
    before = _finished(store, checkpoint, run.epochs)
    if not before:
        session.observer.step(f"training the dense baseline, {run.epochs} epochs")
        share = baseline_share(session.share, session.nodes)
        watch = session.observer.baseline_epoch
        failures, losses = 0, 0
        while True:
            try:
                if not train_baseline(run, session.shared[0], store, share, watch, lambda: session.interrupt.requested):
                    return False
                break
            except ResourceError as error:
                lost = LOST_MACHINE in str(error) and losses < MOST_LOSSES
                losses, failures = losses + lost, failures + (not lost)
                if failures > sweep.sections.max_failures:
                    raise
                session.observer.warning(f"the baseline starts again from its last checkpoint: {error.faults[0]}")
    history = before or _finished(store, checkpoint, run.epochs)
    history = [replace(metrics, checkpoint=checkpoint) for metrics in history]
    history = [*history[:-1], replace(history[-1], footprint=_footprint(session, checkpoint))]
    reason = f"trained {run.epochs} epochs" + (" by an earlier sweep" if before else "")
    ledger.baseline(baseline_record(run, task.name, history[-1], reason), history)
    return True


def _lost(store: Store, checkpoint: str) -> str:
    """Why a baseline cannot be used any more, "" where it can."""
    if not store.exists(checkpoint):
        return f"{checkpoint} is not there any more"
    with store.lent(checkpoint) as path:
        try:
            read_history(path)
        except CheckpointError as error:
            return str(named(error, path, checkpoint))
    return ""


def _footprint(session: Session, checkpoint: str) -> dict[str, float]:
    """What the dense network costs; its latency is measured where a trial's would be."""
    task, share, arch = session.task, session.share, session.sweep.sections.model.arch
    own = session.sweep.own_figures
    from raydistill.compression.thinning import untraceable  # imports Torch-Pruning

    with session.store.lent(checkpoint) as path:
        why = untraceable(load_model(path, arch), task.example_input())
    if why:
        of_dense = "macs, size and latency of a pruned trial are those of the network before thinning"
        session.observer.warning(f"{arch} cannot be thinned, so that {of_dense}: {why}")
    if not session.sweep.wants_latency:
        with session.store.lent(checkpoint) as path:
            return footprint(path, task, arch=arch, own=own)
    measure = ray.remote(num_cpus=share.cpu, num_gpus=share.gpu)(_measured)
    return dict(ray.get(measure.remote(checkpoint, session.store, session.shared, share.device, arch, own)))


def _measured(
    checkpoint: str, store: Store, shared: list[object], device: str, arch: str, own: Sequence[str]
) -> dict[str, float]:
    with store.lent(checkpoint) as path:
        return footprint(path, ray.get(shared[0]), device, latency=True, arch=arch, own=own)


def baseline_hash(run: RunConfig, fingerprint: str) -> str:
    """Content hash of all that the baseline's weights depend on."""
    said = {**hashed(run, asdict(run)), **_AS_BEFORE}
    del said["values"]
    if run.task == TaskConfig():
        del said["task"]
    if run.train is None:
        del said["train"]
    said |= {"dataset": fingerprint, "schedule": dump_schedule(run.schedule) if run.schedule else ""}
    return hashlib.sha256(json.dumps(said, sort_keys=True, default=repr).encode()).hexdigest()[:16]


def finished(checkpoint: Path, epochs: int) -> list[EpochMetrics]:
    """The epochs of a baseline that is trained to its end; [] if it is not there, or not whole."""
    if not checkpoint.exists():
        return []
    try:
        history = read_history(checkpoint)
    except CheckpointError:
        return []  # it is trained anew
    return history if history and history[-1].epoch + 1 >= epochs else []


def _finished(store: Store, checkpoint: str, epochs: int) -> list[EpochMetrics]:
    with store.lent(checkpoint) as path:
        return finished(path, epochs)


def train_baseline(
    run: RunConfig,
    task: object,
    store: Store,
    share: Share,
    on_epoch: Callable[[EpochMetrics], None],
    interrupted: Callable[[], bool],
) -> bool:
    """Train the baseline in a Ray task, its epochs streamed back; False if it was interrupted (its checkpoint stays).

    run: its out_dir is a reference into `store`. task: an object reference.

    Raises:
        ResourceError: its process died; what it trained is in its checkpoint.
        RaydistillError: what `fit` raises.
    """
    run = replace(run, threads=share.threads, device=share.device)
    train = ray.remote(num_cpus=share.cpu, num_gpus=share.gpu, max_retries=0)(_train)
    stream = train.options(num_returns="streaming").remote(run, task, store)
    place: tuple[str, int] | None = None
    while True:
        ready, _ = ray.wait([stream], timeout=0.1, fetch_local=False)
        if interrupted():
            ray.cancel(stream, force=True)
            return False
        if not ready:
            continue
        try:
            message = ray.get(next(stream))
        except StopIteration:
            return True
        except ray.exceptions.RayError as error:
            way_out = "run the command again with --resume"
            raise ResourceError(Fault("baseline", why_it_died(str(error), place=place), ABSENT, way_out)) from error
        if isinstance(message, RaydistillError):
            raise message
        if isinstance(message, tuple):
            place = message
        else:
            on_epoch(message)


def _train(run: RunConfig, task: Task, store: Store) -> Iterator[EpochMetrics | RaydistillError | tuple[str, int]]:
    """In the task's process: its node's address and its number, then the epochs. Errors travel as values: Ray would
    wrap them in its own and print a traceback."""
    yield ray.util.get_node_ip_address(), os.getpid()
    try:
        with witnessed(), store.workplace(str(run.out_dir), "this baseline", _LOCK_WAIT_S, rivals=True) as place:
            clear_temporaries(place.folder)
            if not _usable(place.folder / FILE_NAME):
                (place.folder / FILE_NAME).unlink(missing_ok=True)
            for metrics in fit(replace(run, out_dir=str(place.folder)), task=task):
                place.push()
                yield metrics
    except RaydistillError as error:
        yield error
    except SystemExit as error:
        yield left_by_its_code(error)


def _usable(checkpoint: Path) -> bool:
    try:
        read_history(checkpoint)
    except CheckpointError:
        return False
    return True


def adopted(given: str, run: RunConfig, task: Task, folder: Path) -> Path:
    """``baseline.checkpoint`` as a checkpoint of raydistill's, which all that follows can read: itself, or, where it is
    another tool's file or folder, one made of its weights below `folder`.

    Raises:
        CheckpointError: it cannot be read, or is of another architecture or number of classes.
    """
    content = read_any(given)
    if "format" in content:
        return Path(given)
    arch_of(content, given, run.arch)
    task.check_knows(content, given)
    arguments = {**run.model_args, **content["run"]["model_args"]}
    network = task.network(run.arch, arguments, fetch=False)
    structure = load_weights(network, content, given)
    known = digest(network.state_dict())
    if run.mean is not None:  # the same weights on other pixels are another network
        known = hashlib.sha256(repr((known, run.mean, run.std)).encode()).hexdigest()[: len(known)]
    path = folder / known / FILE_NAME
    if not path.exists():
        write_checkpoint(
            path,
            {
                **without_training(content),
                **task.described(),
                "run": {"arch": run.arch, "model_args": arguments},
                "dataset": task.name,
                "model": network.state_dict(),
                "structure": structure_state(structure),
                "history": [_never_trained(network).to_json()],
            },
        )
    return path


def _never_trained(network: nn.Module) -> EpochMetrics:
    """What is known of a network that another tool has trained."""
    total, by_layer = sparsity(network)
    now = time.time_ns() // 1_000_000
    return EpochMetrics(0, 1, None, {}, 0.0, total, by_layer, 0.0, 0.0, now)


def given_baseline(checkpoint: str, run: RunConfig, task: Task) -> EpochMetrics:
    """The figures of ``baseline.checkpoint``, evaluated here on this sweep's validation split.

    Raises:
        CheckpointError: it cannot be read, or is of another architecture or number of classes.
    """
    content = read_checkpoint(checkpoint)
    arch = content["run"]["arch"]
    if arch != run.arch:
        raise CheckpointError(Fault(checkpoint, f"its arch must be {run.arch!r}", arch, "mend baseline.checkpoint"))
    task.check_knows(content, checkpoint)
    result = evaluate_checkpoint(checkpoint, task, "validation", device="cpu", arch=run.arch)
    last = EpochMetrics.from_json(content["history"][-1])
    return replace(last, metrics=result.metrics, checkpoint=checkpoint)


def baseline_record(run: RunConfig, dataset: str, last: EpochMetrics, reason: str) -> TrialRecord:
    """The front's zero-sparsity point."""
    return TrialRecord(
        trial_id=BASELINE,
        values={},
        state=FINISHED,
        reason=reason,
        arch=run.arch,
        dataset=dataset,
        seed=run.seed,
        epochs=last.epochs,
        last=last,
        checkpoint=last.checkpoint,
        started_ms=last.timestamp_ms,
        ended_ms=time.time_ns() // 1_000_000,
        schedule_text=dump_schedule(run.schedule) if run.schedule else "",
    )
