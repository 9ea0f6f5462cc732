"""Which trial runs next."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from raydistill.records import Scalar
from raydistill.search.decisions import GO_ON, PAUSE, Figures, Stopping, Verdict, by_score
from raydistill.search.observations import Observation
from raydistill.search.search import DONE, NEW, RESUME, WAIT, Order, Search
from raydistill.search.searchers import Searcher


class Counts(Searcher):
    """Gives its own numbers, `most` of them, and keeps what it was shown."""

    def __init__(self, most: int) -> None:
        self.most, self.shown = most, list[list[int]]()

    def suggest(self, trial: int, seen: Sequence[Observation], stages: Sequence[int]) -> Mapping[str, Scalar] | None:
        self.shown.append([observation.trial for observation in seen])
        return {"a": trial, "b": 0} if trial < self.most else None


class Pauses(Stopping):
    """Pauses after one epoch; when all is drawn the lowest goes on."""

    def __init__(self) -> None:
        self.heard: list[tuple[str, int]] = []

    def result(self, trial: int, epochs_done: int, figures: Figures) -> Verdict:
        return Verdict(PAUSE if epochs_done == 1 else GO_ON)

    def promotable(self, paused: object, drained: bool) -> int | None:
        return min(paused, default=None) if drained else None  # type: ignore[call-overload,no-any-return]

    def promoted(self, trial: int) -> None:
        self.heard.append(("promoted", trial))

    def failed(self, trial: int) -> None:
        self.heard.append(("failed", trial))


def search(searcher: Counts, num_samples: int = 2, **more: object) -> tuple[Search, Pauses]:
    scheduler = Pauses()
    measure = by_score({"x": 1.0})
    return Search(searcher, scheduler, measure, num_samples=num_samples, stages=[1, 4], **more), scheduler  # type: ignore[arg-type]


def test_new_trials_come_first_then_promotions_then_waiting_then_the_end() -> None:
    of, scheduler = search(Counts(9))
    assert [of.next(), of.next(), of.next()] == [Order(NEW, 0), Order(NEW, 1), Order(WAIT)]
    for trial in (1, 0):
        assert of.result(trial, 1, {"x": 0.5 + trial}).action == PAUSE
        of.pause(trial)
    assert of.observations[1].points == {1: (1.5,)}
    assert of.next() == Order(RESUME, 0)
    assert (of.running, of.paused) == ({0}, {1})
    of.result(0, 2, {"x": 9.0})
    assert of.observations[0].points == {1: (0.5,)}, "no stage, nothing to learn from"
    of.ended(0, failed=True)
    assert not of.idle
    assert of.next() == Order(RESUME, 1)
    of.ended(1)
    assert (of.next(), of.idle) == (Order(DONE), True)
    assert scheduler.heard == [("promoted", 0), ("failed", 0), ("promoted", 1)]
    assert all(observation.ended for observation in of.observations.values())


def test_a_searcher_with_nothing_left_ends_the_search() -> None:
    of, _ = search(Counts(1), num_samples=5)
    assert [of.next(), of.next()] == [Order(NEW, 0), Order(WAIT)]
    of.ended(0)
    assert of.next() == Order(DONE)
    assert of.idle


def test_fixed_values_go_first_and_are_shown_only_where_they_say_all() -> None:
    searcher = Counts(9)
    of, _ = search(searcher, 4, fixed=[{"a": 0.5}, {"a": 1, "b": 2}], dimensions=2)
    orders = [of.next() for _ in range(4)]
    assert [order.trial for order in orders] == [0, 1, 2, 3]
    assert [dict(of.observations[n].values) for n in range(4)] == [
        {"a": 0.5}, {"a": 1, "b": 2}, {"a": 0, "b": 0}, {"a": 1, "b": 0},
    ]  # fmt: skip
    assert searcher.shown == [[1], [1, 2]]


def test_what_a_journal_recalls_is_not_drawn_again_and_told_twice_changes_nothing() -> None:
    of, _ = search(Counts(9), 3)
    of.recall(0, {"a": 5, "b": 5})
    of.recall(2, {"a": 6, "b": 6})
    of.result(0, 1, {"x": 1.0})
    of.result(0, 1, {"x": 2.0})
    assert of.observations[0].points == {1: (1.0,)}
    assert [of.next(), of.next()] == [Order(NEW, 1), Order(WAIT)]
