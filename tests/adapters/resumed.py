"""What a trainer as a trial must hold, whichever it is: stopped after any epoch it goes on bit for bit."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import torch

from raydistill.records import EpochMetrics
from raydistill.training import RunConfig, fit, read_checkpoint


def assert_goes_on_bit_for_bit(run: Callable[[Path], RunConfig], folder: Path) -> list[EpochMetrics]:
    """run: of four epochs, in a folder. Returns the epochs of the one that nobody stopped."""
    before = threading.active_count()
    whole = list(fit(run(folder / "whole")))
    found = []
    for _ in range(4):
        part = fit(run(folder / "parts"))
        found.append(next(part))
        part.close()
    assert [epoch.epoch for epoch in found] == [0, 1, 2, 3]
    assert [epoch.metrics for epoch in found] == [epoch.metrics for epoch in whole]
    one, other = (read_checkpoint(folder / name / "checkpoint.pt")["model"] for name in ("whole", "parts"))
    assert all(torch.equal(value, other[name]) for name, value in one.items())
    assert threading.active_count() == before
    return whole
