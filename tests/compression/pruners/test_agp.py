"""Automated gradual pruning."""

from __future__ import annotations

import pytest
import torch

from raydistill.compression.pruners.agp import AutomatedGradualPruner
from raydistill.compression.rates import PolicyTime


def test_every_weight_follows_the_papers_curve_and_loses_its_smallest() -> None:
    pruner = AutomatedGradualPruner("p", 0.1, 0.7, ["a", "b"])
    weights = {"a": torch.arange(1.0, 101.0).reshape(10, 10), "b": -torch.arange(200.0, 0.0, -1.0).reshape(20, 10)}
    for epoch in range(0, 12, 2):  # by eq. 1, whose last epoch is 10
        when = PolicyTime(epoch, 0, 12, 2)
        level = 0.7 + (0.1 - 0.7) * (1 - epoch / 10) ** 3
        for name, weight in weights.items():
            mask = pruner.mask(name, weight, when)
            gone = int((mask == 0).sum())
            assert gone == pytest.approx(level * weight.numel(), abs=1)
            assert weight.abs()[mask == 0].max() <= weight.abs()[mask == 1].min()
    assert (pruner.initial_sparsity, pruner.final_sparsity) == (0.1, 0.7)
