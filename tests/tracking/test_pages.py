"""The note of the parent run and the view of the front, as MLflow's interface reads them."""

from __future__ import annotations

import json

from raydistill.metrics import Metric
from raydistill.search import Objective, front_rows
from raydistill.tracking.pages import first_charts, front_page, note, view, view_key
from tests.search.test_pick import METRICS, OBJECTIVES, RECORDS

ROWS = front_rows(list(RECORDS.values()), OBJECTIVES, ())


def test_the_view_shows_the_front_alone_with_what_was_optimised() -> None:
    own = Objective("energy used", "min", "my:E", Metric("min"))
    state = json.loads(view("abc", (*OBJECTIVES, own), METRICS))
    assert state["searchFilter"] == "tags.pareto = 'true' and tags.`raydistill.sweep_id` = 'abc'"
    assert state["selectedColumns"] == [
        "attributes.`Models`", "metrics.`top1`", "metrics.`sparsity`", "metrics.`energy used`", "metrics.`test_top1`",
        "tags.`knee`",
    ]  # fmt: skip


def test_the_first_charts_are_of_what_selects_and_of_sparsity() -> None:
    """MLflow's page puts charts with a prefix first; a lone layer's or a file's size would stand there otherwise."""
    last = RECORDS["t0001"].last
    assert last is not None
    assert first_charts(last) == {"epoch by epoch/top1": 0.899, "epoch by epoch/sparsity": 0.7}


def test_the_address_opens_the_mode_for_training() -> None:
    key = view_key("0123456789abcdef")
    expected = f"/#/experiments/7/runs?workflowType=machine_learning&viewStateShareKey={key}"
    assert front_page("sqlite:///a.db", "7", "0123456789abcdef") == f"http://127.0.0.1:5000{expected}"
    assert front_page("https://host:8/", "7", "0123456789abcdef") == f"https://host:8{expected}"
    with_password = front_page("https://me:secret@host/mlflow/", "7", "0123456789abcdef")
    assert with_password == f"https://host/mlflow{expected}"


def test_the_note() -> None:
    about = {"search.fc1.sparsity": "uniform 0 to 1", "seed": 3}
    text = note("tiny", about, ROWS, OBJECTIVES, METRICS, lambda trial_id: f"#/runs/{trial_id}", "tiny")
    lines = text.splitlines()
    assert lines[0] == "**tiny**: top1 max, sparsity max"
    assert "- `fc1.sparsity`: uniform 0 to 1" in lines
    assert "seed" not in text
    assert "| trial | top1 (validation) | sparsity | top1 (test) |  |" in lines
    assert "| [t0002](#/runs/t0002) | 89.00 % | 90.00 % |  | knee |" in lines
    assert '    mlflow.pyfunc.load_model("models:/tiny@pareto-knee")' in lines
    assert "    mlflow models serve -m models:/tiny@pareto-knee --env-manager local" in lines
    assert "load_model" not in note("tiny", about, ROWS, OBJECTIVES, METRICS, str, "")


def test_a_long_one_stays_short() -> None:
    about = {f"search.layer{number}": "x" for number in range(200)}
    text = note("tiny", about, ROWS, OBJECTIVES, METRICS, str, "tiny")
    assert "- and 180 more" in text
    assert len(text) < 8000
