from __future__ import annotations

from collections.abc import Callable

import pytest

from raydistill.records import FINISHED, EpochMetrics, TrialRecord


@pytest.fixture
def record() -> Callable[..., TrialRecord]:
    """A trial that has trained one epoch: record("t0001", top1, sparsity, state=...)."""

    def make(trial_id: str, top1: float, sparsity: float, state: str = FINISHED, loss: float = 1.0) -> TrialRecord:
        last = EpochMetrics(
            epoch=4, epochs=5, train_loss=1.1, metrics={"top1": top1, "top5": min(1.0, top1 + 0.2), "loss": loss},
            learning_rate=0.1,
            sparsity=sparsity, layer_sparsity={"fc.weight": sparsity}, samples_per_second=100.0, seconds=1.0,
            timestamp_ms=1_700_000_000_000,
        )  # fmt: skip
        return TrialRecord(trial_id, {}, state, "simplenet_cifar", "digits", seed=0, epochs=5, last=last)

    return make
