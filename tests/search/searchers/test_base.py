"""Seeds of suggestions."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import pytest

from raydistill.records import Scalar
from raydistill.search.observations import Observation
from raydistill.search.searchers.base import ALL, Aim, Bound, Searcher, generator


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


class Own(Searcher):
    def suggest(self, trial: int, seen: Sequence[Observation], stages: Sequence[int]) -> Mapping[str, Scalar]:
        return {}


def test_one_that_only_suggests_wants_nothing_and_never_ends() -> None:
    own = Own()
    assert own.with_curves({}, {}, Aim()) is own.with_allocations({}) is own.with_evidence([]) is own
    wishes = (own.wants_curves, own.wants_allocations, own.wants_bound, own.keeps_bounds, own.bounds_beside)
    assert not any(wishes)
    assert (own.size, own.pool, own.candidates(), own.origin(0), own.how) == (ALL, 0, [], "", "")


def test_without_constraints_any_figure_will_do() -> None:
    aim = Aim()
    assert aim.metric == aim.figure == -math.inf
    assert (aim.dense, aim.foreseen, aim.beside, Bound(0.0, 0.0, {}).foreseen) == (0.0, None, (), None)
