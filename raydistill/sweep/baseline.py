"""The dense network that every trial starts from: trained once, kept by the hash of all that determines it."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import ray
from torch import nn

from raydistill.compression import sparsity
from raydistill.compression.structure import structure_state
from raydistill.errors import CheckpointError, Fault
from raydistill.parts import hashed
from raydistill.records import BASELINE, FINISHED, EpochMetrics, TrialRecord
from raydistill.schedule import dump_schedule
from raydistill.storage import Store
from raydistill.sweep.planning.runs import baseline_config
from raydistill.sweep.preparation import train_beforehand
from raydistill.sweep.session import Session
from raydistill.sweep.trial.checkpoint_damage import named
from raydistill.tasks import Task, TaskConfig
from raydistill.training import RunConfig, evaluate_checkpoint, load_model, read_checkpoint, read_history
from raydistill.training.checkpoint import FILE_NAME, arch_of, load_weights, without_training, write_checkpoint
from raydistill.training.distiller_checkpoint import read_any
from raydistill.training.footprint import footprint
from raydistill.training.teacher import digest

_AS_BEFORE = {"early_exit": None, "parameter_histograms": False}
"""What hashes hold since it was hashed with the rest; hashes of stored baselines stay what they are."""


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
        if not train_beforehand(session, run, "the baseline", session.observer.baseline_epoch):
            return False
    history = before or _finished(store, checkpoint, run.epochs)
    history = [replace(metrics, checkpoint=checkpoint) for metrics in history]
    history = [*history[:-1], replace(history[-1], footprint=_footprint(session, checkpoint))]
    reason = f"trained {run.epochs} epochs" + (" by an earlier sweep" if before else "")
    ledger.baseline(baseline_record(run, task.name, history[-1], reason), history)
    return True


def dense_network(store: Store, checkpoint: str, arch: str) -> nn.Module:
    """Loaded, wherever its checkpoint is kept. arch: as the user names it."""
    with store.lent(checkpoint) as path:
        return load_model(path, arch)


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

    why = untraceable(dense_network(session.store, checkpoint, arch), task.example_input())
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


def kept_behind(session: Session, what: str, run: RunConfig, begun: Mapping[str, Any], more: str = "") -> str:
    """A reference to the folder of what is trained behind the baseline, by a hash of all that determines it. what: the
    folder it is in. begun: the baseline's checkpoint. more: what its weights depend on besides."""
    hashed = f"{baseline_hash(run, session.fingerprint)}{digest(begun['model'])}{more}"
    return session.store.reference(session.store.root / what / hashlib.sha256(hashed.encode()).hexdigest()[:16])


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
