"""What a run's pruners calibrate on."""

from __future__ import annotations

from pathlib import Path

import torch

from raydistill import tasks
from raydistill.datasets import DatasetConfig
from raydistill.tasks import TRAIN, Loading, TaskConfig, Weights
from raydistill.training import RunConfig
from raydistill.training.calibration import calibration_of
from tests.tasks.language_model.texts import folder_of


def test_it_is_the_training_data_of_the_first_epoch_again_and_again(tmp_path: Path) -> None:
    data = DatasetConfig(data_dir=str(folder_of(tmp_path)))
    said = TaskConfig("language_model", {"tokens": "bytes", "bptt": 8})
    task = tasks.load(said, data, Weights("decoder_lm"))
    config = RunConfig("decoder_lm", data, task=said, batch_size=4, seed=3)
    batches = calibration_of(task, config, torch.device("cpu"))
    first, again = ([inputs[0] for inputs in batches()] for _ in range(2))
    feed = task.feed(TRAIN, Loading(torch.device("cpu"), 4, 3)).epoch(0)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert all(torch.equal(a, b.tokens) for a, b in zip(first, feed, strict=True))
