"""Two networks side by side; how passes are timed is tests/training/test_latency.py's."""

from __future__ import annotations

import pytest

from raydistill.export import latency
from raydistill.export.latency import DENSE, THIS, batch_that_helps, side_by_side
from tests.training.test_latency import Clock


def test_both_are_timed_in_one_run(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    row = side_by_side({DENSE: lambda: clock.takes(0.004), THIS: lambda: clock.takes(0.002)}, "torch", 3, 8)
    assert row.speedup == pytest.approx(2.0)
    assert (row.runtime, row.device, row.batch, row.threads, row.busy) == ("torch", "cpu", 8, 3, False)
    assert side_by_side({THIS: lambda: clock.takes(0.002)}, "torch", 1, 1).speedup is None
    clock = Clock(monkeypatch, others=4.0)
    assert side_by_side({THIS: lambda: clock.takes(0.001)}, "torch", 1, 1).busy


@pytest.mark.parametrize(("fixed", "each", "best"), [(0.0, 1e-3, 1), (7e-3, 1e-3, 64), (1.0, 1e-6, 256)])
def test_the_batch_that_helps(monkeypatch: pytest.MonkeyPatch, fixed: float, each: float, best: int) -> None:
    """A pass costs something by itself, and something for each sample: doubling helps while the first is felt."""
    clock = Clock(monkeypatch)
    monkeypatch.setattr(latency, "_MOST_S", 1e9)
    assert batch_that_helps(lambda rows: clock.takes(fixed + rows * each), 1) == best
