"""Stretches of a text whose tokens are their own places, so that each shows where it came from."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from raydistill.compression.ranks import Ranks
from raydistill.errors import ConfigError, DataError
from raydistill.tasks import Loading
from raydistill.tasks.language_model.feed import Text, TextFeed

CPU = torch.device("cpu")


def feed(tokens: int, columns: int, split: str = "train", bptt: int = 5, first: bool = True, **how: Any) -> TextFeed:
    text = Text(np.arange(tokens, dtype=np.int32), 4.0, "text.txt")
    return TextFeed(text, split, Loading(CPU, 99, **how), columns, bptt, first)


def test_columns_go_on_where_they_ended_and_targets_are_the_tokens_behind() -> None:
    made = feed(50, 4)  # 49 tokens have one behind: 12 a column
    batches = list(made.epoch(0))
    assert (made.samples, made.batches) == (48, 3) == (48, len(batches))
    assert [made.rows(index) for index in range(3)] == [(20, 20), (20, 20), (8, 8)]
    tokens = torch.cat([batch.tokens for batch in batches], dim=1)
    assert torch.equal(tokens, torch.arange(48).view(4, 12))
    assert torch.equal(torch.cat([batch.targets for batch in batches], dim=1), tokens + 1)
    assert [batch.begins for batch in batches] == [True, False, False]
    assert {batch.tokens.dtype for batch in batches} == {torch.int64}
    assert len({id(batch.carried) for batch in batches}) == 1


def test_an_epoch_begins_with_a_state_of_its_own() -> None:
    made = feed(50, 4)
    first, second = next(made.epoch(0)), next(made.epoch(1))
    assert first.carried is not second.carried
    assert first.carried.state is None


def test_time_first_is_the_same_turned() -> None:
    for one, other in zip(feed(50, 4).epoch(0), feed(50, 4, first=False).epoch(0), strict=True):
        assert torch.equal(one.tokens.T, other.tokens)
        assert torch.equal(one.targets.T, other.targets)


@pytest.mark.parametrize("world", [2, 3])
@pytest.mark.parametrize("split", ["train", "test"])
def test_ranks_share_the_columns(world: int, split: str) -> None:
    whole = [batch.tokens for batch in feed(90, 4, split).epoch(0)]
    parts = [feed(90, 4, split, ranks=Ranks(rank, world)) for rank in range(world)]
    for rank, part in enumerate(parts):
        for index, batch in enumerate(part.epoch(0)):
            assert torch.equal(batch.tokens, whole[index][rank::world])
            assert part.rows(index) == (batch.tokens.numel(), whole[index].numel())
    expected = [88] * world if split == "train" else [22 * len(range(rank, 4, world)) for rank in range(world)]
    assert [part.samples for part in parts] == expected


def test_a_rank_without_a_column_takes_part_with_one_that_does_not_count() -> None:
    idle = feed(50, 2, ranks=Ranks(2, 3))
    batch = next(idle.epoch(0))
    assert batch.tokens.shape == (1, 5)
    assert idle.rows(0) == (0, 10)


def test_a_fraction_is_another_piece_of_train_in_each_epoch_and_the_beginning_of_others() -> None:
    made = feed(1000, 4, fraction=0.1)
    begins = [int(next(made.epoch(epoch)).tokens[0, 0]) for epoch in range(8)]
    assert len(set(begins)) > 4
    assert begins == [int(next(made.epoch(epoch)).tokens[0, 0]) for epoch in range(8)]
    assert begins[0] != int(next(feed(1000, 4, fraction=0.1, seed=1).epoch(0)).tokens[0, 0])
    for batch in made.epoch(3):
        assert int(batch.targets.max()) < 1000
    assert made.samples == 4 * (99 // 4)
    held = feed(1000, 4, "validation", fraction=0.1)
    assert [int(next(held.epoch(epoch)).tokens[0, 0]) for epoch in (0, 1)] == [0, 0]
    assert held.samples == 4 * (99 // 4)


def test_short_parts_are_read_in_fewer_columns_but_train_is_not() -> None:
    assert next(feed(17, 10, "test").epoch(0)).tokens.shape == (3, 5)
    assert next(feed(3, 10, "test").epoch(0)).tokens.shape == (1, 2)
    with pytest.raises(ConfigError, match=r"text.txt: has 9 tokens in use, too few for 10 sequences, got 'train'; low"):
        feed(9, 10)
    with pytest.raises(DataError, match=r"text.txt: has 1 tokens in use, too few for 1 sequences, got 'test'"):
        feed(1, 10, "test")
    with pytest.raises(ConfigError, match=r"training.effective_train_size: must be a fraction above 0 and up to 1"):
        feed(90, 2, fraction=0.0)
