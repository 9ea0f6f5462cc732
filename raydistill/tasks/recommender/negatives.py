"""Items that a user has not taken up, drawn at random: what is there to be told from what is not."""

from __future__ import annotations

import numpy as np

from raydistill.datasets.split import raw_stream
from raydistill.errors import ConfigError, DataError, Fault

_ROUNDS = 1000


def is_among(keys: np.ndarray, ascending: np.ndarray) -> np.ndarray:
    """Which of the keys are in a sorted array."""
    places = np.searchsorted(ascending, keys)
    return (places < len(ascending)) & (ascending[np.minimum(places, len(ascending) - 1)] == keys)


def train_negatives(users: np.ndarray, items: int, trained: np.ndarray, *key: int) -> np.ndarray:
    """An item for each of `users` (N,), uniform among those that are not trained on with them. trained: user * items +
    item, ascending. key: of the draw, non-negative.

    Raises:
        DataError: a user has all items.
    """
    drawn = (raw_stream(len(users), *key, 0) % np.uint64(items)).astype(np.int64)
    wrong = np.flatnonzero(is_among(users * items + drawn, trained))
    for turn in range(1, _ROUNDS):
        if not len(wrong):
            return drawn
        drawn[wrong] = (raw_stream(len(wrong), *key, turn) % np.uint64(items)).astype(np.int64)
        wrong = wrong[is_among(users[wrong] * items + drawn[wrong], trained)]
    raise DataError(Fault("dataset", "has a user with nearly all items, beside whom nothing is left to draw", items))


def candidates(held_out: np.ndarray, items: int, seen: np.ndarray, count: int, *key: int) -> np.ndarray:
    """(U, 1 + count) int64: each user's held-out item, then `count` others that the user never took up, each once.

    Raises:
        ConfigError: a user has not so many.
    """
    bounds = np.searchsorted(seen, np.stack([held_out[:, 0], held_out[:, 0] + 1]) * items)
    most = items - int((bounds[1] - bounds[0]).max())
    if most < count:
        rule = f"must be at most {most}: a user has taken up the other {items - most} of {items} items"
        raise ConfigError(Fault("task.args.eval_negatives", rule, count, f"give {most} or fewer"))
    found = np.empty((len(held_out), 1 + count), dtype=np.int64)
    found[:, 0] = held_out[:, 1]
    for row, (user, begin, end) in enumerate(zip(held_out[:, 0], *bounds, strict=True)):
        taken = seen[begin:end] - user * items
        drawn = _each_once(raw_stream(3 * count, *key, int(user)) % np.uint64(items), taken)
        if len(drawn) < count:  # few items, or few that are left: all of them in a random order
            drawn = _each_once(np.argsort(raw_stream(items, *key, int(user)), kind="stable"), taken)
        found[row, 1:] = drawn[:count]
    return found


def _each_once(drawn: np.ndarray, taken: np.ndarray) -> np.ndarray:
    """In the order in which they come, without those that are taken (ascending)."""
    drawn = drawn.astype(np.int64)
    _, first = np.unique(drawn, return_index=True)
    drawn = drawn[np.sort(first)]
    return drawn[~is_among(drawn, taken)]
