"""Items that a user never took up: none that is taken, none more likely than another."""

from __future__ import annotations

import numpy as np
import pytest

from raydistill.errors import ConfigError, DataError
from raydistill.tasks.recommender.interactions import interactions
from raydistill.tasks.recommender.negatives import candidates, is_among, train_negatives
from tests.tasks.recommender.ratings import rows


@pytest.mark.parametrize("there", [[4], [0, 3, 4, 9], list(range(12))])
def test_what_is_among_sorted_numbers_is_what_numpy_finds(there: list[int]) -> None:
    keys = np.array([0, 1, 9, 9, 11, 12, -1])
    assert is_among(keys, np.array(there)).tolist() == np.isin(keys, there).tolist()


@pytest.mark.slow
@pytest.mark.parametrize("count", [5, 99, 146])
def test_candidates_are_items_that_a_user_never_took_up_each_once(count: int) -> None:
    found = interactions(rows()[:, [0, 1, 3]], "rows")
    items = len(found.items)
    assert items == 160
    drawn = candidates(found.held_out["test"], items, found.seen, count, 0)
    assert np.array_equal(drawn[:, 0], found.held_out["test"][:, 1])
    taken = {user: set((found.seen[found.seen // items == user] % items).tolist()) for user in range(120)}
    for (user, _), row in zip(found.held_out["test"], drawn, strict=True):
        assert len(set(row.tolist())) == 1 + count
        assert not taken[int(user)] & set(row[1:].tolist())
    assert np.array_equal(drawn, candidates(found.held_out["test"], items, found.seen, count, 0))
    if count < 146:
        assert not np.array_equal(drawn, candidates(found.held_out["test"], items, found.seen, count, 1))
        spread = np.bincount(drawn[:, 1:].reshape(-1), minlength=items)
        assert spread.max() < spread.mean() + 5 * np.sqrt(spread.mean())  # no oftener than chance lets it


def test_more_candidates_than_there_are_is_one_line() -> None:
    found = interactions(rows()[:, [0, 1, 3]], "rows")
    with pytest.raises(
        ConfigError, match=r"task.args.eval_negatives: must be at most 146: a user has taken up the other 14"
    ):
        candidates(found.held_out["test"], 160, found.seen, 147, 0)


@pytest.mark.slow
def test_negatives_of_train_are_not_trained_on_and_as_likely_as_each_other() -> None:
    trained = np.array([0, 1, 2, 13])  # user 0 has items 0, 1, 2 of 10, user 1 item 3
    drawn = train_negatives(np.repeat([0, 1], 4000), 10, trained, 5)
    first, second = (np.bincount(part, minlength=10) for part in (drawn[:4000], drawn[4000:]))
    assert first[:3].tolist() == [0, 0, 0]
    assert second[3] == 0
    assert first[3:] == pytest.approx(4000 / 7, rel=0.15)
    assert np.delete(second, 3) == pytest.approx(4000 / 9, rel=0.15)
    assert not np.array_equal(drawn, train_negatives(np.repeat([0, 1], 4000), 10, trained, 6))
    with pytest.raises(DataError, match=r"has a user with nearly all items"):
        train_negatives(np.array([0]), 2, np.array([0, 1]), 0)
