from __future__ import annotations

import random

import numpy as np
import torch

from raydistill.training.determinism import seed_everything
from raydistill.training.packing.chance import Chance


def drawn() -> tuple[float, float, float]:
    return float(torch.rand(())), float(np.random.rand()), random.random()


def test_runs_that_take_turns_draw_what_each_would_by_itself() -> None:
    expected = {}
    for seed in (1, 2):
        seed_everything(seed)
        expected[seed] = [drawn() for _ in range(3)]
    chances = {}
    for seed in (1, 2):
        seed_everything(seed)
        chances[seed] = Chance()
    seed_everything(3)
    outside = drawn()
    found: dict[int, list[tuple[float, float, float]]] = {1: [], 2: []}
    seed_everything(3)
    for seed in (1, 2, 2, 1, 1, 2):
        with chances[seed].in_force():
            found[seed].append(drawn())
    assert found == expected
    assert drawn() == outside
