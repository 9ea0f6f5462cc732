"""Trials trained several as one network: the same story as of trials one by one, whoever is killed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from raydistill.records import BASELINE, FAILED, FINISHED, STOPPED
from raydistill.sweep.record.journal import read_journal
from tests.sweep.test_run import assert_complete, epochs_of, start, wait_for_epochs

pytestmark = [pytest.mark.ray, pytest.mark.slow]
WriteSweep = Callable[..., Path]
SweepHere = Callable[..., str]
EXACT = ("model/arch", "tests.training.packing.nets:tiny")
"""Of float64: rounding stays far below what is compared."""
PACKED = (("resources_per_trial", {"cpu": 2, "pack": 3}), ("num_samples", 5), ("training/precision", "fp32"))


def kill_the_pack(pid: int) -> None:
    below = psutil.Process(pid).children(recursive=True)
    (host,) = [child for child in below if "PackedTrials" in " ".join(child.cmdline())]
    host.kill()


@pytest.mark.long  # trial/test_packed.py has trials in a pack, tests/training/packing what each trains
def test_its_process_and_its_driver_are_killed_and_the_trials_are_what_they_are_by_themselves(
    write_sweep: WriteSweep, sweep_here: SweepHere, tmp_path: Path
) -> None:
    file = write_sweep(*PACKED, EXACT)
    journal = tmp_path / "sweeps" / "tiny" / "journal.jsonl"
    process = start(tmp_path, str(file))
    wait_for_epochs(process, journal, 3)
    kill_the_pack(process.pid)
    wait_for_epochs(process, journal, 8)
    process.kill()
    process.communicate()
    assert "Pareto front" in sweep_here(file, "--resume")
    packed = assert_complete(journal.parent, "tiny", 5)
    lines = [json.loads(line) for line in journal.read_text().splitlines()]
    retried = {line["trial_id"] for line in lines if line["event"] == "trial_retried"}
    assert len(retried) == 3, "all that were in the process"
    sweep_here(write_sweep(*PACKED[1:], EXACT, ("name", "single"), name="single.yaml"))
    alone = assert_complete(tmp_path / "sweeps" / "single", "single", 5)
    for trial_id, record in alone.records.items():
        other = packed.records[trial_id]
        assert (other.state, other.values) == (record.state, record.values)
        if trial_id == BASELINE:
            continue
        for ours, theirs in zip(epochs_of(packed, trial_id), epochs_of(alone, trial_id), strict=True):
            assert (ours.sparsity, ours.learning_rate) == (theirs.sparsity, theirs.learning_rate)
            assert ours.metrics["loss"] == pytest.approx(theirs.metrics["loss"], rel=1e-9)
        assert other.last is not None
        assert record.last is not None
        assert other.last.footprint["macs"] == record.last.footprint["macs"]


@pytest.mark.long
@pytest.mark.usefixtures("spared")
def test_a_trial_that_ends_every_process_is_found_out_and_rungs_stop_and_refill(
    write_sweep: WriteSweep, sweep_here: SweepHere, tmp_path: Path
) -> None:
    fragile = {"class": "tests.sweep.own_packed:Fragile", "load": 0.0}
    when = {"extension": {"instance_name": "fragile"}, "starting_epoch": 1, "ending_epoch": 2, "frequency": 1}
    pruning = {"pruner": {"instance_name": "agp"}, "starting_epoch": 0, "ending_epoch": 3, "frequency": 1}
    file = write_sweep(
        *PACKED,
        ("num_samples", 6),
        ("resources_per_trial", {"cpu": 2, "pack": 4}),
        ("max_failures", 0),
        ("schedule/extensions", {"fragile": fragile}),
        ("schedule/policies", [pruning, when]),
        ("search", {"extensions.fragile.load": {"choice": [0.0, 0.1, 0.9, 0.2, 0.3, 0.4]}}),
        ("searcher", {"name": "grid"}),
        ("trial_scheduler", {"name": "asha", "grace_period": 3}),
    )
    out = sweep_here(file)
    history = read_journal(tmp_path / "sweeps" / "tiny" / "journal.jsonl")
    states = {key: record.state for key, record in history.records.items() if key != BASELINE}
    (dead,) = [key for key, state in states.items() if state == FAILED]
    assert history.records[dead].values == {"extensions.fragile.load": 0.9}
    assert "os._exit(3)" in history.records[dead].reason
    assert set(states.values()) <= {FAILED, FINISHED, STOPPED}
    assert len(states) == 6
    assert dead in out


@pytest.mark.long  # trial/test_packed.py has trials in a pack, tests/training/packing what each trains
@pytest.mark.usefixtures("spared")
def test_two_trials_in_a_pack_are_trials_like_any_other(
    write_sweep: WriteSweep, sweep_here: SweepHere, tmp_path: Path
) -> None:
    sweep_here(write_sweep(*PACKED, ("resources_per_trial", {"cpu": 1, "pack": 2}), ("num_samples", 2)))
    assert_complete(tmp_path / "sweeps" / "tiny", "tiny", 2)


@pytest.mark.long
@pytest.mark.usefixtures("spared")
def test_what_cannot_be_packed_is_said_once_and_trained_one_by_one(
    write_sweep: WriteSweep, sweep_here: SweepHere, tmp_path: Path
) -> None:
    file = write_sweep(*PACKED, ("num_samples", 2), ("distillation", {"temperature": 2.0}))
    out = sweep_here(file)
    assert out.count("resources_per_trial.pack: none, trials are trained one by one: a teacher watches") == 1
    assert_complete(tmp_path / "sweeps" / "tiny", "tiny", 2)


@pytest.mark.long
@pytest.mark.usefixtures("spared")
def test_auto_measures_first(write_sweep: WriteSweep, sweep_here: SweepHere, tmp_path: Path) -> None:
    out = sweep_here(write_sweep(*PACKED, ("resources_per_trial", {"cpu": 2, "pack": "auto"}), ("num_samples", 2)))
    assert "measuring how many trials are fastest as one network" in out
    assert "as one network, " in out or "packing is no gain" in out
    assert_complete(tmp_path / "sweeps" / "tiny", "tiny", 2)
