"""Seeds, threads and deterministic mode, and that they are put back."""

from __future__ import annotations

import os
import random

import numpy as np
import pytest
import torch

from raydistill.training.determinism import epoch_seed, seed_everything, training_environment


def drawn() -> tuple[float, float, float]:
    return float(torch.rand(1)), float(np.random.rand()), random.random()


def test_all_three_states_are_seeded() -> None:
    before = torch.get_rng_state(), np.random.get_state(), random.getstate()
    try:
        seed_everything(7)
        first = drawn()
        drawn()
        seed_everything(7)
        assert drawn() == first
        seed_everything(8)
        assert not set(drawn()) & set(first)
        seed_everything(2**40)  # numpy takes no more than 32 bits
    finally:
        torch.set_rng_state(before[0])
        np.random.set_state(before[1])
        random.setstate(before[2])


def test_each_rank_has_a_seed_of_its_own_in_each_epoch() -> None:
    seeds = {epoch_seed(seed, epoch, rank) for seed in range(3) for epoch in range(4) for rank in range(5)}
    assert len(seeds) == 3 * 4 * 5
    assert all(0 <= seed < 2**63 for seed in seeds), "as torch takes them"
    assert epoch_seed(1, 2, 3) == epoch_seed(1, 2, 3)


@pytest.mark.parametrize("deterministic", [True, False])
def test_what_a_run_sets_is_put_back_whatever_ends_it(monkeypatch: pytest.MonkeyPatch, deterministic: bool) -> None:
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)

    def now() -> tuple[object, ...]:
        cudnn = torch.backends.cudnn
        return (
            torch.get_num_threads(), torch.are_deterministic_algorithms_enabled(), cudnn.benchmark, cudnn.deterministic
        )  # fmt: skip

    def fails(threads: int) -> tuple[object, ...]:
        with training_environment(threads, deterministic):
            seen.append(now())
            raise ZeroDivisionError

    before, seen = now(), []
    with pytest.raises(ZeroDivisionError):
        fails(torch.get_num_threads() + 1)
    (inside,) = seen
    assert inside[:3] == (torch.get_num_threads() + 1, deterministic or before[1], not deterministic)
    assert not deterministic or (inside[3] and os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8")
    assert now() == before
    with training_environment(None, False):
        assert torch.get_num_threads() == before[0]
