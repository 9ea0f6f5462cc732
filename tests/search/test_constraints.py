"""Constraints: what they accept, what breaks them, and that what breaks one is not on the front."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from raydistill.errors import ConfigError
from raydistill.metrics import Metric
from raydistill.records import BASELINE, TrialRecord
from raydistill.search import front_rows, parse_objectives
from raydistill.search.constraints import Constraint, parse_constraints, violations
from raydistill.tasks.classification.metrics import METRICS

Make = Callable[..., TrialRecord]
OBJECTIVES = parse_objectives({"top1": "max", "sparsity": "max"}, "objectives", METRICS)


def test_what_is_written_is_what_is_meant() -> None:
    found = parse_constraints(
        ["top1_drop <= 0.005", "sparsity>=0.8", " latency_ms < 3e0 ", "macs > 10", "macs <= 0.5x"],
        "f: constraints",
        METRICS,
    )
    assert found == (
        Constraint("top1_drop", "<=", 0.005),
        Constraint("sparsity", ">=", 0.8),
        Constraint("latency_ms", "<", 3.0),
        Constraint("macs", ">", 10.0),
        Constraint("macs", "<=", 0.5, relative=True),
    )
    assert [str(bound) for bound in found[-2:]] == ["macs > 10", "macs <= 0.5x"]


@pytest.mark.parametrize(
    ("node", "expected"),
    [
        ("sparsity >= 0.8", "f: constraints: must be a list of bounds, got 'sparsity >= 0.8'; as in"),
        (["sparsity => 0.8"], "f: constraints[0]: must be a figure, one of <= >= < >, and a number, got"),
        ([0.8], "f: constraints[0]: must be a figure"),
        (["sparsty >= 0.8"], "f: constraints[0]: unknown figure, got 'sparsty'; did you mean 'sparsity'?"),
        (["sparsity >= most"], "f: constraints[0]: the bound must be a number, got 'most'"),
        (["macs <= x"], "f: constraints[0]: the bound must be a number, got 'x'"),
        (["macs <= 0.5 x"], "f: constraints[0]: must be a figure, one of <= >= < >, and a number, got"),
        (["macs <= infx"], "f: constraints[0]: the bound must be a number, got 'infx'"),
        (
            ["top1_drop <= 0.5x"],
            "f: constraints[0]: top1_drop is against the dense network already, got '0.5x'; leave the 'x' out",
        ),
        (["sparsity >= 2x"], "f: constraints[0]: a dense network has none, got '2x'"),
        (["sparsity >= nan"], "f: constraints[0]: the bound must be a number, got 'nan'"),
    ],
)
def test_each_fault_is_one_line(node: object, expected: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_constraints(node, "f: constraints", METRICS)
    assert str(caught.value).startswith(expected)
    assert "\n" not in str(caught.value)


def test_all_faults_together() -> None:
    with pytest.raises(ConfigError) as caught:
        parse_constraints(["sparsty >= 0.8", "macs ~ 3"], "f: constraints", METRICS)
    assert len(caught.value.faults) == 2


def test_the_drop_is_from_the_baseline(record: Make) -> None:
    baseline, trial = record(BASELINE, 0.70, 0.0), record("t0000", 0.69, 0.8)
    (half, two) = parse_constraints(["top1_drop <= 0.005", "top1_drop <= 0.02"], "c", METRICS)
    assert violations(trial, [half], baseline) == ("top1_drop 0.01, not <= 0.005",)
    assert violations(trial, [two], baseline) == ()
    assert violations(baseline, [half], baseline) == ()
    strict, sparse = parse_constraints(["top1_drop < 0", "sparsity >= 0.5"], "c", METRICS)
    assert violations(baseline, [strict, sparse], baseline) == ("top1_drop 0, not < 0", "sparsity 0, not >= 0.5")
    assert violations(trial, [half], None) == ("top1_drop is not known",)


def test_a_multiple_is_of_what_the_dense_network_has(record: Make) -> None:
    baseline, trial = (
        replace(one, last=replace(one.last, footprint={"macs": macs}))  # type: ignore[arg-type]
        for one, macs in ((record(BASELINE, 0.70, 0.0), 40e6), (record("t0000", 0.69, 0.8), 21e6))
    )
    half, more, quality = parse_constraints(["macs <= 0.5x", "macs <= 0.525x", "top1 >= 0.99x"], "c", METRICS)
    assert half.against(baseline) == Constraint("macs", "<=", 20e6)
    assert violations(trial, [half, more], baseline) == ("macs 2.1e+07, not <= 2e+07",)
    assert violations(trial, [quality], baseline) == ("top1 0.69, not >= 0.693",)
    assert violations(trial, [half], None) == ("macs of the dense network is not known",)


def test_a_figure_that_was_not_measured_breaks_its_bound(record: Make) -> None:
    trial = record("t0000", 0.69, 0.8)
    bounds = parse_constraints(["latency_ms <= 3"], "c", METRICS)
    assert violations(trial, bounds, None) == ("latency_ms is not known",)
    assert trial.last is not None
    measured = replace(trial, last=replace(trial.last, footprint={"latency_ms": 2.5}))
    assert violations(measured, bounds, None) == ()


def test_an_infeasible_trial_leaves_the_front_to_those_it_dominated(record: Make) -> None:
    records = [
        record(BASELINE, 0.70, 0.0),
        record("t0000", 0.60, 0.9),
        record("t0001", 0.695, 0.8),
        record("t0002", 0.69, 0.7),
    ]
    free = {row.record.trial_id: row for row in front_rows(records, OBJECTIVES)}
    assert {name for name, row in free.items() if row.pareto} == {BASELINE, "t0000", "t0001"}
    bounds = parse_constraints(["top1_drop <= 0.02", "sparsity <= 0.75"], "c", METRICS)
    bound = {row.record.trial_id: row for row in front_rows(records, OBJECTIVES, bounds)}
    assert {name for name, row in bound.items() if row.pareto} == {BASELINE, "t0002"}
    assert (bound["t0000"].rank, bound["t0001"].rank) == (-1, -1)
    assert bound["t0000"].violations == ("top1_drop 0.1, not <= 0.02", "sparsity 0.9, not <= 0.75")
    assert bound["t0001"].violations == ("sparsity 0.8, not <= 0.75",)


@pytest.mark.parametrize("bound", ["sparsity >= 0.95", "top1_drop < -0.01", "loss < 0.5", "latency_ms <= 3"])
def test_where_nothing_is_feasible_nothing_is_on_the_front(record: Make, bound: str) -> None:
    rows = front_rows(
        [record(BASELINE, 0.70, 0.0), record("t0000", 0.69, 0.8)], OBJECTIVES, parse_constraints([bound], "c", METRICS)
    )
    assert [(row.rank, row.pareto, row.knee) for row in rows] == [(-1, False, False)] * 2
    assert all(row.violations for row in rows)


def test_repeats_count_with_their_mean_and_are_no_points_themselves(record: Make) -> None:
    lucky, honest = record("t0000", 0.72, 0.8), record("t0001", 0.70, 0.8)
    repeats = [replace(record(f"t0000.s{i}", top1, 0.8), confirms="t0000") for i, top1 in ((1, 0.66), (2, 0.69))]
    alone = {row.record.trial_id: row for row in front_rows([lucky, honest], OBJECTIVES)}
    assert alone["t0000"].pareto
    assert not alone["t0001"].pareto
    rows = {row.record.trial_id: row for row in front_rows([lucky, honest, *repeats], OBJECTIVES)}
    assert set(rows) == {"t0000", "t0001"}
    assert rows["t0000"].values["top1"] == pytest.approx(0.69)  # (0.72 + 0.66 + 0.69) / 3
    assert [run.trial_id for run in rows["t0000"].runs] == ["t0000", "t0000.s1", "t0000.s2"]
    assert not rows["t0000"].pareto
    assert rows["t0001"].pareto


def test_a_metric_that_is_better_small_has_a_rise(record: Make) -> None:
    """loss_rise: the trial's minus the dense baseline's; a drop is the other way round."""
    bounds = parse_constraints(["loss_rise <= 0.2"], "c", METRICS)
    dense = record(BASELINE, 0.7, 0.0, loss=1.0)
    assert violations(record("t0000", 0.7, 0.5, loss=1.1), bounds, dense) == ()
    assert violations(record("t0001", 0.7, 0.5, loss=1.3), bounds, dense) == ("loss_rise 0.3, not <= 0.2",)
    assert violations(record("t0001", 0.7, 0.5, loss=1.3), bounds, None) == ("loss_rise is not known",)
    with pytest.raises(ConfigError, match="unknown figure, got 'loss_drop'"):
        parse_constraints(["loss_drop <= 0.2"], "c", METRICS)


def test_another_tasks_metrics_are_known_by_their_names() -> None:
    perplexity = {"perplexity": Metric("min"), "loss": Metric("min")}
    (bound,) = parse_constraints(["perplexity_rise < 3"], "c", perplexity)
    assert bound == Constraint("perplexity_rise", "<", 3.0)
    with pytest.raises(ConfigError, match="unknown figure, got 'top1_drop'"):
        parse_constraints(["top1_drop <= 0.2"], "c", perplexity)
