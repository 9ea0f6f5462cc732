from __future__ import annotations

from pathlib import Path

import pytest

from raydistill.metrics import Metric
from raydistill.records import EpochMetrics
from raydistill.training.best import BestEpochs

TOP1, LOSS = {"top1": Metric("max"), "loss": Metric("min")}, {"loss": Metric("min")}


def epoch(number: int, sparsity: float, **metrics: float) -> EpochMetrics:
    return EpochMetrics(number, 9, 1.0, metrics, 0.1, sparsity, {}, 1.0, 1.0, 0)


def test_sparsity_goes_before_the_metric_and_the_metric_before_nothing() -> None:
    best = BestEpochs(2, [epoch(0, 0.0, top1=0.9, loss=1.0)], TOP1)
    assert best.add(epoch(1, 0.5, top1=0.6, loss=1.0))
    assert not best.add(epoch(2, 0.5, top1=0.5, loss=1.0))
    assert best.add(epoch(3, 0.5, top1=0.7, loss=1.0))
    assert [found.epoch for found in best.best()] == [3, 1]


@pytest.mark.parametrize(("metrics", "winner"), [(TOP1, 1), (LOSS, 0)])
def test_better_is_what_the_metric_says(metrics: dict[str, Metric], winner: int) -> None:
    best = BestEpochs(1, [epoch(0, 0.5, top1=0.5, loss=0.5), epoch(1, 0.5, top1=0.6, loss=0.9)], metrics)
    assert best.best()[0].epoch == winner


def test_the_best_ones_checkpoint_is_copied(tmp_path: Path) -> None:
    best, checkpoint = BestEpochs(1, [], TOP1), tmp_path / "checkpoint.pt"
    for number, (sparsity, top1) in enumerate([(0.2, 0.5), (0.5, 0.4), (0.5, 0.3)]):
        checkpoint.write_bytes(bytes([number]))
        best.keep(epoch(number, sparsity, top1=top1, loss=1.0), checkpoint)
    assert (tmp_path / "best.pt").read_bytes() == bytes([1])
