"""Which finished trials are trained again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from raydistill.records import FAILED, RUNNING, TrialRecord
from raydistill.sweep.record.journal import History
from raydistill.sweep.results import retrain
from raydistill.sweep.session import Session
from tests.sweep.sessions import finished, is_in, session_of, with_baseline


def test_those_whose_network_is_gone_and_nothing_else(
    write_sweep: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = session_of(write_sweep, tmp_path)
    with_baseline(session)  # it is gone too, and no trial
    places = {name: str(tmp_path / f"{name}.pt") for name in ("whole", "gone", "cut", "since", "failed")}
    torch.save({"a": 1}, places["whole"])
    Path(places["cut"]).write_bytes(Path(places["whole"]).read_bytes()[:-40])
    history = History(records={name: finished(name, 0.5, 0.5, place) for name, place in places.items()})
    history.records["failed"] = replace(history.records["failed"], state=FAILED)
    history.records["none"] = finished("none", 0.5, 0.5)
    for record in history.records.values():
        is_in(record, session)
    is_in(replace(history.records["since"], state=RUNNING), session)
    again: list[str] = []

    def train(session: Session, records: list[TrialRecord]) -> None:
        again.extend(record.trial_id for record in records)

    monkeypatch.setattr(retrain, "train_again", train)  # training itself needs a Ray
    retrain.train_lost(session, history)
    assert again == ["gone", "cut"]
    assert session.trained_again == {"gone", "cut"}
    assert session.observer.warnings == [  # type: ignore[attr-defined]
        f"trial gone is trained again, with its values and its seed: {places['gone']}: does not exist any more",
        f"trial cut is trained again, with its values and its seed: {places['cut']}: is damaged",
    ]
