"""Searchers of Optuna: children come of their parents."""

from __future__ import annotations

import pytest

from raydistill.search import Choice
from raydistill.search.observations import Observation
from raydistill.search.searchers import NSGA2Searcher
from tests.search.spaces import space


@pytest.mark.slow
def test_children_of_nsga2_come_of_their_parents() -> None:
    """Most of a child's words are a parent's: parents know only two of five, and chance would take the others too."""
    over = space(*[Choice(("a", "b", "c", "d", "e"))] * 10)
    seen = [
        Observation(i, {d.path: "ab"[(i >> k) % 2] for k, d in enumerate(over.dimensions)}, {1: (i, -i)}, True)
        for i in range(8)
    ]
    words = [
        word
        for trial in range(8, 14)
        for word in NSGA2Searcher(over, 0, startup=8, population=8).suggest(trial, seen, [1]).values()
    ]
    assert sum(word in "ab" for word in words) > 0.8 * len(words)  # 0.4 by chance; 0.94 with a mutation in ten
