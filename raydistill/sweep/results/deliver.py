"""A trial of a sweep that is kept as an artifact folder."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from raydistill.errors import ABSENT, CheckpointError, Fault
from raydistill.export import Manifest, asked_for, deployed, write_artifact
from raydistill.records import BASELINE, Evaluation, TrialRecord
from raydistill.search import FrontRow, mean_and_std
from raydistill.sweep.results.read import KeptSweep
from raydistill.sweep.trial.checkpoint_damage import named
from raydistill.tasks import TaskConfig


def deliver(
    sweep: KeptSweep,
    row: FrontRow,
    folder: Path,
    formats: Sequence[str],
    *,
    arch: str | None = None,
    latency: bool = True,
    threads: int | None = None,
    tell: Callable[[str], None] = lambda line: None,
) -> Manifest:
    """Write the network of a trial, the dense baseline measured beside it; see `export.write_artifact`.

    arch: a factory of the user's own, as the user names it.

    Raises:
        CheckpointError: the trial's checkpoint is gone or damaged.
        ConfigError, StorageError: it cannot be written.
    """
    chosen = asked_for(formats, "--format")
    record, dense = row.record, sweep.baseline
    if record.checkpoint is None:
        raise CheckpointError(Fault(f"trial {record.trial_id}", "has no checkpoint", ABSENT, "take another trial"))
    with sweep.store.lent(record.checkpoint) as path:
        try:
            network = deployed(path, arch)
        except CheckpointError as error:
            raise named(error, path, record.checkpoint) from error
    beside = None
    if dense is not None and dense.checkpoint is not None and record.trial_id != BASELINE:
        with sweep.store.lent(dense.checkpoint) as path:
            if path.exists():
                beside = deployed(path, arch, network.inputs)
            else:
                tell(
                    f"warning: the dense baseline's checkpoint is gone ({dense.checkpoint}): nothing to measure beside"
                )
    return write_artifact(
        network, chosen, folder, source=_source(sweep, record), task=_task(sweep, record), figures=_figures(row),
        dense=beside, latency=latency, threads=threads, arch=arch, tell=tell,
    )  # fmt: skip


def _source(sweep: KeptSweep, record: TrialRecord) -> dict[str, object]:
    return {
        "sweep": sweep.name,
        "sweep_id": sweep.sweep_id,
        "trial": record.trial_id,
        "seed": record.seed,
        "values": dict(record.values),
        "constraints": [str(bound) for bound in sweep.judgement.constraints],
    }


def _task(sweep: KeptSweep, record: TrialRecord) -> dict[str, Any]:
    said: Mapping[str, Any] = sweep.config.get("task") or {}
    dataset: Mapping[str, Any] = sweep.config.get("dataset") or {}
    named_data = {**dataset, "name": dataset.get("name") or record.dataset}
    name = said.get("name") or TaskConfig().name
    return {"name": name, "args": dict(said.get("args") or {}), "dataset": named_data, "data": record.dataset}


def _figures(row: FrontRow) -> dict[str, dict[str, float]]:
    """By split, the metrics of the picked run itself; over seeds where there are several, their mean and deviation."""
    found = {}
    for split, runs in (("validation", [r.last for r in row.runs]), ("test", [r.test for r in row.runs])):
        own = runs[0]
        if own is None:
            continue
        figures = dict(own.metrics)
        if isinstance(own, Evaluation):
            figures["samples"] = own.samples
        if len(row.runs) > 1:
            for name in own.metrics:
                mean, std = mean_and_std([run.metrics.get(name) if run is not None else None for run in runs])
                figures |= {f"{name}_mean": mean} if mean is not None else {}
                figures |= {f"{name}_std": std} if std is not None else {}
        found[split] = figures | {"seeds": len(row.runs)}
    return found
