"""Promotion through real Ray: a paused trial holds nothing, and goes on bit for bit where it paused."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
import ray
import torch

from raydistill import datasets
from raydistill.records import BASELINE, FINISHED, PAUSED, RUNNING, STOPPED, TrialRecord
from raydistill.sweep.file.load import load_sweep
from raydistill.sweep.planning.plan import plan_sweep
from raydistill.sweep.record.observer import Observer
from raydistill.sweep.run import run_sweep
from raydistill.tasks.classification import Classification, ImageShape
from raydistill.training import fit, read_checkpoint

CIFAR = ImageShape(10, (3, 32, 32))

pytestmark = [pytest.mark.ray, pytest.mark.slow]

PROMOTE = (
    ("training", {"epochs": 4, "batch_size": 256, "lr": 0.02, "deterministic": True, "precision": "fp32"}),
    ("num_samples", 6),
    ("trial_scheduler", {"name": "moasha", "mode": "promote", "grace_period": 1, "reduction_factor": 2}),
    ("resources_per_trial", {"cpu": float(len(os.sched_getaffinity(0)))}),  # one at a time
)


class Watcher(Observer):
    """Counts, whenever a trial starts, who pauses and what is left of the cluster's cores before it takes them."""

    def __init__(self) -> None:
        self.states: dict[str, str] = {}
        self.paused_while_another_trained = 0
        self.most_running = 0
        self.starts: dict[str, int] = {}
        self.processes = 0

    def trial(self, record: TrialRecord) -> None:
        if record.trial_id == BASELINE:
            return
        before = self.states.get(record.trial_id)
        self.states[record.trial_id] = record.state
        states = list(self.states.values())
        self.most_running = max(self.most_running, states.count(RUNNING))
        if record.state == RUNNING and before != RUNNING:
            self.starts[record.trial_id] = self.starts.get(record.trial_id, 0) + 1
        elif record.state == RUNNING:  # an epoch of it: it has the only place, whoever pauses
            paused = states.count(PAUSED)
            self.paused_while_another_trained = max(self.paused_while_another_trained, paused)
            if paused >= 2:
                assert ray.available_resources().get("CPU", 0.0) == 0.0  # all of them the running one's
                names = [process.name() for process in psutil.Process().children(recursive=True)]
                self.processes = max(self.processes, sum("ImplicitFunc" in name for name in names))


@pytest.mark.usefixtures("spared")
@pytest.mark.long  # tests/sweep/test_run.py: a sweep with promotion, killed and resumed
def test_paused_trials_hold_nothing_and_go_on_bit_for_bit(write_sweep: Callable[..., Path], tmp_path: Path) -> None:
    sweep = load_sweep(write_sweep(*PROMOTE))
    watcher = Watcher()
    outcome = run_sweep(sweep, tmp_path / "sweeps", observer=watcher)
    trials = {key: record for key, record in outcome.records.items() if key != BASELINE}
    assert watcher.most_running == 1
    assert watcher.paused_while_another_trained >= 2
    assert watcher.processes <= 2  # the running one, and one that Tune keeps to use again
    finished = [record for record in trials.values() if record.state == FINISHED]
    stopped = [record for record in trials.values() if record.state == STOPPED]
    assert finished
    assert len(finished) + len(stopped) == 6
    assert all("go on from the rung at epoch" in record.reason for record in stopped)
    # rungs at epochs 1 and 2: a trial that finished ran three legs
    assert {watcher.starts[record.trial_id] for record in finished} == {3}
    early = [record for record in stopped if record.last is not None and record.last.epoch == 0]
    assert 1 <= len(early) <= 3  # half of six go on, and perhaps one that was among the best when fewer had come

    dataset = datasets.load(sweep.dataset)
    for record in finished[:2]:
        plan = plan_sweep(sweep, CIFAR).trials[int(record.trial_id[1:])]
        assert dict(plan.values) == dict(record.values)
        baseline = str(outcome.records[BASELINE].checkpoint)
        threads = len(os.sched_getaffinity(0))
        whole = plan.placed(baseline, tmp_path / "whole" / record.trial_id, threads, "cpu", "fp32").run
        for _ in fit(replace(whole, tensorboard=False), task=Classification(dataset)):
            pass
        never_paused = read_checkpoint(str(tmp_path / "whole" / record.trial_id / "checkpoint.pt"))
        promoted = read_checkpoint(str(record.checkpoint))
        assert promoted["model"].keys() == never_paused["model"].keys()
        for name, weight in never_paused["model"].items():
            assert torch.equal(promoted["model"][name], weight), name
