"""A user's own figure of the network in a sweep file: an objective, a bound, an axis of the front."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from raydistill.cluster.modules import named_in
from raydistill.errors import ConfigError
from raydistill.records import FINISHED, EpochMetrics, TrialRecord
from raydistill.search import front_rows
from raydistill.search.decisions import by_objectives
from raydistill.sweep.file.load import load_sweep
from raydistill.sweep.planning.plan import check_plan
from raydistill.tracking.figures import draw_front, front_table
from raydistill.tracking.front_page import front_html, page_data

OWN = "tests.training.own:"
ENERGY = f"{OWN}ENERGY"
BOTH = {"top1": "max", ENERGY: "min"}


def record(trial_id: str, top1: float, energy: float) -> TrialRecord:
    last = EpochMetrics(
        epoch=3, epochs=4, train_loss=1.0, metrics={"top1": top1, "top5": 1.0, "loss": 1.0}, learning_rate=0.1,
        sparsity=0.5, layer_sparsity={}, samples_per_second=1.0, seconds=1.0, timestamp_ms=0,
        footprint={"macs": 9.0, "energy_nj": energy},
    )  # fmt: skip
    return TrialRecord(trial_id, {}, FINISHED, "simplenet_cifar", "digits", 0, epochs=4, last=last)


RECORDS = [record("t0000", 0.9, 30.0), record("t0001", 0.8, 10.0), record("t0002", 0.7, 20.0)]


def test_it_is_an_objective_by_its_short_name(write_sweep: Callable[..., Path]) -> None:
    sweep = load_sweep(write_sweep(("objectives", BOTH), ("constraints", ["energy_nj <= 25", "macs <= 10"])))
    assert [(o.name, o.direction, o.of_network) for o in sweep.objectives] == [
        ("top1", "max", False),
        ("energy_nj", "min", True),
    ]
    assert sweep.own_figures == (ENERGY,)
    assert sweep.config()["objectives"] == BOTH
    rows = front_rows(RECORDS, sweep.objectives, sweep.constraints)
    assert {row.record.trial_id: (row.pareto, row.violations) for row in rows} == {
        "t0000": (False, ("energy_nj 30, not <= 25",)),
        "t0001": (True, ()),
        "t0002": (False, ()),
    }
    check_plan(sweep)


def test_it_may_be_bounded_and_nothing_else(write_sweep: Callable[..., Path]) -> None:
    sweep = load_sweep(write_sweep(("constraints", [f"{ENERGY} <= 25"])))
    assert sweep.own_figures == (ENERGY,)
    assert [o.name for o in sweep.objectives] == ["top1", "sparsity"]
    rows = front_rows(RECORDS, sweep.objectives, sweep.constraints)
    assert [row.violations for row in rows if row.record.trial_id == "t0000"] == [("energy_nj 30, not <= 25",)]
    assert named_in(sweep.config()) == {"tests"}


def test_its_module_is_sent_to_the_nodes_of_a_cluster() -> None:
    assert named_in({"objectives": {"one.mod:A": "min"}, "constraints": ["two:B <= 3", "top1_drop<=1"]}) == {
        "one",
        "two",
    }


def test_rungs_compare_the_planned_sparsity_in_its_place(write_sweep: Callable[..., Path]) -> None:
    measure = by_objectives(load_sweep(write_sweep(("objectives", BOTH))).objectives)
    assert measure({"top1": 0.5, "planned_sparsity": 0.75}) == (0.5, 0.75)


@pytest.mark.slow
def test_table_and_pictures_know_it(write_sweep: Callable[..., Path], tmp_path: Path) -> None:
    sweep = load_sweep(write_sweep(("objectives", {**BOTH, "sparsity": "max"})))
    rows = front_rows(RECORDS, sweep.objectives)
    assert list(front_table(rows, sweep.metrics).sort_values("trial_id")["energy_nj"]) == [30.0, 10.0, 20.0]
    figure = draw_front(rows, sweep.objectives, sweep.metrics, "title")
    assert figure.axes[0].get_xlabel() == "energy of reading the weights in nJ"
    front_html(rows, sweep.objectives, sweep.metrics, tmp_path / "front.html", "title")
    assert "energy of reading the weights in nJ" in (tmp_path / "front.html").read_text()
    data = page_data(rows, sweep.objectives, sweep.metrics, "title", "name")
    assert "energy_nj: 30" in data["rows"][0]["lines"]
    nameless = [replace(o, metric=replace(o.metric, label="")) if o.metric else o for o in sweep.objectives]
    assert draw_front(rows, nameless, sweep.metrics, "title").axes[0].get_xlabel() == "energy_nj"


@pytest.mark.parametrize(
    ("path", "said", "says"),
    [
        ("objectives", {f"{OWN}ENERGIES": "min"}, "objectives.tests.training.own:ENERGIES: module"),
        ("objectives", {f"{OWN}of_reading": "min"}, "of_reading: is not a NetworkFigure"),
        ("objectives", {"os:system": "min"}, "objectives.os:system: is not a NetworkFigure"),
        ("objectives", {f"{OWN}TAKEN": "min"}, "TAKEN' has a name that is taken, got 'macs'"),
        ("objectives", {f"{OWN}TAKEN_BY_THE_TASK": "min"}, "has a name that is taken, got 'top1'"),
        ("objectives", {f"{OWN}SPELT": "min"}, "must have an identifier for its name, got 'energy in nJ'"),
        ("objectives", {f"{OWN}DROP": "min"}, "must have an identifier for its name, got 'energy_drop'"),
        ("objectives", {f"{OWN}NO_METRIC": "min"}, "must have a Metric and a function"),
        ("objectives", {ENERGY: "low"}, "unknown direction, got 'low'"),
        ("objectives", {ENERGY: "min", f"{OWN}TWIN": "min"}, "objectives: two figures are named 'energy_nj'"),
        ("constraints", [f"{OWN}ENERGIES <= 3"], "constraints[0]: module 'tests.training.own' has no such figure"),
        ("constraints", ["energy_nj <= 3"], "constraints[0]: unknown figure, got 'energy_nj'"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_a_line_when_the_file_is_read(
    write_sweep: Callable[..., Path], path: str, said: Any, says: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        load_sweep(write_sweep((path, said)))
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_one_that_fails_is_a_line_before_anything_is_trained(write_sweep: Callable[..., Path]) -> None:
    with pytest.raises(ConfigError) as caught:
        check_plan(load_sweep(write_sweep(("objectives", {"top1": "max", f"{OWN}FAILS": "min"}))))
    assert "space.yaml: figure fails: fails (ZeroDivisionError: division by zero)" in str(caught.value)
