from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from raydistill.compression.ranks import Ranks
from raydistill.errors import ConfigError
from raydistill.tasks import Feed, Loading
from raydistill.tasks.feeds import Kept, ListFeed, TensorFeed, batch_bounds

CPU = torch.device("cpu")
NUMBERS = torch.arange(23)


def of_tensors(loading: Loading, split: str = "validation") -> Feed:
    return TensorFeed((NUMBERS, NUMBERS * 2), split, loading)


def of_lists(loading: Loading) -> Feed:
    def make(epoch: int) -> list[dict[str, object]]:
        return [
            {"x": [NUMBERS[a:b], (2 * NUMBERS[a:b],)], "scale": torch.tensor(epoch), "name": "batch"}
            for a, b in batch_bounds(23, loading.batch_size)
        ]

    return ListFeed(make, loading)


@pytest.mark.parametrize("make", [of_tensors, of_lists])
@pytest.mark.parametrize("world", [1, 2, 3])
def test_ranks_share_each_batch_and_together_see_every_row_once(make: Callable[..., Feed], world: int) -> None:
    seen: list[int] = []
    whole = make(Loading(CPU, 8))
    for rank in range(world):
        feed = make(Loading(CPU, 8, ranks=Ranks(rank, world)))
        assert feed.batches == whole.batches == 3
        for index, batch in enumerate(feed.epoch(0)):
            first = batch[0] if isinstance(batch, tuple) else batch["x"][0]
            second = batch[1] if isinstance(batch, tuple) else batch["x"][1][0]
            own, of_all = feed.rows(index)
            assert torch.equal(second, 2 * first)
            assert (len(first), of_all) == (max(1, own), (8, 8, 7)[index])
            seen += first[:own].tolist()
    assert sorted(seen) == list(range(23))


def test_the_train_split_is_shuffled_by_seed_and_epoch_and_others_are_not() -> None:
    def order(split: str, seed: int, epoch: int) -> list[int]:
        feed = of_tensors(Loading(CPU, 8, seed), split)
        return [value for batch in feed.epoch(epoch) for value in batch[0].tolist()]

    assert order("validation", 0, 0) == order("validation", 3, 5) == list(range(23))
    assert sorted(order("train", 0, 0)) == list(range(23))
    assert order("train", 0, 0) == order("train", 0, 0)
    assert len({tuple(order("train", seed, epoch)) for seed in (0, 1) for epoch in (0, 1)}) == 4


def test_a_fraction_takes_other_rows_in_each_epoch_of_train_and_the_same_of_others() -> None:
    def rows(split: str, epoch: int) -> list[int]:
        feed = of_tensors(Loading(CPU, 4, fraction=0.4), split)
        assert feed.samples == 9
        return [value for batch in feed.epoch(epoch) for value in batch[0].tolist()]

    assert rows("validation", 0) == rows("validation", 1) == sorted(rows("validation", 0))
    assert len(set(rows("validation", 0))) == 9
    assert set(rows("train", 0)) != set(rows("train", 1))


def test_a_last_single_row_joins_the_batch_before() -> None:
    assert batch_bounds(9, 4) == [(0, 4), (4, 9)]
    assert batch_bounds(10, 4) == [(0, 4), (4, 8), (8, 10)]
    assert batch_bounds(1, 4) == [(0, 1)]
    assert batch_bounds(3, 1) == [(0, 1), (1, 2), (2, 3)]


def test_what_is_kept_is_made_once() -> None:
    made: list[int] = []

    def make(epoch: int) -> list[tuple[torch.Tensor]]:
        made.append(epoch)
        return [(NUMBERS[:3],)]

    feed = Kept(ListFeed(make, Loading(CPU, 3)))
    before = len(made)
    assert [batch[0].tolist() for _ in range(3) for batch in feed.epoch(0)] == [[0, 1, 2]] * 3
    assert (len(made), feed.samples, feed.batches, feed.rows(0)) == (before, 3, 1, (3, 3))


@pytest.mark.parametrize("tensors", [(torch.zeros(3), torch.zeros(4)), (torch.zeros(0),)])
def test_tensors_of_other_lengths_or_none_are_refused(tensors: tuple[torch.Tensor, ...]) -> None:
    with pytest.raises(ConfigError, match=r"split train: must have tensors of one length"):
        TensorFeed(tensors, "train", Loading(CPU, 3))


@pytest.mark.parametrize("fraction", [0.0, 1.5, True, "all"])
def test_a_fraction_that_is_none_is_refused(fraction: float) -> None:
    with pytest.raises(ConfigError, match=r"training.effective_test_size: must be a fraction"):
        TensorFeed((NUMBERS,), "test", Loading(CPU, 3, fraction=fraction))
