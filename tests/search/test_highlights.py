"""Members that have a name, and how far a sweep has come: by hand."""

from __future__ import annotations

import pytest

from raydistill.metrics import Metric
from raydistill.records import BASELINE
from raydistill.search import Objective, front_rows
from raydistill.search.constraints import Constraint
from raydistill.search.highlights import members, names, progress
from tests.search.test_pick import METRICS, OBJECTIVES, RECORDS, record


def test_the_knee_and_the_best_of_each_objective() -> None:
    rows = front_rows(list(RECORDS.values()), OBJECTIVES, ())
    assert members(rows, OBJECTIVES) == {"knee": "t0002", "max-top1": "t0000", "max-sparsity": "t0003"}
    least = (*OBJECTIVES, Objective("macs", "min"))
    assert members(front_rows(list(RECORDS.values()), least, ()), least)["min-macs"] == "t0003"


def test_the_dense_network_is_none_of_them() -> None:
    dense = record(BASELINE, 0.95, 0.0, 100)
    rows = front_rows([dense, record("t0000", 0.9, 0.5, 80)], OBJECTIVES, ())
    assert members(rows, OBJECTIVES)["max-top1"] == "t0000"
    assert members(front_rows([dense], OBJECTIVES, ()), OBJECTIVES) == {}
    nothing = front_rows([dense, record("t0000", 0.9, 0.5, 80)], OBJECTIVES, (Constraint("sparsity", ">", 0.9),))
    assert members(nothing, OBJECTIVES) == {}


def test_progress() -> None:
    records = [
        record(BASELINE, 0.9, 0.0, 100), record("t0000", 0.8, 0.5, 50), record("t0001", 0.6, 0.85, 25),
        record("t0002", 0.5, 0.8, 50),
    ]  # fmt: skip
    found = progress(front_rows(records, OBJECTIVES, ()), OBJECTIVES, METRICS)
    assert found == pytest.approx(
        {
            "front_size": 2,
            "hypervolume": 0.5 * 0.8 + 0.35 * 0.6,
            "top1_drop_at_50": 0.1,
            "top1_drop_at_80": 0.3,
        }
    )
    macs = (Objective("top1", "max"), Objective("macs", "min"))
    found = progress(front_rows(records, macs, ()), macs, METRICS)
    # of dense 1.0, 0.5 and 0.25, held against 2: the areas of 0.6 and of what 0.8 and 0.9 add
    assert found["hypervolume"] == pytest.approx(1.75 * 0.6 + 1.5 * 0.2 + 1.0 * 0.1)


def test_a_metric_that_is_to_be_small() -> None:
    metrics = {"loss": Metric("min")}
    objectives = (Objective("loss", "min"),)
    rows = front_rows([record(BASELINE, 0.9, 0.0, 100), record("t0000", 0.8, 0.9, 50)], objectives, ())
    found = progress(rows, objectives, metrics)
    assert found["loss_rise_at_90"] == pytest.approx(0.1)


def test_before_there_is_a_dense_network() -> None:
    assert progress([], OBJECTIVES, METRICS) == {"front_size": 0.0}


def test_all_the_names_that_members_may_have() -> None:
    assert names((*OBJECTIVES, Objective("macs", "min"))) == ["knee", "max-top1", "max-sparsity", "min-macs"]


def test_no_hypervolume_where_there_is_no_front_or_dense_has_no_figure() -> None:
    dense, pruned = record(BASELINE, 0.9, 0.0, 100), record("t0000", 0.8, 0.5, 50)
    nothing = front_rows([dense, pruned], OBJECTIVES, (Constraint("sparsity", ">", 0.9),))
    assert progress(nothing, OBJECTIVES, METRICS) == pytest.approx({"front_size": 0.0, "top1_drop_at_50": 0.1})
    unknown = (Objective("top1", "max"), Objective("latency_ms", "min"))
    rows = front_rows([dense, pruned], unknown, ())
    assert progress(rows, unknown, METRICS) == pytest.approx({"front_size": 0.0, "top1_drop_at_50": 0.1})
    assert members(rows, unknown) == {}


def test_what_the_areas_sides_are_divided_by() -> None:
    """A fraction by 1, all else by the dense network's figure, whatever its sign; by 1 where that is nothing."""
    for dense, pruned, area in (
        (50.0, 60.0, 1.2),
        (0.5, 0.4, 0.5),
        (0.0, 0.4, 0.4),
        (1.0, 0.5, 1.0),
        (-50.0, 25.0, 0.5),
    ):
        rows = front_rows([record(BASELINE, dense, 0.0, 100), record("t0000", pruned, 0.0, 50)], OBJECTIVES[:1], ())
        assert progress(rows, OBJECTIVES[:1], METRICS)["hypervolume"] == pytest.approx(area)
    macs = (Objective("macs", "min"),)
    for dense, pruned, area in ((100, 25, 1.75), (1, 0.5, 1.5), (0.5, 0.25, 1.5), (0, 0.5, 2.0)):
        rows = front_rows([record(BASELINE, 0.9, 0.0, dense), record("t0000", 0.9, 0.0, pruned)], macs, ())
        assert progress(rows, macs, METRICS)["hypervolume"] == pytest.approx(area)


def test_a_level_counts_what_has_just_reached_it() -> None:
    dense = record(BASELINE, 0.9, 0.95, 100)  # it is no trial, however sparse
    rows = front_rows([dense, record("t0000", 0.8, 0.8, 50), record("t0001", 0.7, 0.79, 50)], OBJECTIVES, ())
    found = progress(rows, OBJECTIVES, METRICS)
    assert {name for name in found if "_at_" in name} == {"top1_drop_at_50", "top1_drop_at_80"}
    assert found["top1_drop_at_80"] == found["top1_drop_at_50"] == pytest.approx(0.1)
