"""A planned run's references become files of the machine that it runs on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from raydistill.storage import open_store
from raydistill.sweep.planning.plan import TrialPlan
from raydistill.sweep.trial.local_files import here, taught_by
from raydistill.training import Distillation, RunConfig


def plan_of(teacher: str | None) -> TrialPlan:
    run = RunConfig("simplenet_cifar", distillation=Distillation(checkpoint=teacher))
    return TrialPlan("t0000", {}, run, 0.0)


def test_a_folder_changes_nothing(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    plan = plan_of("/own/teacher.pt").placed("/s/baseline.pt", "/s/t0000", 1, "cpu", "fp32")
    assert taught_by(plan, store) == plan
    assert here(plan.run, store) == plan.run


@pytest.mark.slow
def test_a_bucket_brings_the_baseline_and_a_users_teacher(
    bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    teacher = tmp_path / "teacher.pt"
    teacher.write_bytes(b"own")
    driver = open_store(f"s3://{bucket}/sweeps")
    baseline = tmp_path / "baseline.pt"
    baseline.write_bytes(b"dense")
    reference = driver.given(str(baseline))
    plan = taught_by(plan_of(str(teacher)), driver)
    plan = plan.placed(reference, f"{driver.shown}/tiny/trials/t0000", 1, "cpu", "fp32")
    teacher.unlink()
    baseline.unlink()
    monkeypatch.setenv("RAYDISTILL_WORK_DIR", str(tmp_path / "node"))
    run = here(plan.run, open_store(f"s3://{bucket}/sweeps"))
    assert run.init_from is not None
    assert Path(run.init_from).read_bytes() == b"dense"
    assert run.distillation is not None
    assert Path(str(run.distillation.checkpoint)).read_bytes() == b"own"
    assert str(run.out_dir).startswith(str(tmp_path / "node"))
    assert str(run.out_dir).endswith("/tiny/trials/t0000")


@pytest.mark.slow
def test_the_baseline_as_teacher_is_brought_once(bucket: str, tmp_path: Path) -> None:
    store = open_store(f"s3://{bucket}/sweeps")
    (tmp_path / "dense.pt").write_bytes(b"dense")
    reference = store.given(str(tmp_path / "dense.pt"))
    plan = taught_by(plan_of(None), store).placed(reference, f"{store.shown}/tiny/trials/t0000", 1, "cpu", "fp32")
    run = here(plan.run, store)
    assert run.distillation is not None
    assert run.distillation.checkpoint == run.init_from
    assert here(replace(plan.run, init_from=None, distillation=None), store).init_from is None
