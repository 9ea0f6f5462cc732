"""Who stops, pauses and is promoted: cases by hand, and whole searches with workers that come and go at random."""

from __future__ import annotations

import math
import random
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raydistill.search import Choice, Dimension, Objective, SearchSpace, Uniform
from raydistill.search.decisions import GO_ON, PAUSE, STOP, RunAll, Verdict, by_objectives, by_score
from raydistill.search.halving import Halving, bracket_of, rung_levels
from raydistill.search.median import MedianStopping
from raydistill.search.search import DONE, NEW, RESUME, WAIT, Order, Search
from raydistill.search.searchers import GridSearcher, RandomSearcher
from raydistill.search.selection import SPREADS

BOTH = by_objectives([Objective("top1", "max"), Objective("sparsity", "max")])
TOP1 = by_score({"top1": 1.0})


def figures(top1: float, planned: float = 0.5) -> dict[str, float]:
    return {"top1": top1, "loss": 1 - top1, "sparsity": 0.1, "planned_sparsity": planned}


def halving(measure=BOTH, max_epochs: int = 4, grace_period: int = 1, reduction_factor: float = 2, **more) -> Halving:
    return Halving(measure, max_epochs=max_epochs, grace_period=grace_period, reduction_factor=reduction_factor, **more)


@pytest.mark.parametrize("spread", SPREADS)
def test_arrivals_at_one_rung(spread: str) -> None:
    """One of two goes on. The rung as it is when the trial gets there decides."""
    trial_scheduler = halving(spread=spread)

    def arrives(trial: int, *point: float) -> Verdict:
        return trial_scheduler.result(trial, 1, figures(*point))

    assert arrives(0, 0.50, 0.50).action == GO_ON  # alone at its rung
    dominated = arrives(1, 0.40, 0.40)
    assert dominated.action == STOP
    assert dominated.why == (
        "stopped after 1 of 4 epochs: 1 of 2 trials are better in all; 1 of 2 go on from the rung at epoch 1"
    )
    assert arrives(2, 0.60, 0.60).action == GO_ON  # late, and the best so far: 1 of 3
    assert arrives(3, 0.55, 0.55).action == GO_ON  # second of four, and two go on
    assert arrives(4, 0.54, 0.54).action == STOP  # late and weaker: third of five, and two go on
    assert arrives(5, 0.61, 0.10).action == GO_ON  # on the front with 2; both of them are kept
    assert arrives(6, 0.30, 0.30).action == STOP


def test_equal_ranks_are_split_by_spread() -> None:
    """The fourth lies on the same front as the others. Two of four go on: the knee, and what is far from it."""
    points = [(0.0, 1.0), (0.6, 0.7), (0.55, 0.75)]
    for last, action in (((0.7, 0.6), STOP), ((1.0, 0.0), GO_ON)):
        trial_scheduler = halving()
        for trial, point in enumerate(points):
            trial_scheduler.result(trial, 1, figures(*point))
        # sums in shares, without (1, 0): the range is .7 by .4: 1.0, 1.11, 1.14, 1.0 -> the third is the knee, the
        # farthest from it is the first. With (1, 0): 1.0, 1.3, 1.3, 1.0 -> the second, and then (1, 0) at 0.81.
        verdict = trial_scheduler.result(3, 1, figures(*last))
        assert verdict.action == action
        if action == STOP:
            assert "others cover the front better; 2 of 4 go on" in verdict.why


def test_one_objective_is_plain_asha() -> None:
    trial_scheduler = halving(by_objectives([Objective("top1", "max")]), reduction_factor=3)
    # place among those that came, and how many of them go on: max(1, floor(n / 3))
    told = [(0.5, GO_ON), (0.4, STOP), (0.45, STOP), (0.6, GO_ON), (0.55, STOP), (0.58, GO_ON), (0.57, STOP)]
    verdicts = [trial_scheduler.result(trial, 1, figures(top1)) for trial, (top1, _) in enumerate(told)]
    assert [verdict.action for verdict in verdicts] == [action for _, action in told]
    assert "place 3 of 7, with 0.570; 2 of 7 go on from the rung at epoch 1" in verdicts[-1].why


def test_later_rungs_decide_anew() -> None:
    trial_scheduler = halving()
    for trial in range(4):
        trial_scheduler.result(trial, 1, figures(0.1 * (trial + 1)))
    assert trial_scheduler.result(0, 2, figures(0.2)).action == GO_ON  # nobody else is there
    assert trial_scheduler.result(3, 2, figures(0.1)).action == STOP
    assert trial_scheduler.result(2, 2, figures(0.3)).action == GO_ON


def test_between_rungs_and_before_the_first_all_go_on() -> None:
    trial_scheduler = halving(max_epochs=20, grace_period=4)
    for epochs in range(1, 20):
        assert trial_scheduler.result(0, epochs, figures(0.9)).action == GO_ON
    for epochs in (1, 2, 3):
        assert trial_scheduler.result(1, epochs, figures(0.1)).action == GO_ON
    assert trial_scheduler.result(1, 4, figures(0.1)).action == STOP


def test_trained_to_the_end_never_stops() -> None:
    for trial_scheduler in (
        halving(),
        halving(promote=True),
        MedianStopping(TOP1, max_epochs=4, grace_period=1, minimum=1),
    ):
        for epochs in range(1, 5):
            trial_scheduler.result(0, epochs, figures(0.9))
        assert trial_scheduler.result(1, 4, figures(0.0)).action == GO_ON
    assert halving().result(0, 4, figures(math.nan)).action == GO_ON


@pytest.mark.parametrize("promote", [False, True])
@pytest.mark.parametrize("broken", [math.nan, math.inf, -math.inf])
def test_what_is_not_a_number_stops_and_enters_no_rung(promote: bool, broken: float) -> None:
    trial_scheduler = halving(promote=promote)
    verdict = trial_scheduler.result(0, 1, figures(broken))
    assert (verdict.action, verdict.why) == (
        STOP,
        "stopped after 1 of 4 epochs: what its rung compares is not a number",
    )
    assert trial_scheduler.result(0, 3, figures(broken)).action == STOP
    assert trial_scheduler.result(1, 1, figures(0.0, 0.0)).action == (
        PAUSE if promote else GO_ON
    )  # the first of its rung


def test_told_twice_changes_nothing() -> None:
    once, twice = halving(), halving()
    for trial, top1 in enumerate((0.5, 0.6, 0.4, 0.7, 0.65, 0.1)):
        verdict = once.result(trial, 1, figures(top1))
        assert twice.result(trial, 1, figures(top1)) == verdict
        assert twice.result(trial, 1, figures(0.99)).action == GO_ON
    assert once.brackets == twice.brackets


def test_equal_trials_do_not_crowd_each_other_out() -> None:
    """Two of four equal ones go on: the first two that came."""
    trial_scheduler = halving()
    assert [trial_scheduler.result(trial, 1, figures(0.5)).action for trial in range(4)] == [GO_ON, STOP, STOP, STOP]
    promoting = halving(promote=True)
    for trial in range(4):
        promoting.result(trial, 1, figures(0.5))
    assert promoted_in_turn(promoting, {0, 1, 2, 3}) == [0, 1]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ((1, 2, 16), [1, 2, 4, 8]),
        ((1, 2, 17), [1, 2, 4, 8, 16]),
        ((3, 3, 100), [3, 9, 27, 81]),
        ((1, 1.5, 10), [1, 2, 3, 5, 8]),  # 1, 1.5, 2.25, 3.375, 5.06, 7.59, 11.4: whole, each once
        ((2, 2.5, 40), [2, 5, 12, 31]),  # 2, 5, 12.5, 31.25: a half to the even
        ((4, 2, 4), []),
        ((9, 2, 4), []),
    ],
)
def test_rung_levels(arguments: tuple, expected: list[int]) -> None:
    assert rung_levels(*arguments) == expected


def test_no_rungs_no_decisions() -> None:
    trial_scheduler = halving(grace_period=4)
    assert [trial_scheduler.result(trial, e, figures(0.1)).action for trial in (0, 1) for e in range(1, 5)] == [
        GO_ON
    ] * 8
    assert trial_scheduler.until(0, 0) is None
    assert trial_scheduler.why_not_promoted(0) == ""


def test_brackets_are_dealt_in_hyperbands_proportions() -> None:
    """Li et al., algorithm 1: n = (s_max + 1) / (s + 1) * eta^s of the bracket with s rungs, here without its ceil."""
    # s of 2, 1, 0, eta 2: 3/3 * 4, 3/2 * 2, 3/1 * 1 = 4, 3, 3
    # s of 3, 2, 1, 0, eta 3: 4/4 * 27, 4/3 * 9, 4/2 * 3, 4/1 * 1 = 27, 12, 6, 4
    all_three, all_four = (2, 1, 0), (3, 2, 1, 0)
    assert Counter(bracket_of(trial, all_three, 2.0) for trial in range(1000)) == {0: 400, 1: 300, 2: 300}
    assert Counter(bracket_of(trial, all_three, 2.0) for trial in range(10)) == {0: 4, 1: 3, 2: 3}
    assert Counter(bracket_of(trial, all_four, 3.0) for trial in range(490)) == {0: 270, 1: 120, 2: 60, 3: 40}
    # two brackets of four: s of 3 and 2, so 27 : 12, whatever the others would have had
    assert Counter(bracket_of(trial, (3, 2), 3.0) for trial in range(390)) == {0: 270, 1: 120}
    assert [bracket_of(trial, (4,), 2.0) for trial in range(5)] == [0] * 5
    in_order = [bracket_of(trial, (4, 3, 2, 1, 0), 2.5) for trial in range(60)]
    assert [bracket_of(trial, (4, 3, 2, 1, 0), 2.5) for trial in (59, 3, 17)] == [in_order[i] for i in (59, 3, 17)]


def test_bracket_s_leaves_out_the_first_s_rungs() -> None:
    trial_scheduler = halving(max_epochs=16, brackets=3, promote=True)
    assert [[rung.epochs for rung in rungs] for rungs in trial_scheduler.brackets] == [[1, 2, 4, 8], [2, 4, 8], [4, 8]]
    for trial in range(10):
        assert trial_scheduler.until(trial, 0) == 2 ** bracket(trial, trial_scheduler)
        assert trial_scheduler.until(trial, 4) == 8
        assert trial_scheduler.until(trial, 8) is None
    assert len(halving(max_epochs=4, brackets=9).brackets) == 3  # one more than there are rungs


def test_the_last_bracket_never_stops_anybody() -> None:
    """Hyperband's s = 0. Of the other brackets of 2 and 1 rungs the worst stop at their first rung."""
    for promote in (False, True):
        trial_scheduler = halving(TOP1, max_epochs=4, brackets=None, promote=promote)
        assert [[rung.epochs for rung in rungs] for rungs in trial_scheduler.brackets] == [[1, 2], [2], []]
        stopped = Counter()
        for trial in range(20):
            dealt = bracket(trial, trial_scheduler)
            actions = [trial_scheduler.result(trial, e, figures(1.0 - trial / 100)).action for e in (1, 2, 3, 4)]
            stopped[dealt] += any(action != GO_ON for action in actions)
            if dealt == 2:
                assert trial_scheduler.until(trial, 0) is None
                assert trial_scheduler.why_not_promoted(trial) == ""
        # 4 : 3 : 3 of twenty; where trials come from the best to the worst, each rung lets one of two go on
        assert stopped[2] == 0
        assert stopped[0] > 0 < stopped[1]


def test_brackets_are_apart() -> None:
    """Trials of another bracket are not compared with: each one's first at epoch 2 goes on."""
    trial_scheduler = halving(brackets=2)
    first = {which: next(t for t in range(9) if bracket(t, trial_scheduler) == which) for which in (0, 1)}
    assert trial_scheduler.result(first[0], 2, figures(0.9)).action == GO_ON
    assert trial_scheduler.result(first[1], 2, figures(0.1)).action == GO_ON


@pytest.mark.parametrize("wrong", [{"reduction_factor": 1}, {"grace_period": 0}, {"brackets": 0}])
def test_arguments_are_checked(wrong: dict) -> None:
    with pytest.raises(ValueError, match="halving needs"):
        halving(**wrong)


def promoted_in_turn(trial_scheduler: Halving, paused: set[int], drained: bool = False) -> list[int]:
    paused, order = set(paused), []
    while (trial := trial_scheduler.promotable(paused, drained)) is not None:
        trial_scheduler.promoted(trial)
        paused.remove(trial)
        order.append(trial)
    return order


def test_one_in_so_many_is_promoted() -> None:
    trial_scheduler = halving(TOP1, reduction_factor=3, max_epochs=9, promote=True)
    paused: set[int] = set()
    seen = []
    for trial, top1 in enumerate((0.3, 0.5, 0.4, 0.1, 0.2, 0.6, 0.9)):
        assert trial_scheduler.result(trial, 1, figures(top1)).action == PAUSE
        paused.add(trial)
        order = promoted_in_turn(trial_scheduler, paused)
        paused -= set(order)
        seen.append(order)
    # floor(n / 3): nobody of two; the best of three; two of six are 5 (0.6) and 1 (0.5), who is promoted already; of
    # seven 6 (0.9) and 5
    assert seen == [[], [], [1], [], [], [5], [6]]
    assert trial_scheduler.why_not_promoted(0) == (
        "stopped after 1 of 9 epochs: place 5 of 7, with 0.300; 2 of 7 go on from the rung at epoch 1"
    )


def test_who_has_come_farthest_goes_first_and_only_who_is_paused() -> None:
    trial_scheduler = halving(TOP1, promote=True)
    for trial, top1 in enumerate((0.9, 0.8, 0.7, 0.6)):
        trial_scheduler.result(trial, 1, figures(top1))
    assert trial_scheduler.promotable({2, 3}, drained=False) is None  # the two best still run, or are dead
    assert trial_scheduler.promotable({1, 2, 3}, drained=False) == 1
    for trial in (0, 1):
        trial_scheduler.promoted(trial)
        trial_scheduler.result(trial, 2, figures(0.5 - trial / 10))
    for trial, top1 in enumerate((0.95, 0.94), start=4):
        trial_scheduler.result(trial, 1, figures(top1))
    assert promoted_in_turn(trial_scheduler, set(range(6))) == [
        0,
        4,
        5,
    ]  # 0 from the rung at epoch 2 first; 0 and 1 not again


def test_a_rung_with_one_trial_waits_until_it_is_drained() -> None:
    trial_scheduler = halving(promote=True)
    assert trial_scheduler.until(0, 0) == 1
    paused = trial_scheduler.result(0, 1, figures(0.5))
    assert (paused.action, paused.why) == (PAUSE, "paused after 1 of 4 epochs, at its rung")
    assert trial_scheduler.promotable({0}, drained=False) is None
    assert trial_scheduler.promotable({0}, drained=True) == 0
    trial_scheduler.promoted(0)
    assert trial_scheduler.until(0, 1) == 2


def test_a_trial_that_died_at_its_rung_gives_its_place_to_the_next_best() -> None:
    trial_scheduler = halving(TOP1, promote=True)
    for trial, top1 in enumerate((0.2, 0.9, 0.3)):
        trial_scheduler.result(trial, 1, figures(top1))
    assert trial_scheduler.promotable({0, 2}, drained=False) is None  # 1 runs: it may yet pause
    trial_scheduler.failed(1)
    assert trial_scheduler.promotable({0, 2}, drained=False) == 2
    trial_scheduler.promoted(2)
    assert trial_scheduler.promotable({0}, drained=True) is None


@pytest.mark.parametrize("reached", [1, 2], ids=["before its next rung", "at its next rung"])
def test_a_promoted_trial_that_dies_later_is_replaced(reached: int) -> None:
    """One of two goes on from the first rung; it dies, and so does who comes after it."""
    trial_scheduler = halving(TOP1, promote=True)
    for trial, top1 in enumerate((0.5, 0.4, 0.3, 0.2)):
        trial_scheduler.result(trial, 1, figures(top1))
    paused = set(range(4))
    assert promoted_in_turn(trial_scheduler, paused) == [0, 1]
    if reached == 2:
        trial_scheduler.result(0, 2, figures(0.9))
    assert trial_scheduler.promotable({2, 3}, drained=True) is None  # two of four, and both of them live
    trial_scheduler.failed(0)
    assert promoted_in_turn(trial_scheduler, {2, 3}) == [2]
    trial_scheduler.failed(1)
    trial_scheduler.failed(2)
    assert promoted_in_turn(trial_scheduler, {3}) == [3]
    trial_scheduler.failed(3)
    assert trial_scheduler.promotable(set(), drained=True) is None


def test_when_all_that_were_promoted_died_the_best_of_the_rest_goes_on_at_the_end() -> None:
    trial_scheduler = halving(TOP1, reduction_factor=4, max_epochs=16, promote=True)
    for trial, top1 in enumerate((0.5, 0.4, 0.3)):
        trial_scheduler.result(trial, 1, figures(top1))
    assert trial_scheduler.promotable({0, 1, 2}, drained=False) is None  # not one of four yet
    assert trial_scheduler.promotable({0, 1, 2}, drained=True) == 0
    trial_scheduler.promoted(0)
    trial_scheduler.failed(0)
    assert trial_scheduler.promotable({1, 2}, drained=False) is None
    assert trial_scheduler.promotable({1, 2}, drained=True) == 1


def test_a_dead_trial_stops_nobody() -> None:
    trial_scheduler = halving(TOP1)
    assert trial_scheduler.result(0, 1, figures(0.9)).action == GO_ON
    trial_scheduler.failed(0)
    assert trial_scheduler.result(1, 1, figures(0.1)).action == GO_ON  # the best that lives
    assert trial_scheduler.result(2, 1, figures(0.05)).action == STOP


def test_what_a_rung_compares() -> None:
    told = {"top1": 0.7, "loss": 0.4, "sparsity": 0.1, "macs": 9e6, "planned_sparsity": 0.8}
    smaller = [Objective("sparsity", "max"), Objective("macs", "min")]
    assert by_objectives([Objective("top1", "max"), *smaller])(told) == (0.7, 0.8)
    assert by_objectives([Objective("loss", "min")])(told) == (-0.4,)
    assert by_objectives(smaller)(told) == (0.8,)
    assert by_score({"top1": 2, "planned_sparsity": 0.5})(told) == pytest.approx((1.8,))


def test_loss_is_compared_downwards() -> None:
    trial_scheduler = halving(by_objectives([Objective("loss", "min")]))
    assert [trial_scheduler.result(t, 1, {"loss": loss}).action for t, loss in enumerate((1.0, 2.0, 0.5))] == [
        GO_ON, STOP, GO_ON,
    ]  # fmt: skip


def test_median_by_hand() -> None:
    trial_scheduler = MedianStopping(TOP1, max_epochs=9, grace_period=2, minimum=3)
    for trial, curve in enumerate(([0.2, 0.4], [0.4, 0.6], [0.6, 0.8])):  # at the second epoch the median is 0.6
        assert [trial_scheduler.result(trial, e, figures(top1)).action for e, top1 in enumerate(curve, 1)] == [
            GO_ON
        ] * 2
    assert trial_scheduler.result(3, 1, figures(0.0)).action == GO_ON
    assert trial_scheduler.result(3, 2, figures(0.6)).action == GO_ON  # at the median
    trial_scheduler.result(4, 1, figures(0.45))
    # now four others are at 0.4, 0.6, 0.8, 0.6: the median is 0.6, and what it was before is not asked
    trial_scheduler.result(5, 1, figures(0.9))
    verdict = trial_scheduler.result(5, 2, figures(0.59))
    assert (verdict.action, verdict.why) == (
        STOP,
        "stopped after 2 of 9 epochs: score 0.590 below the median 0.600 of 4 other trials",
    )
    assert trial_scheduler.result(4, 2, figures(0.0)).action == STOP
    assert trial_scheduler.result(5, 2, figures(0.1)).action == GO_ON  # known already
    assert trial_scheduler.result(6, 1, figures(math.nan)).action == STOP


trial_schedulers = st.fixed_dictionaries({
    "max_epochs": st.integers(1, 12), "grace_period": st.integers(1, 4), "brackets": st.integers(1, 3),
    "reduction_factor": st.sampled_from([1.5, 2, 3]), "promote": st.booleans(), "spread": st.sampled_from(SPREADS),
})  # fmt: skip
events = st.lists(st.tuples(st.integers(0, 6), st.integers(1, 12), st.integers(0, 4), st.integers(0, 4)), max_size=25)


@pytest.mark.slow
@settings(deadline=None, max_examples=40)
@given(trial_schedulers, events)
def test_the_same_results_give_the_same_verdicts(arguments: dict, told: list[tuple[int, int, int, int]]) -> None:
    def verdicts(repeat: int) -> list[Verdict]:
        trial_scheduler = halving(**arguments)
        answers = []
        for trial, epochs, top1, planned in told:
            first, *_again = [
                trial_scheduler.result(trial, epochs, figures(top1 / 4, planned / 4)) for _ in range(repeat)
            ]
            answers.append(first)
        return answers

    assert verdicts(1) == verdicts(1) == verdicts(2)


SPACE = SearchSpace((Dimension("a.b", Uniform(0.0, 1.0)), Dimension("a.c", Uniform(0.0, 1.0))))


@pytest.mark.slow
@settings(deadline=None, max_examples=40)
@given(trial_schedulers, st.integers(1, 12), st.integers(1, 4), st.sampled_from([0.0, 0.1]), st.integers(0, 10**6))
def test_whole_searches(arguments: dict, trials: int, workers: int, risk: float, seed: int) -> None:
    """Workers at random speed, some of them dying: all is run, nothing twice, nothing left hanging."""
    trial_scheduler = halving(**arguments)
    epochs, rng = arguments["max_epochs"], random.Random(seed)
    search = Search(RandomSearcher(SPACE, seed), trial_scheduler, BOTH, num_samples=trials, stages=[epochs])
    running: dict[int, int] = {}
    done: dict[int, int] = {}
    promotions: Counter[tuple[int, int]] = Counter()
    ends: dict[int, str] = {}
    while True:
        order = search.next() if len(running) < workers else Order(WAIT)
        if order.kind == DONE:
            break
        if order.kind in (NEW, RESUME):
            assert order.trial not in running
            assert order.trial not in ends
            if order.kind == RESUME:
                promotions[order.trial, done[order.trial]] += 1
            assert (order.kind == NEW) == (order.trial not in done)
            done.setdefault(order.trial, 0)
            running[order.trial] = trial_scheduler.until(order.trial, done[order.trial]) or 0
            continue
        assert running
        assert not search.idle
        trial = rng.choice(sorted(running))
        done[trial] += 1
        values = search.observations[trial].values
        verdict = search.result(trial, done[trial], figures(values["a.b"], values["a.c"]))
        assert (verdict.action == PAUSE) == (done[trial] == running[trial])
        end = {STOP: "stopped", PAUSE: ""}.get(verdict.action, "finished" if done[trial] == epochs else "")
        if rng.random() < risk:
            end = "died"
        if end:
            ends[trial] = end
            search.ended(trial, failed=end == "died")
        elif verdict.action == PAUSE:
            search.pause(trial)
        if end or verdict.action == PAUSE:
            del running[trial]
    assert not running
    assert search.idle
    assert len(done) == trials
    assert set(ends).isdisjoint(search.paused)
    assert set(ends) | search.paused == set(range(trials))
    assert max(promotions.values(), default=1) == 1
    for trial in search.paused:
        assert f"stopped after {done[trial]} of {epochs} epochs: " in trial_scheduler.why_not_promoted(trial)
        assert any(
            at == done[trial] and bracket(trial, trial_scheduler) == bracket(t, trial_scheduler) for t, at in promotions
        )
    if not risk:
        assert "finished" in ends.values()


def bracket(trial: int, trial_scheduler: Halving) -> int:
    return bracket_of(trial, tuple(map(len, trial_scheduler.brackets)), trial_scheduler._factor)


def test_a_grid_ends_a_search_before_its_number_of_trials() -> None:
    grid = GridSearcher(SearchSpace((Dimension("a.b", Choice((1, 2, 3))),)), 0)
    search = Search(grid, RunAll(), TOP1, num_samples=10, stages=[1], fixed=[{"a.b": 7}])
    values = []
    while (order := search.next()).kind == NEW:
        values.append(search.observations[order.trial].values["a.b"])
        search.ended(order.trial)
    assert order == Order(DONE)
    assert search.idle
    assert values[0] == 7  # a warm start takes the first trial's place
    assert set(values[1:]) <= {1, 2, 3}
    assert len(set(values)) == len(values) <= 4


def test_a_number_freed_by_a_journal_is_passed_over() -> None:
    search = Search(RandomSearcher(SPACE, 3), RunAll(), TOP1, num_samples=3, stages=[1])
    search.recall(1, {"a.b": 0.5, "a.c": 0.5})
    assert [search.next() for _ in range(3)] == [Order(NEW, 0), Order(NEW, 2), Order(WAIT)]
    assert not search.idle
    for trial in range(3):
        search.ended(trial)
    assert search.next() == Order(DONE)


def test_brackets_are_dealt_to_whoever_is_owed_the_most() -> None:
    """By hand, of 9 and 4 in 13: owed 9/13 and 4/13; -4/13 + 9/13 and 8/13; 14/13; 10/13 and 3/13; 6/13 and 7/13."""
    assert [bracket_of(trial, (3, 2), 3.0) for trial in range(5)] == [0, 1, 0, 0, 1]


def test_a_whole_share_of_a_rung_is_not_lost_to_a_last_bit() -> None:
    """11 / 1.1 is 9.999999999999998."""
    trial_scheduler = halving(TOP1, reduction_factor=1.1, max_epochs=3, promote=True)
    for trial in range(11):
        trial_scheduler.result(trial, 1, figures(0.5 + trial / 100))
    assert "place 11 of 11, with 0.500; 10 of 11 go on" in trial_scheduler.why_not_promoted(0)
    assert sorted(promoted_in_turn(trial_scheduler, set(range(11)))) == list(range(1, 11))


def test_what_only_stops_promotes_nobody() -> None:
    trial_scheduler = halving(TOP1)
    trial_scheduler.result(0, 1, figures(0.5))
    assert trial_scheduler.promotable({0}, drained=True) is None
    assert trial_scheduler.until(0, 0) is None
    trial_scheduler.promoted(7)  # who has reached no rung
    assert trial_scheduler.brackets[0][0].promoted == set()
    assert halving(TOP1, promote=True).promotable(set(), drained=True) is None


def test_a_promoted_trial_that_died_has_promoted_nobody() -> None:
    """Of a rung that nobody living was promoted from, the best goes on when nothing else is left."""
    trial_scheduler = halving(TOP1, reduction_factor=3, promote=True, max_epochs=9)
    for trial, top1 in enumerate((0.9, 0.5, 0.4)):
        trial_scheduler.result(trial, 1, figures(top1))
    assert promoted_in_turn(trial_scheduler, {0, 1, 2}) == [0]
    assert promoted_in_turn(trial_scheduler, {1, 2}, drained=True) == []
    trial_scheduler.failed(0)
    assert promoted_in_turn(trial_scheduler, {1, 2}, drained=True) == [1]
