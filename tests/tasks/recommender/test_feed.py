"""Batches of pairs: what is taken up beside what is not, each user's candidates together."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from raydistill.compression.ranks import Ranks
from raydistill.tasks import Loading
from raydistill.tasks.recommender.feed import EvalFeed, TrainFeed

CPU = torch.device("cpu")
ITEMS = 20
TRAIN = np.array([(user, item) for user in range(6) for item in range(user, user + 5)])
TRAINED = np.sort(TRAIN[:, 0] * ITEMS + TRAIN[:, 1])


def of_train(world: int = 1, batch_size: int = 7, fraction: float = 1.0, seed: int = 0) -> list[TrainFeed]:
    return [
        TrainFeed(TRAIN, ITEMS, TRAINED, 3, Loading(CPU, batch_size, seed, fraction, ranks=Ranks(rank, world)))
        for rank in range(world)
    ]


def rows_of(feeds: list[TrainFeed], epoch: int) -> list[tuple[int, int, float]]:
    """What counts of every rank's batches: (user, item, label)."""
    found = []
    for feed in feeds:
        for index, (pairs, labels) in enumerate(feed.epoch(epoch)):
            own = feed.rows(index)[0]
            found += [(int(u), int(i), float(y)) for (u, i), y in zip(pairs[:own], labels[:own], strict=True)]
    return found


@pytest.mark.parametrize("world", [1, 2, 3])
def test_every_pair_comes_once_with_three_others_of_its_user(world: int) -> None:
    feeds = of_train(world)
    assert {(feed.samples, feed.batches) for feed in feeds} == {(120, 17 if world == 1 else feeds[0].batches)}
    found = rows_of(feeds, 2)
    assert len(found) == 30 * 4
    assert sorted(row[:2] for row in found if row[2] == 1.0) == sorted(map(tuple, TRAIN.tolist()))
    others = [row for row in found if row[2] == 0.0]
    assert np.bincount([row[0] for row in others]).tolist() == [15] * 6
    assert not {row[:2] for row in others} & set(map(tuple, TRAIN.tolist()))
    assert sorted(found) == sorted(rows_of(of_train(), 2))  # as one process has them


def test_another_epoch_or_seed_is_another_order_and_other_negatives() -> None:
    first, again = (rows_of(of_train(), 0) for _ in range(2))
    assert first == again
    for other in (rows_of(of_train(), 1), rows_of(of_train(seed=1), 0)):
        assert sorted(row for row in first if row[2]) == sorted(row for row in other if row[2])
        assert sorted(row for row in first if not row[2]) != sorted(row for row in other if not row[2])
        assert [row for row in first if row[2]] != [row for row in other if row[2]]


def test_a_fraction_takes_other_pairs_in_each_epoch() -> None:
    taken = [{row[:2] for row in rows_of(of_train(fraction=0.2), epoch) if row[2]} for epoch in range(8)]
    assert {len(pairs) for pairs in taken} == {6}
    assert len(set.union(*taken)) > 15
    assert set.union(*taken) <= set(map(tuple, TRAIN.tolist()))


@pytest.mark.parametrize(("world", "batch_size"), [(1, 8), (1, 1), (2, 12), (3, 1000)])
def test_a_users_candidates_stay_together_and_the_held_out_one_is_first(world: int, batch_size: int) -> None:
    users, candidates = np.array([3, 1, 4, 5, 9]), np.arange(20).reshape(5, 4)
    found = {}
    for rank in range(world):
        feed = EvalFeed(users, candidates, "test", Loading(CPU, batch_size, ranks=Ranks(rank, world)))
        assert feed.batches == len(list(feed.epoch(0)))
        counted = 0
        for index, (pairs, labels) in enumerate(feed.epoch(0)):
            own = feed.rows(index)[0]
            counted += own
            for pair, label in zip(pairs.reshape(-1, 4, 2)[:own], labels.reshape(-1, 4)[:own], strict=True):
                assert label.tolist() == [1, 0, 0, 0]
                assert len(set(pair[:, 0].tolist())) == 1
                assert int(pair[0, 0]) not in found
                found[int(pair[0, 0])] = pair[:, 1].tolist()
        assert counted == feed.samples
    assert found == {int(user): row.tolist() for user, row in zip(users, candidates, strict=True)}
    half = EvalFeed(users, candidates, "test", Loading(CPU, 8, fraction=0.4))
    assert half.samples == 2
    assert [pairs[::4, 0].tolist() for pairs, _ in half.epoch(0)] == [
        pairs[::4, 0].tolist() for pairs, _ in half.epoch(5)
    ]
