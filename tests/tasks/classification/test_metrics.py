"""What classification is judged by: the names that its evaluation gives, the first of which selects."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from raydistill.metrics import selecting
from raydistill.tasks.classification.evaluate import evaluate
from raydistill.tasks.classification.metrics import METRICS
from raydistill.tasks.classification.multi_label import METRICS as SEVERAL


class Sure(nn.Module):
    """Says the class that its input is, and is the surer the larger `strength` is."""

    def __init__(self, strength: float) -> None:
        super().__init__()
        self.strength = strength

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        return self.strength * rows


def test_an_evaluation_gives_these_and_a_better_network_is_better_in_all_of_them() -> None:
    rows = torch.eye(8)
    batches = [(rows, torch.arange(8))]
    wrong, right = (evaluate(Sure(s), batches, "validation", torch.device("cpu")).metrics for s in (-3.0, 3.0))
    assert list(right) == list(METRICS)
    for name, metric in METRICS.items():
        better = right[name] > wrong[name] if metric.maximise else right[name] < wrong[name]
        assert better, name
        assert (0 <= wrong[name] <= right[name] <= 1) or not metric.is_fraction


@pytest.mark.parametrize(("metrics", "first"), [(METRICS, "top1"), (SEVERAL, "map")])
def test_the_first_selects(metrics: dict, first: str) -> None:
    assert selecting(metrics) == first
    assert metrics["loss"].direction == "min"
