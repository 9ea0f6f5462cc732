"""Lottery tickets: rounds of pruning, and how much is left after each."""

from __future__ import annotations

import pytest
import torch

from raydistill.compression.pruners.lottery import LotteryTicketPruner
from raydistill.compression.rates import PolicyTime
from raydistill.errors import ConfigError


def test_each_round_takes_its_share_of_what_is_left() -> None:
    pruner = LotteryTicketPruner("p", ["w"], fraction=0.2)
    weight = torch.arange(1.0, 1001.0).reshape(25, 40)
    left = 1000.0
    for number, epoch in enumerate((10, 30, 50, 70)):
        when = PolicyTime(epoch, 10, 90, 20)
        assert pruner.round(when) == number
        kept = int(pruner.mask("w", weight, when).sum())
        assert kept == pytest.approx(left, abs=1)
        left *= 0.8


@pytest.mark.parametrize("fraction", [0.0, 1.0, -0.5, "x"])
def test_a_round_has_to_take_something_and_leave_something(fraction: float) -> None:
    with pytest.raises(ConfigError, match=r"^fraction"):
        LotteryTicketPruner("p", ["w"], fraction)
