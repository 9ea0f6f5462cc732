"""Which trial a rule means, on records written by hand."""

from __future__ import annotations

import pytest

from raydistill.errors import ConfigError
from raydistill.metrics import Metric
from raydistill.records import BASELINE, FINISHED, STOPPED, EpochMetrics, TrialRecord
from raydistill.search import Objective, front_rows
from raydistill.search.constraints import Constraint
from raydistill.search.pick import Rule, described, pick

METRICS = {"top1": Metric("max", "fraction"), "loss": Metric("min")}
OBJECTIVES = (Objective("top1", "max"), Objective("sparsity", "max"))


def record(trial_id: str, top1: float, sparsity: float, macs: float, state: str = FINISHED, **said: str) -> TrialRecord:
    last = EpochMetrics(
        3, 4, 1.0, {"top1": top1, "loss": 1 - top1}, 0.1, sparsity, {}, 1.0, 1.0, 1, "/c.pt", {"macs": macs}
    )
    return TrialRecord(trial_id, {}, state, "net", "digits", 0, last=last, checkpoint="/c.pt", **said)  # type: ignore[arg-type]


RECORDS = {
    found.trial_id: found
    for found in (
        record(BASELINE, 0.900, 0.0, 100),
        record("t0000", 0.905, 0.5, 80),
        record("t0001", 0.899, 0.7, 60),
        record("t0002", 0.890, 0.9, 70),
        record("t0003", 0.700, 0.95, 10),
        record("t0004", 0.899, 0.7, 55, STOPPED),
        record("r0", 0.9, 0.5, 80, confirms="t0000"),
    )
}


def picked(rule: Rule, constraints: tuple[Constraint, ...] = (), records: dict[str, TrialRecord] = RECORDS) -> str:
    rows = front_rows(list(records.values()), OBJECTIVES, constraints)
    return pick(rows, rule, METRICS, OBJECTIVES, records).record.trial_id


def drop(most: float) -> Constraint:
    return Constraint("top1_drop", "<=", most)


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        (Rule(), "t0002"),  # on axes scaled to the front it bulges farthest
        (Rule(trial="t0003"), "t0003"),
        (Rule(trial=BASELINE), BASELINE),
        (Rule(where=(drop(0.005),)), "t0001"),
        (Rule(where=(drop(0.02),)), "t0002"),
        (Rule(where=(drop(0.0),)), "t0000"),
        (Rule(best="macs"), "t0003"),
        (Rule(best="macs", where=(drop(0.02),)), "t0001"),
        (Rule(best="top1", where=(Constraint("sparsity", ">=", 0.6),)), "t0001"),
        (Rule(best="loss"), "t0000"),
    ],
)
def test_a_rule(rule: Rule, expected: str) -> None:
    assert picked(rule) == expected


def test_of_equal_ones_the_better_in_the_metric() -> None:
    records = {r.trial_id: r for r in (record("t0000", 0.8, 0.5, 10), record("t0001", 0.9, 0.5, 10))}
    assert picked(Rule(best="macs"), records=records) == "t0001"


@pytest.mark.parametrize(
    ("rule", "says"),
    [
        (Rule(trial="t0009"), r"--trial: there is no such trial, got 't0009'; did you mean"),
        (Rule(trial="t0004"), "t0004: has not finished, it is stopped"),
        (Rule(trial="r0"), "repeats t0000 with another seed; name that: --trial t0000"),
        (Rule(best="mac"), "--best: no such figure, got 'mac'; did you mean 'macs'"),
        (
            Rule(where=(drop(-0.01), Constraint("macs", "<=", 60.0))),
            r"no trial meets top1_drop <= -0\.01 and macs <= 60; nearest: t000\d \(",
        ),
    ],
)
def test_what_cannot_be_had_is_said_with_what_comes_nearest(rule: Rule, says: str) -> None:
    with pytest.raises(ConfigError, match=says) as caught:
        picked(rule)
    assert "\n" not in str(caught.value)


def test_the_nearest_comes_first() -> None:
    with pytest.raises(ConfigError, match=r"nearest: t0003 \(macs 10, not <= 9\); t0001 \(macs 60, not <= 9\)"):
        picked(Rule(where=(Constraint("macs", "<=", 9.0),)))


def test_a_sweeps_own_constraints_hold_too() -> None:
    bound = (drop(0.005),)
    assert picked(Rule(best="sparsity"), bound) == "t0001"
    with pytest.raises(ConfigError, match=r"so there is no knee; nearest: t0000: sparsity 0\.5, not >= 0\.99"):
        picked(Rule(), (Constraint("sparsity", ">=", 0.99),))


def test_a_dense_knee_is_not_picked() -> None:
    records = {r.trial_id: r for r in (record(BASELINE, 0.9, 0.5, 10), record("t0000", 0.3, 0.4, 10))}
    with pytest.raises(ConfigError, match="the knee is the dense network"):
        picked(Rule(), records=records)


def test_a_sweep_without_a_finished_trial() -> None:
    records = {r.trial_id: r for r in (record(BASELINE, 0.9, 0.0, 10), record("t0000", 0.3, 0.4, 10, STOPPED))}
    with pytest.raises(ConfigError, match="no trial has finished, all of them are stopped"):
        picked(Rule(), records=records)


def test_it_is_told_with_what_it_lost() -> None:
    rows = front_rows(list(RECORDS.values()), OBJECTIVES, ())
    row = next(row for row in rows if row.record.trial_id == "t0001")
    told = described(row, METRICS, RECORDS[BASELINE])
    assert told == ["validation top1 89.90 % (top1_drop 0.10 %)", "sparsity 70.00 %"]
