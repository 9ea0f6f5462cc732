from __future__ import annotations

import csv
from pathlib import Path

import pytest
import torch

from raydistill.analysis.confusion import write_confusion
from raydistill.analysis.network import Network
from raydistill.errors import ConfigError
from raydistill.tasks import Loading
from raydistill.tasks.classification import Classification
from raydistill.tasks.classification.feed import EvalFeed
from tests.tasks.own import Line

pytestmark = pytest.mark.slow


def test_every_test_image_is_counted_where_the_network_puts_it(
    network: Network, task: Classification, loading: Loading, tmp_path: Path
) -> None:
    write_confusion(network, task, loading, tmp_path / "confusion.csv")
    by_hand = torch.zeros(10, 10, dtype=torch.int64)
    with torch.no_grad():
        for images, labels in EvalFeed(task.dataset, "test", 7, "cpu"):
            for label, answer in zip(labels.tolist(), network.model(images).argmax(1).tolist(), strict=True):
                by_hand[label, answer] += 1
    with (tmp_path / "confusion.csv").open() as file:
        rows = {row["actual"]: row for row in csv.DictReader(file)}
    assert [[int(rows[str(i)][str(j)]) for j in range(10)] for i in range(10)] == by_hand.tolist()
    assert (tmp_path / "confusion.png").read_bytes().startswith(b"\x89PNG")


def test_a_task_without_classes_has_none(network: Network, loading: Loading, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="confusion: is for a task with classes, got 'points on a line'"):
        write_confusion(network, Line(), loading, tmp_path / "c.csv")
    assert not list(tmp_path.iterdir())
