"""The trials of finished sweeps that a new one begins with: looked up in MLflow once, then kept as JSON."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from raydistill.errors import RaydistillError
from raydistill.records import FINISHED, INTERRUPTED, RUNNING, EpochMetrics, Scalar, TrialRecord
from raydistill.search import Objective, front_rows
from raydistill.sweep.file.load import load_sweep
from raydistill.sweep.planning.seeds import Seed, find_seeds, seeds_from_json, seeds_to_json
from raydistill.tasks.classification.metrics import METRICS
from raydistill.tracking import SweepLog

WriteSweep = Callable[..., Path]
FC1 = "per_layer.fc1.weight.final_sparsity"


def test_json_and_back() -> None:
    seeds = {0: (Seed("t0003", {FC1: "0.5"}), Seed("t0001", {}, True)), 4: ()}
    assert seeds_from_json(json.loads(json.dumps(seeds_to_json(seeds)))) == seeds


def test_a_file_that_names_no_sweep_asks_nobody(write_sweep: WriteSweep, tmp_path: Path) -> None:
    told: list[str] = []
    sweep = load_sweep(write_sweep(("warm_start", [{FC1: 0.9}])))
    assert find_seeds(sweep, tmp_path / "nowhere", told.append) == {}
    assert (told, (tmp_path / "nowhere").exists()) == ([], False)


def finished(trial_id: str, top1: float, sparsity: float, values: dict[str, Scalar]) -> TrialRecord:
    last = EpochMetrics(
        0, 1, 1.0, {"top1": top1, "top5": 1.0, "loss": 1.0}, 0.1, sparsity, {}, 1.0, 1.0, 1_700_000_000_000
    )
    return TrialRecord(trial_id, values, FINISHED, "a", "d", 0, last=last, epochs=1)


def kept(folder: Path, name: str, trials: Sequence[TrialRecord], state: str = FINISHED) -> str:
    folder.mkdir(parents=True)
    log = SweepLog(None, folder, name, f"id of {name}")
    log.start()
    for trial in trials:
        log.trial_started(dataclasses.replace(trial, state=RUNNING))
        log.trial_ended(trial)
    objectives = (Objective("top1", "max"), Objective("sparsity", "max"))
    log.front(front_rows(trials, objectives), objectives, METRICS)
    assert log.finish(state) == 0
    return log.uri


@pytest.mark.slow
def test_sweeps_are_found_in_the_same_storage_and_elsewhere(write_sweep: WriteSweep, tmp_path: Path) -> None:
    storage, told = tmp_path / "sweeps", []
    trials = [finished(f"t{i:04d}", 0.9 - i / 10, i / 10, {FC1: 0.5 + i / 100}) for i in range(5)]
    kept(storage / "first", "first", trials)
    elsewhere = kept(tmp_path / "elsewhere", "other", [finished("t0007", 0.5, 0.5, {FC1: 0.7})], INTERRUPTED)
    entries = [{"sweep": "first", "top": 3}, {"sweep": "other", "tracking_uri": elsewhere, "top": 2}]
    sweep = load_sweep(write_sweep(("warm_start", entries), ("num_samples", 6)))
    found = find_seeds(sweep, storage, told.append)
    assert [(seed.trial_id, dict(seed.params)) for seed in found[0]] == [
        ("t0000", {FC1: "0.5"}),
        ("t0002", {FC1: "0.52"}),
        ("t0004", {FC1: "0.54"}),
    ]
    assert [seed.trial_id for seed in found[1]] == ["t0007"]
    assert [line.partition("sweep 'other' ")[2] for line in told] == [
        "did not finish (interrupted); its front so far is taken",
        "has 1 finished trial, 2 were asked for",
    ]
    own = load_sweep(write_sweep(("warm_start", entries[:1]), ("tracking", {"uri": elsewhere})))
    assert len(find_seeds(own, storage, told.append)[0]) == 3, "not in its own store, but in the storage"
    wrong = load_sweep(write_sweep(("warm_start", [{"sweep": "frist", "top": 1}])))
    with pytest.raises(RaydistillError, match=r"\[0\]\.sweep: no such sweep .*, got 'frist'; did you mean 'first'\?"):
        find_seeds(wrong, storage, told.append)
