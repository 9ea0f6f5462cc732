"""Records read back as they were written, those of before there were tasks too."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest

from raydistill.records import EpochMetrics, Evaluation, TrialRecord

EPOCH = EpochMetrics(
    1, 4, 1.5, {"bits_per_byte": 2.5, "loss": 1.7}, 0.1, 0.3, {"fc.weight": 0.6}, 1e3, 0.5, 1_000, "c.pt", {"macs": 7.0}
)
FORMER = {
    "epoch": 1, "epochs": 4, "train_loss": 1.5, "loss": 1.0, "top1": 0.5, "top5": 0.9, "learning_rate": 0.1,
    "sparsity": 0.3, "layer_sparsity": {"fc.weight": 0.6}, "images_per_second": 1e3, "seconds": 0.5,
    "timestamp_ms": 1_000, "checkpoint": "c.pt", "exits": {"exit0/top1": 0.4}, "figures": {"macs": 7.0},
}  # fmt: skip
FORMER_TEST = {"split": "test", "top1": 0.5, "top5": 0.9, "loss": 1.0, "images": 360, "exits": {"exit0/taken": 0.2}}


def test_a_trial_of_any_task_survives_json() -> None:
    test = Evaluation("test", {"bits_per_byte": 2.6, "loss": 1.8}, 360)
    record = TrialRecord("t0000", {"training.lr": 0.1}, "finished", "net", "text", 3, last=EPOCH, test=test)
    assert TrialRecord.from_json(json.loads(json.dumps(record.to_json()))) == record


def test_what_was_written_before_there_were_tasks_is_read_by_todays_names() -> None:
    epoch = EpochMetrics.from_json(FORMER)
    assert epoch.metrics == {"top1": 0.5, "top5": 0.9, "loss": 1.0, "exit0/top1": 0.4}
    assert next(iter(epoch.metrics)) == "top1", "the one that selects is the first"
    assert (epoch.samples_per_second, epoch.footprint, epoch.sparsity) == (1e3, {"macs": 7.0}, 0.3)
    evaluation = Evaluation.from_json(FORMER_TEST)
    assert evaluation == Evaluation("test", {"top1": 0.5, "top5": 0.9, "loss": 1.0, "exit0/taken": 0.2}, 360)
    record = {"trial_id": "t0000", "values": {}, "state": "finished", "arch": "a", "dataset": "d", "seed": 0}
    read = TrialRecord.from_json({**record, "last": FORMER, "test": FORMER_TEST})
    assert (read.last, read.test) == (epoch, evaluation)


@pytest.mark.parametrize("lacking", ["top1", "loss"])
def test_a_record_that_lacks_its_metrics_is_none(lacking: str) -> None:
    with pytest.raises(KeyError):
        EpochMetrics.from_json({key: value for key, value in FORMER.items() if key != lacking})


def test_a_figure_is_found_by_its_name_wherever_it_stands() -> None:
    found = [EPOCH.value(name) for name in ("bits_per_byte", "train_loss", "learning_rate", "sparsity", "macs")]
    assert found == [2.5, 1.5, 0.1, 0.3, 7.0]
    assert all(math.isnan(EPOCH.value(name)) for name in ("latency_ms", "epoch"))


def test_figures_of_a_split_are_named_by_it() -> None:
    assert Evaluation("test", {"top1": 0.5}, 3).named_by_split == {"test_top1": 0.5}


def test_a_loss_that_nobody_said_is_absent_and_no_number_stands_for_it() -> None:
    unsaid = replace(EPOCH, train_loss=None)
    assert EpochMetrics.from_json(json.loads(json.dumps(unsaid.to_json()))) == unsaid
    assert list(unsaid.scalars) == ["bits_per_byte", "loss", "learning_rate", "sparsity"]
    assert math.isnan(unsaid.value("train_loss"))
