"""What classification is judged by, on a split: the first selects."""

from __future__ import annotations

from collections.abc import Mapping

from raydistill.metrics import FRACTION, LOSS, MAX, MIN, Metric

TOP1, TOP5 = "top1", "top5"
METRICS: Mapping[str, Metric] = {
    TOP1: Metric(MAX, FRACTION),
    TOP5: Metric(MAX, FRACTION),
    LOSS: Metric(MIN),
}
