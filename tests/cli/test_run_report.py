"""A run's lines on the console and beside its checkpoint."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console
from rich.table import Table

from raydistill.cli.run_report import RunReport, best_lines
from raydistill.errors import StorageError
from raydistill.metrics import Metric
from raydistill.records import EpochMetrics

METRICS = {"top1": Metric("max", "fraction"), "loss": Metric("min")}


def epoch(number: int) -> EpochMetrics:
    return EpochMetrics(number, 10, 1.5, {"top1": 0.7, "loss": 0.9}, 0.1, 0.25, {}, 1234.5, 1.0, 0)


def report(folder: Path) -> tuple[RunReport, io.StringIO]:
    text = io.StringIO()
    return RunReport(Console(file=text, width=80), folder, False, None, {}, METRICS), text


def test_what_is_said_stands_in_both_and_passwords_in_neither(tmp_path: Path) -> None:
    of, text = report(tmp_path / "run")
    with of:
        of.say("reads https://me:secretword@host/x")
        of.warn("look out")
        of.epoch(epoch(2))
        of.epoch(replace(epoch(3), train_loss=None, samples_per_second=0.0))
        table = Table()
        table.add_column("a column")
        of.say(table)
        of.finished()
    lines = (tmp_path / "run" / "run.log").read_text().splitlines()
    assert lines[0].startswith("--- 20")
    assert "\n".join(lines[1:]).strip() == text.getvalue().strip()
    assert "secretword" not in text.getvalue()
    assert "warning: look out" in lines
    assert "  3/10  loss 0.9000 (train 1.5000)  top1 70.00 %  sparsity 25.00 %  1,234/s" in lines
    assert "  4/10  loss 0.9000  top1 70.00 %  sparsity 25.00 %" in lines
    assert "a column" in text.getvalue()


def test_a_resumed_run_appends_and_keeps_its_identity(tmp_path: Path) -> None:
    for word in ("one", "two"):
        of, _ = report(tmp_path / "run")
        with of:
            of.say(word)
    assert [line for line in (tmp_path / "run" / "run.log").read_text().splitlines() if "---" not in line] == [
        "one",
        "two",
    ]
    other, _ = report(tmp_path / "other")
    assert of._identity() == of._identity() != other._identity()


def test_a_log_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    of, _ = report(tmp_path)
    (tmp_path / "run.log").mkdir()
    with pytest.raises(StorageError, match=r"run\.log: cannot be written \(Is a directory\)"):
        of.say("x")


def test_what_mlflow_cannot_have_is_one_line(tmp_path: Path) -> None:
    of, text = report(tmp_path / "run")
    with of:
        assert of._delivered(tmp_path / "no.pt", "net", None) is None  # type: ignore[arg-type]
    assert text.getvalue().count("warning: ") == 1
    assert "warning: the run's model is not in MLflow: " in text.getvalue()


def test_the_best_epochs_count_from_one() -> None:
    assert best_lines([epoch(7), epoch(0)], METRICS) == [
        "best 1: epoch 8, sparsity 25.00 %, top1 70.00 %",
        "best 2: epoch 1, sparsity 25.00 %, top1 70.00 %",
    ]
