from __future__ import annotations

import random

import numpy as np
import torch
from torch.utils.data import DataLoader

from raydistill.datasets.chance import Chance, begin
from tests.datasets.own_sources import Pictures, nested


def draw() -> tuple[float, float, float]:
    return float(torch.rand(())), float(np.random.rand()), random.random()


def test_each_side_goes_on_where_it_was() -> None:
    torch.manual_seed(1)
    np.random.seed(1)
    random.seed(1)
    expected = [draw() for _ in range(4)]
    torch.manual_seed(1)
    np.random.seed(1)
    random.seed(1)
    chance, found, own = Chance(3), [], []
    for _ in range(4):
        found.append(draw())
        with chance:
            own.append(draw())
    assert found == expected
    with Chance(3):
        assert [draw() for _ in range(4)] == own
    with Chance(4):
        assert all(one != other for one, other in zip(draw(), own[0], strict=True))
    assert len(set(own)) == 4


def test_a_loaders_own_generator_and_set_epoch_are_told_the_epoch() -> None:
    class Told(Pictures):
        def set_epoch(self, epoch: int) -> None:
            self.told = epoch

    source = Told(0, 30)
    loader = DataLoader(source, 5, shuffle=True, collate_fn=nested, generator=torch.Generator())

    def order(seed: int) -> list[list[int]]:
        begin(loader, seed, seed)
        return [batch["more"]["label"].tolist() for batch in loader]

    assert order(1) == order(1) != order(2)
    assert source.told == 2
