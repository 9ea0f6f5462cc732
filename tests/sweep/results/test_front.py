"""What a damaged checkpoint costs the front."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from torch import Tensor, nn

from raydistill.errors import CheckpointError, DataError, Fault
from raydistill.records import BASELINE, FAILED
from raydistill.sweep.results import front
from raydistill.training.checkpoint import write_checkpoint
from tests.export.conftest import keep
from tests.sweep.sessions import finished, is_in, session_of, with_baseline, with_test
from tests.tasks.detection.shapes import small


def test_the_second_time_a_trial_is_lost_and_its_place_free(write_sweep: Callable[..., Path], tmp_path: Path) -> None:
    session = session_of(write_sweep, tmp_path)
    with_baseline(session)
    for trial_id, top1 in (("t0000", 0.8), ("t0001", 0.7)):
        is_in(finished(trial_id, top1, 0.5, f"{tmp_path}/{trial_id}.pt"), session)
    session.trained_again.add("t0000")
    damaged = CheckpointError(Fault(f"{tmp_path}/t0000.pt", "is damaged"))
    front._lose(session, "t0000", damaged)
    record = session.ledger.records["t0000"]
    assert (record.state, record.reason) == (FAILED, f"{tmp_path}/t0000.pt: is damaged")
    assert session.observer.warnings == [f"trial t0000 is lost: {tmp_path}/t0000.pt: is damaged"]  # type: ignore[attr-defined]
    assert {row.record.trial_id for row in session.ledger.front() if row.pareto} == {BASELINE, "t0001"}


def test_any_other_error_and_one_of_the_baseline_is_raised(write_sweep: Callable[..., Path], tmp_path: Path) -> None:
    session = session_of(write_sweep, tmp_path)
    with_baseline(session)
    is_in(finished("t0000", 0.8, 0.5, f"{tmp_path}/t0000.pt"), session)
    session.trained_again.add("t0000")
    for trial_id, error in (
        ("t0000", DataError("no images")),
        ("t0000", CheckpointError(Fault("elsewhere.pt", "is damaged"))),
        (BASELINE, CheckpointError(Fault(str(session.ledger.records[BASELINE].checkpoint), "is damaged"))),
    ):
        with pytest.raises(type(error)) as caught:
            front._lose(session, trial_id, error)
        assert caught.value is error
    assert session.ledger.records["t0000"].state != FAILED


def test_what_is_tested_is_not_tested_again(write_sweep: Callable[..., Path], tmp_path: Path) -> None:
    session = session_of(write_sweep, tmp_path)
    with_baseline(session)
    is_in(with_test(finished("t0000", 0.8, 0.5)), session)
    is_in(finished("t0001", 0.1, 0.1), session)  # not on the front
    front.test_front(session)
    assert session.observer.steps == []  # type: ignore[attr-defined]


def test_whoever_has_an_alias_of_the_users_own_is_tested_too(write_sweep: Callable[..., Path], tmp_path: Path) -> None:
    """Behind the front, where its figure is no objective."""
    session = session_of(write_sweep, tmp_path, ("aliases", {"low": {"best": "sparsity", "where": "top1 <= 0.2"}}))
    with_baseline(session)
    is_in(with_test(finished("t0000", 0.8, 0.5)), session)
    is_in(finished("t0001", 0.1, 0.1), session)
    is_in(finished("t0002", 0.2, 0.2), session)
    is_in(replace(finished("t0003", 0.1, 0.1), confirms="t0001"), session)
    own, without = front._chosen(session, session.ledger.front())
    assert (own["low"].record.trial_id, own["low"].pareto, without) == ("t0002", False, {})
    assert [record.trial_id for record in front._untested(session)] == ["t0002"]


class Odd(nn.Conv2d):
    def forward(self, images: Tensor) -> dict[str, Tensor]:  # type: ignore[override]
        return {"maps": super().forward(images)}


def odd(num_classes: int) -> nn.Module:
    return Odd(3, num_classes, 1)


@pytest.mark.slow
def test_a_knee_that_no_format_can_hold_is_not_offered(write_sweep: Callable[..., Path], tmp_path: Path) -> None:
    """A network may give neither a tensor nor boxes; `pick` says so, and the sweep's last lines offer nothing that is
    refused."""
    detector_arch, odd_arch = "tests.tasks.detection.shapes:small", f"{__name__}:odd"
    session = session_of(write_sweep, tmp_path)
    assert not front.can_be_taken(session), "there is none yet"
    with_baseline(session)
    for arch, model in ((detector_arch, small(3)), (odd_arch, odd(3))):
        said = {"run": {"arch": arch, "model_args": {}}, "num_classes": 3, "image_shape": [3, 48, 48]}
        content = {**said, "precision": "fp32", "structure": [], "model": model.state_dict()}
        write_checkpoint(tmp_path / f"{type(model).__name__}.pt", content)
    for path, arch, taken in (
        (tmp_path / "FasterRCNN.pt", detector_arch, True),
        (tmp_path / "Odd.pt", odd_arch, False),
        (keep(tmp_path / "net.pt", "simplenet_cifar"), "simplenet_cifar", True),
    ):
        is_in(replace(finished("t0000", 0.95, 0.5, str(path)), arch=arch), session)
        assert front.can_be_taken(session) is taken
    (tmp_path / "net.pt").unlink()
    assert not front.can_be_taken(session)
