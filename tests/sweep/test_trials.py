"""How the trials of a sweep are drawn, recorded and held against the machine."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from raydistill.cluster.team import Team
from raydistill.errors import TrainingError
from raydistill.records import BASELINE, FAILED, RUNNING
from raydistill.sweep import trials
from raydistill.training.checkpoint import write_checkpoint
from tests.sweep.sessions import finished, is_in, session_of, with_baseline


def test_a_trial_is_placed_once_in_its_folder_and_starts_from_the_baseline(
    write_sweep: Callable[..., Path], tmp_path: Path
) -> None:
    session = session_of(write_sweep, tmp_path)
    with_baseline(session)
    dense = str(session.ledger.records[BASELINE].checkpoint)
    run = {"arch": "simplenet_cifar", "model_args": {}}
    write_checkpoint(dense, {"model": {}, "run": run, "precision": "fp32"})
    session_draw = trials.drawn(session)
    known = session.plan.trials[1]
    plan = session_draw(1, known.values)
    assert session_draw(1, known.values) is plan
    assert (plan.trial_id, dict(plan.values), plan.planned_sparsity) == (
        known.trial_id, dict(known.values), known.planned_sparsity,
    )  # fmt: skip
    run = plan.run
    assert (run.init_from, run.out_dir) == (dense, str(session.folder / "trials" / known.trial_id))
    assert (run.threads, run.device, run.precision) == (2, "cpu", "fp32")
    record = trials._recorded(session)(1, known.values, plan)
    assert (record.trial_id, record.state, record.arch, record.dataset) == (
        known.trial_id, RUNNING, "simplenet_cifar", "digits",
    )  # fmt: skip
    assert record.schedule_text == plan.schedule_text
    refused = trials._recorded(session)(2, known.values, None)
    assert (refused.planned_sparsity, refused.schedule_text) == (0.0, "")


def test_as_many_at_once_as_fit_and_at_least_one(write_sweep: Callable[..., Path], tmp_path: Path) -> None:
    session = session_of(write_sweep, tmp_path)  # 2 cores each, of 8
    assert [trials._at_once(session, most) for most in (100, 3, 0)] == [4, 3, 1]
    assert trials._at_once(replace(session, team=Team(3, cpu=1.0)), 100) == 2


def test_a_sweep_of_which_no_trial_finished_says_why_the_first_did_not(
    write_sweep: Callable[..., Path], tmp_path: Path
) -> None:
    session = session_of(write_sweep, tmp_path)
    with_baseline(session)
    trials._check_any_finished(session.ledger)
    is_in(replace(finished("t0000", 0.5, 0.5), state=FAILED, reason="out of memory"), session)
    with pytest.raises(TrainingError, match="no trial finished; t0000 failed: out of memory"):
        trials._check_any_finished(session.ledger)
    is_in(finished("t0001", 0.5, 0.5), session)
    trials._check_any_finished(session.ledger)
