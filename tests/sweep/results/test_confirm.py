"""Which runs with other seeds the front still lacks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from raydistill.records import FAILED, RUNNING
from raydistill.sweep.results.confirm import Repeat, _missing, confirm_front
from tests.sweep.sessions import finished, is_in, session_of, with_baseline


def test_only_front_members_are_repeated_and_what_has_ended_is_not(
    write_sweep: Callable[..., Path], tmp_path: Path
) -> None:
    session = session_of(write_sweep, tmp_path, ("confirm", 2), ("seed", 5))
    with_baseline(session)
    best, dominated = finished("t0000", 0.8, 0.7), finished("t0001", 0.6, 0.6)
    other = finished("t0002", 0.7, 0.9)
    for record in (best, dominated, other):
        is_in(record, session)
    assert {repeat.trial_id for repeat in _missing(session)} == {
        f"{t}.s{s}" for t in ("t0000", "t0002") for s in (6, 7)
    }
    is_in(replace(best, trial_id="t0000.s6", confirms="t0000", seed=6), session)
    is_in(replace(other, trial_id="t0002.s6", confirms="t0002", seed=6, state=FAILED), session)
    is_in(replace(other, trial_id="t0002.s7", confirms="t0002", seed=7, state=RUNNING), session)
    assert [repeat.trial_id for repeat in _missing(session)].count("t0002.s7") == 1
    assert {repeat.trial_id for repeat in _missing(session)} == {"t0000.s7", "t0002.s7"}
    assert Repeat(best, 9).trial_id == "t0000.s9"


@pytest.mark.slow
def test_without_a_number_and_once_interrupted_nothing_is_run(write_sweep: Callable[..., Path], tmp_path: Path) -> None:
    session = session_of(write_sweep, tmp_path / "none")
    with_baseline(session)
    is_in(finished("t0000", 0.8, 0.7), session)
    confirm_front(session)
    wanted = session_of(write_sweep, tmp_path / "two", ("confirm", 2))
    is_in(finished("t0000", 0.8, 0.7), wanted)
    wanted.interrupt.requested = True
    confirm_front(wanted)
    assert wanted.observer.steps == session.observer.steps == []  # type: ignore[attr-defined]
