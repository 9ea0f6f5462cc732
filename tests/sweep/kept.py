"""A finished sweep as it lies in its folder, made without Ray: a dense network and three pruned ones of digits, really
trained, and the journal that tells of them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from raydistill.datasets import DatasetConfig, load
from raydistill.records import BASELINE, FINISHED, STOPPED, EpochMetrics, TrialRecord
from raydistill.schedule import parse_schedule
from raydistill.search import Objective
from raydistill.search.constraints import Constraint
from raydistill.storage.bucket import Bucket
from raydistill.sweep.record.journal import FORMAT, Journal
from raydistill.sweep.record.judgement import Judgement
from raydistill.tasks.classification import Classification
from raydistill.training import RunConfig, evaluate_checkpoint, fit
from raydistill.training.footprint import footprint

OBJECTIVES = (Objective("top1", "max"), Objective("sparsity", "max"))


def schedule(sparsity: float) -> Any:
    filters = {"class": "L1RankedStructureParameterPruner", "group_type": "Filters", "desired_sparsity": sparsity}
    return parse_schedule(
        {
            "version": 1,
            "pruners": {"filters": {**filters, "weights": ["conv2.weight"]}},
            "policies": [{"pruner": {"instance_name": "filters"}, "epochs": [0]}],
        },
        "filters",
    )


def keep_sweep(storage: Path, name: str = "tiny", constraints: tuple[Constraint, ...] = ()) -> Path:
    """storage/name, with a baseline and trials t0000 to t0003; t0003 was stopped."""
    data = DatasetConfig("digits")
    task = Classification(load(data))
    folder = storage / name
    run = RunConfig(
        "simplenet_cifar", data, epochs=2, batch_size=128, lr=0.05, deterministic=True, threads=1, tensorboard=False,
        device="cpu", precision="fp32", out_dir=str(storage / "baselines" / ("0" * 16)),
    )  # fmt: skip
    *_, dense = fit(run, task=task)
    config = {"name": name, "dataset": {"name": "digits"}, "task": {"name": "classification", "args": {}}}
    judged = Judgement(Classification.metrics, OBJECTIVES, constraints)
    with Journal(folder / "journal.jsonl", kept=str(folder)) as journal:
        journal.append(
            "sweep_started", format=FORMAT, sweep_id="s" * 8, config=config, judged_by=judged.to_json(),
            dataset={"name": "digits"},
        )  # fmt: skip
        _tell(journal, task, BASELINE, {}, dense, run)
        for number, sparsity in enumerate((0.25, 0.5, 0.75, 0.9)):
            trial_id = f"t{number:04d}"
            trial = replace(
                run, schedule=schedule(sparsity), epochs=1 if number == 3 else 2, init_from=dense.checkpoint,
                out_dir=str(folder / "trials" / trial_id),
            )  # fmt: skip
            *_, last = fit(trial, task=task)
            _tell(journal, task, trial_id, {"filters.desired_sparsity": sparsity}, last, trial)
    return folder


def _tell(
    journal: Journal, task: Classification, trial_id: str, values: dict[str, Any], last: EpochMetrics, run: RunConfig
) -> None:
    last = replace(last, footprint=footprint(str(last.checkpoint), task))
    stopped = trial_id == "t0003"
    record = TrialRecord(
        trial_id, values, "running", run.arch, "digits", run.seed, epochs=run.epochs, checkpoint=last.checkpoint
    )
    if trial_id == BASELINE:
        done = replace(record, state=FINISHED, last=last)
        journal.append("baseline", record=done.to_json(), epochs=[last.to_json()])
    else:
        journal.append("trial_started", record=record.to_json())
        journal.append("epoch", trial_id=trial_id, metrics=last.to_json())
        journal.append("trial_ended", trial_id=trial_id, state=STOPPED if stopped else FINISHED, reason="")
    if not stopped:
        test = evaluate_checkpoint(str(last.checkpoint), task, "test", "cpu")
        journal.append("tested", trial_id=trial_id, evaluation=test.to_json())


def send(folder: Path, store: Bucket) -> None:
    """A sweep's folder, and the baselines beside it, into a bucket, as a driver would have left them there."""
    journal = store.root / folder.name / "journal.jsonl"
    with store.held(journal, folder.name, lambda line: None) as follower:
        journal.write_bytes((folder / journal.name).read_bytes())
        follower.begin(journal)
        follower.close()
    for path in (*folder.glob("trials/*/checkpoint.pt"), *folder.parent.glob("baselines/*/checkpoint.pt")):
        store.objects.put(path.relative_to(folder.parent).as_posix(), path.read_bytes())
