"""Reads what a sweep left behind without raydistill's own readers: JSON lines, sqlite3, torch.load, /proc.

`faults_of` is the verdict of a sweep in benchmarks/soak.py: [] where nothing was lost and nothing is there twice.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

FIGURES = ("top1", "top5", "loss", "train_loss", "learning_rate", "sparsity")
STATUS = {"finished": "FINISHED", "stopped": "FINISHED", "failed": "FAILED"}
TIMES = frozenset({"timestamp_ms", "seconds", "samples_per_second"})
TEMPORARY = ("*.tmp", "tune", "mlflow_pending")
"""What must not be left in a sweep's folder once it is done."""


@dataclass
class Story:
    """A journal: each trial's epochs in order of arrival, and its final ends (more than one is a fault).

    again: how many of a trial's epochs were trained once more, as its checkpoint was damaged.
    """

    starts: int
    planned: int
    epochs: dict[str, list[dict[str, Any]]]
    ends: dict[str, list[str]]
    checkpoints: dict[str, str]
    again: dict[str, int]


def read_story(journal: Path, lost_baselines: int = 0) -> Story:
    """lost_baselines: how often the baseline's checkpoint was damaged, and the baseline may have been trained again."""
    epochs: dict[str, list[dict[str, Any]]] = defaultdict(list)
    ends: dict[str, list[str]] = defaultdict(list)
    again: dict[str, int] = {}
    starts, planned = 0, 0
    for line in journal.read_bytes().split(b"\n")[:-1]:
        event = json.loads(line)
        kind = event["event"]
        if kind in ("sweep_started", "sweep_resumed"):
            starts += kind == "sweep_started"
            planned = event["config"]["num_samples"]
        elif kind == "baseline":
            if ends["baseline"] and lost_baselines:
                lost_baselines -= 1
                ends["baseline"], again["baseline"] = [], len(epochs["baseline"])
            ends["baseline"].append(event["record"]["state"])
            epochs["baseline"] += event.get("epochs", [])
        elif kind == "epoch":
            epochs[event["trial_id"]].append(event["metrics"])
        elif kind == "trial_retried" and "damaged" in event["reason"]:
            again[event["trial_id"]] = len(epochs[event["trial_id"]])
        elif kind == "trial_ended" and event["state"] in STATUS:
            ends[event["trial_id"]].append(event["state"])
    checkpoints = {trial_id: str(journal.parent / metrics[-1]["checkpoint"]) for trial_id, metrics in epochs.items()}
    return Story(starts, planned, dict(epochs), dict(ends), checkpoints, again)


def faults_of(
    folder: Path, database: Path, artifacts: Path, reference: Path | None, lost_baselines: int = 0
) -> list[str]:
    """Everything that is lost, double or different.

    folder: the sweep's. database: MLflow's SQLite file. artifacts: where MLflow keeps the runs' files.
    reference: the folder of the same sweep, undisturbed; every epoch and every final weight must be bit for bit its.
    lost_baselines: see `read_story`.
    """
    story = read_story(folder / "journal.jsonl", lost_baselines)
    faults = _journal(story)
    if faults:
        return faults
    faults += _mlflow(story, folder.name, database, artifacts)
    for trial_id, path in story.checkpoints.items():
        faults += _checkpoint(trial_id, Path(path), story.epochs[trial_id], story.again.get(trial_id, 0))
    if reference is not None:
        faults += _compared(story, read_story(reference / "journal.jsonl"))
    for pattern in TEMPORARY:
        faults += [f"left in the storage: {path}" for path in folder.rglob(pattern)]
        faults += [f"left in the storage: {path}" for path in (folder.parent / "baselines").rglob(pattern)]
    return faults


def _journal(story: Story) -> list[str]:
    faults = [] if story.starts == 1 else [f"the journal starts {story.starts} times"]
    expected = {"baseline", *(f"t{i:04d}" for i in range(story.planned))}
    if set(story.ends) != expected:
        faults.append(f"ended: {sorted(story.ends)}, planned: {sorted(expected)}")
    faults += [f"{trial_id} ended {ends}" for trial_id, ends in story.ends.items() if len(ends) != 1]
    for trial_id, epochs in story.epochs.items():
        numbers = [metrics["epoch"] for metrics in epochs]
        if numbers != list(range(len(numbers))):
            faults.append(f"epochs of {trial_id} are {numbers}")
        if story.ends.get(trial_id) == ["finished"] and len(numbers) != epochs[-1]["epochs"]:
            faults.append(f"{trial_id} finished after {len(numbers)} of {epochs[-1]['epochs']} epochs")
    return faults


def _mlflow(story: Story, name: str, database: Path, artifacts: Path) -> list[str]:
    faults = []
    with sqlite3.connect(f"file:{database}?mode=ro", uri=True) as connection:

        def rows(query: str, *values: Any) -> list[tuple[Any, ...]]:
            return connection.execute(query, values).fetchall()

        runs = rows("SELECT run_uuid, status, artifact_uri FROM runs JOIN experiments USING (experiment_id) "
                    "WHERE experiments.name = ? AND runs.lifecycle_stage = 'active'", name)  # fmt: skip
        tags = {run: dict(rows("SELECT key, value FROM tags WHERE run_uuid = ?", run)) for run, _, _ in runs}
        trial_of = {run: tags[run].get("raydistill.trial_id", "") for run, _, _ in runs}
        count = Counter(trial_of.values())
        wanted = {"": 1, **dict.fromkeys(story.ends, 1)}
        if dict(count) != wanted:
            return [f"runs in MLflow: {dict(count)}, wanted one of each: {sorted(wanted)}"]
        parent = next(run for run, trial_id in trial_of.items() if trial_id == "")
        for run, status, uri in runs:
            trial_id = trial_of[run]
            state = story.ends[trial_id][0] if trial_id else "finished"
            if status != STATUS[state]:
                faults.append(f"run of '{trial_id}' is {status}, the journal says {state}")
            if not trial_id:
                continue
            if tags[run].get("mlflow.parentRunId") != parent:
                faults.append(f"run of {trial_id} has another parent")
            for figure in FIGURES:
                points = rows(
                    "SELECT step, value FROM metrics WHERE run_uuid = ? AND key = ? ORDER BY step", run, figure
                )
                told = [(metrics["epoch"], _figure(metrics, figure)) for metrics in story.epochs[trial_id]]
                if points != told:
                    faults.append(f"{figure} of {trial_id} in MLflow: {points}, in the journal: {told}")
            kept = artifacts / uri.removeprefix("mlflow-artifacts:/").removeprefix(f"{artifacts.as_uri()}/")
            checkpoint = Path(story.checkpoints[trial_id])
            if not (kept / checkpoint.name).is_file():
                faults.append(f"MLflow has no checkpoint of {trial_id} (in {kept})")
            elif (kept / checkpoint.name).read_bytes() != checkpoint.read_bytes():
                faults.append(f"MLflow has another checkpoint of {trial_id}")
        knees = rows("SELECT version FROM registered_model_aliases WHERE name = ? AND alias = 'pareto-knee'", name)
        versions = rows(
            "SELECT version, value FROM model_versions JOIN model_version_tags USING (name, version) WHERE name = ? "
            "AND current_stage != 'Deleted_Internal' AND key = 'raydistill.trial_id'", name,
        )  # fmt: skip
        trials = [trial for _, trial in versions]  # the knee, and the best in each objective
        of_front = {tag["raydistill.trial_id"] for tag in tags.values() if tag.get("pareto") == "true"}
        if len(knees) != 1 or len(set(trials)) != len(trials) or not set(trials) <= of_front:
            faults.append(f"registered versions {versions}, knees {knees}, front {sorted(of_front)}")
        members = sum(tag.get("pareto") == "true" for tag in tags.values())
        logged = rows("SELECT status FROM logged_models JOIN experiments USING (experiment_id) "
                      "WHERE experiments.name = ? AND logged_models.lifecycle_stage = 'active'", name)  # fmt: skip
        if len(logged) != members or len(set(logged)) > 1:
            faults.append(f"{len(logged)} logged models {logged} for {members} members of the front")
    return faults


def _figure(metrics: dict[str, Any], name: str) -> float:
    return {**metrics, **metrics["metrics"]}[name]  # type: ignore[no-any-return]


def _trained(metrics: dict[str, Any]) -> dict[str, Any]:
    """What training said. What the network costs is counted afterwards, and only the journal holds it; that also names
    the checkpoint as the storage does, which through a link is another path.
    """
    return {name: value for name, value in metrics.items() if name not in ("footprint", "checkpoint")}


def _untimed(metrics: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in _trained(metrics).items() if name not in TIMES}


def _checkpoint(trial_id: str, path: Path, epochs: list[dict[str, Any]], again: int = 0) -> list[str]:
    """The checkpoint loads, tells the journal's history, and its weights are as sparse as that says.

    again: of so many epochs the journal has the first training and the checkpoint the second, at another time.
    """
    content = torch.load(path, map_location="cpu", weights_only=True)
    faults = []
    told = [
        [_untimed(metrics) if number < again else _trained(metrics) for number, metrics in enumerate(history)]
        for history in (content["history"], epochs)
    ]
    if told[0] != told[1]:
        faults.append(f"checkpoint of {trial_id} and journal tell different histories")
    weights = [tensor for tensor in content["model"].values() if tensor.dim() >= 2]
    zeros = sum(int((tensor == 0).sum()) for tensor in weights)
    sparsity = zeros / sum(tensor.numel() for tensor in weights)
    if abs(sparsity - epochs[-1]["sparsity"]) > 1e-9:
        faults.append(f"checkpoint of {trial_id} is {sparsity} sparse, the journal says {epochs[-1]['sparsity']}")
    return faults


def _compared(story: Story, reference: Story) -> list[str]:
    """A trial stopped by ASHA has the beginning of the reference's epochs; a finished one has its weights too."""
    faults = []
    for trial_id, epochs in story.epochs.items():
        for mine, its in zip(epochs, reference.epochs[trial_id], strict=False):
            different = [figure for figure in FIGURES if _figure(mine, figure) != _figure(its, figure)]
            if different:
                faults.append(f"epoch {mine['epoch']} of {trial_id}: {different} differ from the undisturbed sweep's")
                break
        if story.ends[trial_id] == reference.ends[trial_id] == ["finished"]:
            mine, its = (_weights(s.checkpoints[trial_id]) for s in (story, reference))
            if mine.keys() != its.keys() or not all(torch.equal(mine[name], its[name]) for name in its):
                faults.append(f"final weights of {trial_id} differ from the undisturbed sweep's")
    return faults


def _weights(path: str) -> Mapping[str, torch.Tensor]:
    return torch.load(path, map_location="cpu", weights_only=True)["model"]


def marked(mark: str) -> dict[int, str]:
    """Command lines of all live processes, by id, that inherited ``RAYDISTILL_SOAK=mark``."""
    found = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            if f"RAYDISTILL_SOAK={mark}".encode() not in (entry / "environ").read_bytes().split(b"\0"):
                continue
            if (entry / "stat").read_text().rpartition(")")[2].split()[0] == "Z":
                continue
            found[int(entry.name)] = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:  # gone meanwhile
            continue
    return found
