"""The first trials by curves and by rules; then those of another searcher, as it would have drawn them."""

from __future__ import annotations

import numpy as np
import pytest

from raydistill.search import Dimension, LogUniform, SearchSpace, Uniform
from raydistill.search.observations import Observation
from raydistill.search.searchers import (
    AdditiveSearcher,
    Aim,
    EvolutionSearcher,
    GridSearcher,
    PlacedSearcher,
    RandomSearcher,
    SobolSearcher,
)

NAMES = ("a.weight", "b.weight")
LEVELS = [Dimension(f"per_layer.{name}.final_sparsity", Uniform(0.0, 0.98), name, "final_sparsity") for name in NAMES]
SPACE = SearchSpace((*LEVELS, Dimension("training.lr", LogUniform(1e-3, 1e-1))))
CURVES = {
    "a.weight": [(v / 50, (v / 50) ** 2) for v in range(1, 50)],
    "b.weight": [(v / 50, 4 * (v / 50) ** 2) for v in range(1, 50)],
}
SIZES = {"a.weight": 100.0, "b.weight": 100.0}
TOTALS = np.linspace(0.1, 0.98, 12)
UNIFORM = [dict.fromkeys(NAMES, float(total)) for total in TOTALS]
BOTH = [(min(0.98, 1.6 * total), float(total)) for total in TOTALS]
SAME = [{"a.weight": a, "b.weight": 2 * total - a} for a, total in BOTH]
"""What the curves say too: a alone goes on to its end four times as fast, then b."""


def placed(inner, count: int = 8, **rules):  # type: ignore[no-untyped-def]
    told = PlacedSearcher(inner, SPACE, 3, count).with_curves(CURVES, SIZES, Aim())
    return told.with_allocations(rules) if rules else told


def levels(values) -> tuple[float, float]:  # type: ignore[no-untyped-def]
    a, b = (float(values[d.path]) for d in LEVELS)
    return a, b


def test_the_first_trials_are_where_the_curves_say_and_the_others_are_the_searchers_own() -> None:
    searcher, own = placed(RandomSearcher(SPACE, 3)), RandomSearcher(SPACE, 3)
    first = [searcher.suggest(trial, (), [4]) for trial in range(8)]
    inside = [(a, b) for a, b in map(levels, first) if 0.1 < a < 0.9]
    assert len(inside) >= 2
    assert all(b == pytest.approx(a / 4, abs=0.06) for a, b in inside)
    totals = sorted(sum(levels(values)) for values in first)
    assert totals[0] < 0.9 < 1.7 < totals[-1]
    assert len({float(values["training.lr"]) for values in first}) == 8
    assert [searcher.suggest(8 + i, (), [4]) for i in range(3)] == [own.suggest(i, (), [4]) for i in range(3)]
    assert {searcher.origin(trial) for trial in range(8)} == {"levels by curves"}
    assert searcher.origin(8) == ""


def test_a_rule_has_its_trials_where_it_says_something_else() -> None:
    searcher = placed(RandomSearcher(SPACE, 3), erk=SAME, uniform=UNIFORM)
    origins = [searcher.origin(trial) for trial in range(8)]
    assert origins.count("levels by uniform") == 2
    assert origins.count("levels by curves") == 6
    for trial in range(8):
        a, b = levels(searcher.suggest(trial, (), [4]))
        if origins[trial] == "levels by uniform":
            assert a == pytest.approx(b, abs=1e-6)
    alone = placed(RandomSearcher(SPACE, 3), erk=SAME)
    assert {alone.origin(trial) for trial in range(8)} == {"levels by curves"}


def test_it_is_a_function_of_what_was_measured() -> None:
    once, again = (placed(SobolSearcher(SPACE, 3), uniform=UNIFORM) for _ in range(2))
    assert [once.suggest(i, (), [4]) for i in range(12)] == [again.suggest(i, (), [4]) for i in range(12)]


def seen(searcher, count: int) -> list[Observation]:  # type: ignore[no-untyped-def]
    found: list[Observation] = []
    for trial in range(count):
        values = searcher.suggest(trial, found, [4])
        a, b = levels(values)
        found.append(Observation(trial, values, {4: (0.9 - 0.05 * a**2 - 0.1 * b**2, (a + b) / 2)}, True))
    return found


@pytest.mark.parametrize("kind", [EvolutionSearcher, AdditiveSearcher])
def test_one_that_learns_begins_with_what_the_placed_trials_have_shown(kind: type) -> None:
    startup = 8 if kind is EvolutionSearcher else 1
    searcher = placed(kind(SPACE, 3, startup=startup))
    found = seen(searcher, 8)
    told = kind(SPACE, 3, startup=startup).with_curves(CURVES, SIZES, Aim())
    assert searcher.suggest(8, found, [4]) == told.suggest(0, found, [4])
    assert searcher.suggest(8, found, [4]) != SobolSearcher(SPACE, 3).suggest(0, (), [4])


def test_what_it_says_of_itself_is_the_others_where_it_is_theirs() -> None:
    assert PlacedSearcher(AdditiveSearcher(SPACE, 3), SPACE, 3, 8).keeps_bounds
    assert not PlacedSearcher(RandomSearcher(SPACE, 3), SPACE, 3, 8).keeps_bounds
    grid = GridSearcher(SPACE, 3, points=2)
    assert PlacedSearcher(grid, SPACE, 3, 8).size == 8 + 8
    assert placed(grid).suggest(16, (), [4]) is None


def one_shot(values) -> float:  # type: ignore[no-untyped-def]
    """What is lost at once: b bears much more than its curve says."""
    a, b = levels(values)
    return 1.0 + a**2 + 0.2 * b**2


@pytest.mark.slow
def test_from_a_pool_the_best_spread_is_chosen_by_what_is_lost_at_once() -> None:
    alone = PlacedSearcher(RandomSearcher(SPACE, 3), SPACE, 3, 8, pool=60).with_curves(CURVES, SIZES, Aim())
    candidates = alone.candidates()
    assert len(candidates) == 60
    assert not alone.wants_allocations
    losses = [one_shot(values) for values in candidates]
    searcher = alone.with_evidence([float("nan"), *losses[1:]])
    chosen = [searcher.suggest(trial, (), [4]) for trial in range(8)]
    assert {searcher.origin(trial) for trial in range(8)} == {"levels by evidence"}
    known = {tuple(values.values()): loss for values, loss in zip(candidates, losses, strict=True)}
    points = {key: (sum(float(v) for v in key[:2]), known[key]) for key in known}
    for values in chosen:  # no other of the pool brings more and loses less
        key = tuple(values.values())
        gain, loss = points[key]
        assert not any(other[0] > gain and other[1] < loss for other in points.values())
    assert tuple(candidates[0].values()) not in [tuple(values.values()) for values in chosen]
    assert sum(b > a for a, b in map(levels, chosen)) >= 4  # by the curves a would always be pruned further
    assert searcher.suggest(8, (), [4]) == RandomSearcher(SPACE, 3).suggest(0, (), [4])
    totals = [sum(levels(values)) for values in chosen]
    assert max(totals[:4]) - min(totals[:4]) > 0.5  # the first of them lie along the whole front already


def test_where_nothing_could_be_judged_they_are_placed_by_the_curves() -> None:
    alone = PlacedSearcher(RandomSearcher(SPACE, 3), SPACE, 3, 8, pool=20).with_curves(CURVES, SIZES, Aim())
    assert alone.with_evidence([float("inf")] * 20).origin(0) == "levels by curves"


@pytest.mark.slow
def test_a_candidate_that_breaks_a_bound_is_not_chosen() -> None:
    aim = Aim(figure=0.6, foreseen=lambda values: sum(levels(values)) / 2)
    sizes = {"a.weight": 0.5, "b.weight": 0.5}
    alone = PlacedSearcher(RandomSearcher(SPACE, 3), SPACE, 3, 8, pool=60).with_curves(CURVES, sizes, aim)
    searcher = alone.with_evidence([one_shot(values) for values in alone.candidates()])
    assert min(sum(levels(searcher.suggest(trial, (), [4]))) / 2 for trial in range(8)) >= 0.6 - 1e-6


def test_what_it_says_of_itself_before_the_first_trial() -> None:
    usual = PlacedSearcher(RandomSearcher(SPACE, 3), SPACE, 3, 8)
    assert (usual.startup, usual.wants_curves, usual.wants_allocations, usual.pool) == (0, True, True, 0)
    assert usual.how == "8 trials by what each layer loses, measured first, then its own"
    assert not PlacedSearcher(RandomSearcher(SPACE, 3), SPACE, 3, 8, rules=False).wants_allocations
    chosen = PlacedSearcher(AdditiveSearcher(SPACE, 3), SPACE, 3, 8, pool=20)
    assert chosen.how == "8 trials the best of 20 pruned at once, then its own"
    assert (chosen.pool, chosen.wants_allocations, chosen.bounds_beside) == (20, False, True)


def test_a_layer_that_a_rule_does_not_name_stays_dense() -> None:
    searcher = placed(RandomSearcher(SPACE, 3), alone=[{"a.weight": float(total)} for total in TOTALS])
    ruled = [trial for trial in range(8) if searcher.origin(trial) == "levels by alone"]
    assert ruled == [3, 7]
    for trial in ruled:
        a, b = levels(searcher.suggest(trial, (), [4]))
        assert (a > 0.05, b) == (True, 0.0)


def test_rules_take_turns_where_each_says_something_else() -> None:
    other = [dict(zip(NAMES, reversed(list(row.values())), strict=True)) for row in SAME]
    searcher = placed(RandomSearcher(SPACE, 3), 16, uniform=UNIFORM, other=other, same=UNIFORM)
    assert [searcher.origin(trial) for trial in (3, 7, 11, 15)].count("levels by same") == 0
    assert {searcher.origin(trial) for trial in (3, 7, 11, 15)} == {"levels by uniform", "levels by other"}
    assert {searcher.origin(trial) for trial in range(16) if trial % 4 != 3} == {"levels by curves"}


def test_a_rules_trial_brings_what_the_curves_would_have() -> None:
    plain, ruled = placed(RandomSearcher(SPACE, 3)), placed(RandomSearcher(SPACE, 3), uniform=UNIFORM)
    for trial in (3, 7):
        by_curves, by_rule = (levels(each.suggest(trial, (), [4])) for each in (plain, ruled))
        assert sum(by_rule) == pytest.approx(sum(by_curves), abs=0.1)
        assert by_rule != by_curves


def test_of_a_small_pool_the_best_spread_is_chosen_by_evidence() -> None:
    """What b loses says that a should stay: of 12 candidates those are chosen that no other beats in both."""
    alone = PlacedSearcher(RandomSearcher(SPACE, 3), SPACE, 3, 4, pool=12).with_curves(CURVES, SIZES, Aim())
    candidates = alone.candidates()
    assert candidates == [SobolSearcher(SPACE, 3).suggest(number, (), ()) for number in range(12)]
    losses = [float(levels(values)[0]) + 0.01 for values in candidates]
    searcher = alone.with_evidence(losses)
    chosen = [searcher.suggest(trial, (), [4]) for trial in range(4)]
    assert {searcher.origin(trial) for trial in range(4)} == {"levels by evidence"}
    gains = [sum(levels(values)) for values in candidates]
    for values in chosen:
        place = candidates.index(values)
        assert not any(g > gains[place] and lost < losses[place] for g, lost in zip(gains, losses, strict=True))
    brought = [gains[candidates.index(values)] for values in chosen]
    assert sorted(brought) == [brought[2], brought[0], brought[3], brought[1]]  # every second one first
    assert searcher.suggest(4, (), [4]) == RandomSearcher(SPACE, 3).suggest(0, (), [4])
    assert alone.with_evidence([float("nan")] * 12).origin(0) == "levels by curves"
    few = alone.with_evidence([1.0, *[float("inf")] * 11])
    assert [few.origin(trial) for trial in range(4)] == ["levels by evidence", *["levels by curves"] * 3]
    assert few.suggest(0, (), [4]) == candidates[0]
