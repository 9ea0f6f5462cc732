"""Seeds of suggestions."""

from __future__ import annotations

import pytest

from raydistill.search.searchers.base import ALL, Searcher, generator


def test_a_stream_depends_on_seed_and_trial_alone() -> None:
    streams = {(seed, trial): tuple(generator(seed, trial).random(3)) for seed in range(3) for trial in range(4)}
    assert len(set(streams.values())) == 12
    generator(0, 0).random(100)
    assert tuple(generator(2, 1).random(3)) == streams[2, 1]


def test_a_searcher_says_how_many_suggestions_need_no_result() -> None:
    assert Searcher.startup == 0
    with pytest.raises(TypeError, match="abstract"):
        Searcher()  # type: ignore[abstract]
    assert ALL > 10**9
