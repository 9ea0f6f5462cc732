"""Front members trained again with other seeds, so that the front is not the luckiest noise.

The best of many noisy figures is too good on average (the winner's curse). Repeats are not chosen for their result, so
their mean, with the first run's, says what a schedule is worth.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass

from raydistill.records import BASELINE, ENDED, RUNNING, Scalar, TrialRecord
from raydistill.sweep.planning.plan import TrialPlan, trial_number
from raydistill.sweep.session import Session
from raydistill.sweep.trials import drawn, run_all


@dataclass(frozen=True)
class Repeat:
    """A front member's run with another seed. Its id is the member's with the seed: ``t0003.s1``."""

    member: TrialRecord
    seed: int

    @property
    def trial_id(self) -> str:
        return f"{self.member.trial_id}.s{self.seed}"


def confirm_front(session: Session) -> None:
    """Train the front's members `confirm` times more, then those that came up to the front for it, and so on.

    Raises:
        RaydistillError: the sweep cannot go on.
    """
    while not session.interrupt.requested and (repeats := _missing(session)):
        members = len({repeat.member.trial_id for repeat in repeats})
        what = f"{members} front member{'s' * (members > 1)}"
        session.observer.step(f"confirming {what}: {len(repeats)} runs with other seeds")
        _run(session, repeats)


def _missing(session: Session) -> list[Repeat]:
    """The repeats that the present front still lacks."""
    sections, ledger = session.sweep.sections, session.ledger
    members = [row.record for row in ledger.front() if row.pareto and row.record.trial_id != BASELINE]
    wanted = [Repeat(member, sections.seed + i) for member in members for i in range(1, sections.confirm + 1)]
    known = ledger.records
    return [repeat for repeat in wanted if getattr(known.get(repeat.trial_id), "state", "") not in ENDED]


def _run(session: Session, repeats: list[Repeat]) -> None:
    first = drawn(session)

    def draw(number: int, values: Mapping[str, Scalar]) -> TrialPlan:
        repeat = repeats[number]
        plan = first(trial_number(repeat.member.trial_id), values)
        out_dir = session.store.reference(session.folder / "trials" / repeat.trial_id)
        return plan.repeated(repeat.trial_id, repeat.seed, out_dir)

    def record(number: int, values: Mapping[str, Scalar], plan: TrialPlan | None) -> TrialRecord:
        repeat = repeats[number]
        return TrialRecord(
            trial_id=repeat.trial_id,
            values=dict(values),
            state=RUNNING,
            arch=repeat.member.arch,
            dataset=repeat.member.dataset,
            seed=repeat.seed,
            planned_sparsity=repeat.member.planned_sparsity,
            epochs=repeat.member.epochs,
            started_ms=time.time_ns() // 1_000_000,
            schedule_text=repeat.member.schedule_text,
            confirms=repeat.member.trial_id,
        )

    ids = [repeat.trial_id for repeat in repeats]
    run_all(session, ids, [repeat.member.values for repeat in repeats], draw, record)
