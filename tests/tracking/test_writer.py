from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from raydistill.tracking import writer as module
from raydistill.tracking.writer import (
    Action,
    Batch,
    Broken,
    Operation,
    Point,
    Refused,
    TrackingWriter,
    Unavailable,
    batches,
)


class Store:
    """A sink that keeps what it gets and can be told to fail."""

    def __init__(self, fail: Callable[[str, Operation], Exception | None] = lambda run, op: None) -> None:
        self.sent: list[tuple[str, Operation]] = []
        self.calls = 0
        self.fail = fail
        self.gate = threading.Event()
        self.gate.set()

    def send(self, run: str, operation: Operation) -> None:
        self.gate.wait(5)
        self.calls += 1
        if (error := self.fail(run, operation)) is not None:
            raise error
        if isinstance(operation, Action):
            operation.do(None, run)
        self.sent.append((run, operation))

    def points(self, run: str) -> list[Point]:
        return [p for r, op in self.sent if r == run and isinstance(op, Batch) for p in op.metrics]


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FIRST_DELAY_S", 0.01)
    monkeypatch.setattr(module, "LAST_DELAY_S", 0.04)


def point(step: int, key: str = "top1") -> Point:
    return Point(key, step / 100, 1000 + step, step)


def nothing(client: Any, run_id: str) -> None:
    pass


def test_order_within_a_run_is_kept_and_waiting_batches_travel_together() -> None:
    store = Store()
    store.gate.clear()
    writer = TrackingWriter(store)
    writer.start()
    writer.put("a", Batch((point(0),)))
    time.sleep(0.1)  # the first is in flight, the others queue up behind it
    for step in range(1, 50):
        writer.put("a", Batch((point(step),)))
    writer.put("a", Action("end", nothing))
    writer.put("a", Batch((point(50),)))
    store.gate.set()
    assert writer.close(5) == 0
    assert [type(op).__name__ for _, op in store.sent] == ["Batch", "Batch", "Action", "Batch"]
    assert [p.step for p in store.points("a")] == list(range(51))


@pytest.mark.slow
def test_putting_never_blocks_while_the_server_hangs() -> None:
    store = Store()
    store.gate.clear()
    writer = TrackingWriter(store)
    writer.start()
    before = time.monotonic()
    for step in range(2000):
        writer.put(f"t{step % 20}", Batch((point(step),)))
    assert time.monotonic() - before < 30  # it did not hang: no claim about speed
    assert writer.undelivered() == 2000
    store.gate.set()
    assert writer.close(10) == 0
    assert sum(len(store.points(f"t{i}")) for i in range(20)) == 2000


def test_everything_arrives_once_after_the_server_was_away() -> None:
    away = [True]
    store = Store(lambda run, op: Unavailable("no route") if away[0] else None)
    told: list[str] = []
    writer = TrackingWriter(store, told.append)
    writer.start()
    for step in range(10):
        writer.put("a", Batch((point(step),)))
        writer.put("b", Batch((point(step),)))
    time.sleep(0.3)
    assert store.sent == []
    assert store.calls < 30, "no backoff"
    assert told == ["MLflow does not answer, its records wait: no route"]
    away[0] = False
    assert writer.close(5) == 0
    assert [p.step for p in store.points("a")] == [p.step for p in store.points("b")] == list(range(10))


def test_closing_gives_up_in_time_and_counts_what_is_left() -> None:
    writer = TrackingWriter(Store(lambda run, op: Unavailable("gone")))
    writer.start()
    for step in range(7):
        writer.put("a", Batch((point(step),)))
    before = time.monotonic()
    assert writer.close(0.3) == 7
    assert time.monotonic() - before < 30  # it did not hang: no claim about speed


def test_a_refused_operation_is_found_among_merged_ones_reported_once_and_dropped() -> None:
    def fail(run: str, op: Operation) -> Exception | None:
        return Refused("bad param") if isinstance(op, Batch) and ("lr", "bad") in op.params else None

    told: list[str] = []
    store = Store(fail)
    writer = TrackingWriter(store, told.append)
    for step in range(5):
        writer.put("a", Batch((point(step),)))
    writer.put("a", Batch(params=(("lr", "bad"),)))
    writer.put("a", Batch((point(5),)))
    writer.start()
    assert writer.close(5) == 0
    assert [p.step for p in store.points("a")] == list(range(6))
    assert told == writer.errors == ["not in MLflow: figures of a: bad param"]
    assert store.calls < 10


def test_one_runs_trouble_does_not_hold_up_the_others_and_ends() -> None:
    def fail(run: str, op: Operation) -> Exception | None:
        return Unavailable("internal error", alive=True) if run == "bad" and isinstance(op, Action) else None

    store = Store(fail)
    writer = TrackingWriter(store)
    writer.put("bad", Action("file 'x'", nothing), Batch((point(1),)))
    writer.put("good", Batch((point(0),)))
    writer.start()
    assert writer.close(5) == 0
    assert store.sent[0][0] == "good"
    assert [p.step for p in store.points("bad")] == [1]
    assert writer.errors == ["not in MLflow: file 'x' of bad: internal error"]


def test_a_short_disturbance_loses_nothing() -> None:
    failures = [Unavailable("deadlock", alive=True), Unavailable("deadlock", alive=True)]
    store = Store(lambda run, op: failures.pop() if failures else None)
    writer = TrackingWriter(store)
    writer.start()
    writer.put("a", Batch((point(0),)), Batch((point(1),)))
    assert writer.close(5) == 0
    assert [p.step for p in store.points("a")] == [0, 1]
    assert writer.errors == []


def test_a_defect_in_an_action_does_not_end_the_delivery() -> None:
    def broken(client: Any, run_id: str) -> None:
        raise ZeroDivisionError("oops")

    store = Store()
    writer = TrackingWriter(store)
    writer.start()
    writer.put("a", Action("its model", broken), Batch((point(0),)))
    assert writer.close(5) == 0
    assert writer.errors == ["not in MLflow: its model of a: ZeroDivisionError: oops"]
    assert len(store.points("a")) == 1


def test_a_report_that_fails_does_not_end_the_delivery() -> None:
    def fails(line: str) -> None:
        raise RuntimeError("no terminal")

    store = Store(lambda run, op: Refused("no") if isinstance(op, Action) else None)
    writer = TrackingWriter(store, fails)
    writer.start()
    writer.put("a", Action("x", nothing), Batch((point(0),)))
    assert writer.close(5) == 0


def test_a_broken_store_keeps_the_count() -> None:
    told: list[str] = []
    writer = TrackingWriter(Store(lambda run, op: Broken("tables are out of date")), told.append)
    writer.start()
    writer.put("a", Batch((point(0),)), Batch((point(1),)))
    assert writer.close(5) == 2
    assert told == ["MLflow cannot be written, its records stay behind: tables are out of date"]
    assert writer.broken
    assert not TrackingWriter(Store()).broken


def test_a_newer_action_replaces_one_that_waits_but_not_one_under_way() -> None:
    store = Store()
    store.gate.clear()
    done: list[int] = []
    writer = TrackingWriter(store)
    writer.start()
    for i in range(6):
        writer.put("", Action("front", lambda client, run_id, i=i: done.append(i), replaces="front"))
        if i == 0:
            time.sleep(0.1)
    writer.put("", Action("other", nothing, replaces="other"))
    store.gate.set()
    assert writer.close(5) == 0
    assert done == [0, 5]
    assert len(store.sent) == 3


def test_flush_waits_for_delivery() -> None:
    store = Store()
    writer = TrackingWriter(store)
    writer.start()
    writer.put("a", *(Batch((point(step),)) for step in range(5)))
    assert writer.flush(5) == 0
    assert len(store.points("a")) == 5
    writer.close(1)


def test_limits_are_kept_whatever_is_sent() -> None:
    metrics = tuple(point(0, f"m{i}") for i in range(2500))
    params = tuple((f"p{i}", "1") for i in range(250))
    tags = tuple((f"t{i}", "1") for i in range(120))
    store = Store()
    writer = TrackingWriter(store)
    writer.put("a", *batches(metrics, params, tags), *batches(metrics[:999]), *batches((), params[:60]))
    writer.start()
    assert writer.close(5) == 0
    sent = [op for _, op in store.sent if isinstance(op, Batch)]
    assert all(len(op.metrics) <= 1000 and len(op.params) <= 100 and len(op.tags) <= 100 for op in sent)
    assert all(len(op.metrics) + len(op.params) + len(op.tags) <= 1000 for op in sent)
    assert {p for op in sent for p in op.metrics} == set(metrics)
    assert {p for op in sent for p in op.params} == set(params)
    assert {t for op in sent for t in op.tags} == set(tags)


def test_merged_tags_take_the_latest_value() -> None:
    store = Store()
    writer = TrackingWriter(store)
    writer.put("a", Batch(tags=(("state", "running"),)), Batch(tags=(("state", "finished"),)))
    writer.start()
    assert writer.close(5) == 0
    assert store.sent == [("a", Batch(tags=(("state", "finished"),)))]


def test_an_action_is_replaced_while_another_runs_is_under_way() -> None:
    store = Store()
    store.gate.clear()
    done: list[int] = []
    writer = TrackingWriter(store)
    writer.start()
    writer.put("a", Batch((point(0),)))
    time.sleep(0.1)  # it is in flight
    for i in range(3):
        writer.put("", Action("front", lambda client, run_id, i=i: done.append(i), replaces="front"))
        writer.put("", Batch((point(i),)))
    assert writer.undelivered() == 5  # a's, one front, three of the sweep's own
    store.gate.set()
    assert writer.close(5) == 0
    assert done == [2]
    assert [p.step for p in store.points("")] == [0, 1, 2]


def test_what_is_tried_again_is_given_up_after_so_many_attempts() -> None:
    tries: list[str] = []

    def fail(run: str, op: Operation) -> Exception | None:
        tries.append(op.what if isinstance(op, Action) else "batch")
        return Unavailable("internal error", alive=True) if isinstance(op, Action) else None

    writer = TrackingWriter(Store(fail))
    writer.put("a", Action("x", nothing), Action("y", nothing), Batch((point(0),)))
    writer.start()
    assert writer.close(10) == 0
    assert tries == ["x"] * module.MAX_ATTEMPTS + ["y"] * module.MAX_ATTEMPTS + ["batch"]


def test_each_outage_is_told_once() -> None:
    answers: list[Exception | None] = [Unavailable("one"), Unavailable("two"), None, Unavailable("three"), None]
    told: list[str] = []
    writer = TrackingWriter(Store(lambda run, op: answers.pop(0)), told.append)
    writer.put("a", Action("x", nothing), Action("y", nothing))
    writer.start()
    assert writer.close(10) == 0
    assert [line.rpartition(" ")[2] for line in told] == ["one", "three"]


def test_after_an_answer_the_next_outage_is_asked_about_soon_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """The waits double up to the last, and begin anew."""
    monkeypatch.setattr(module, "FIRST_DELAY_S", 1.0)
    monkeypatch.setattr(module, "LAST_DELAY_S", 5.0)
    answers = [Unavailable("away")] * 4 + [None] + [Unavailable("away")] * 2 + [None]
    writer = TrackingWriter(Store(lambda run, op: answers.pop(0)))
    waits: list[float] = []
    wait_for = writer._changed.wait_for

    def waited(until: Callable[[], bool], timeout: float | None = None) -> bool:
        if timeout is not None:
            waits.append(timeout)
            return False
        return wait_for(until)

    monkeypatch.setattr(writer._changed, "wait_for", waited)
    writer.put("a", Action("x", nothing), Action("y", nothing))
    writer.start()
    assert writer.close(10) == 0
    assert waits == [1.0, 2.0, 4.0, 5.0, 1.0, 2.0]


def test_only_those_that_travelled_with_the_refused_one_go_alone() -> None:
    def fail(run: str, op: Operation) -> Exception | None:
        return Refused("bad param") if isinstance(op, Batch) and ("lr", "bad") in op.params else None

    store = Store(fail)
    writer = TrackingWriter(store)
    writer.put("a", Batch((point(0),)), Batch(params=(("lr", "bad"),)), Batch((point(1),)), Action("x", nothing))
    writer.put("a", *(Batch((point(step),)) for step in range(2, 6)))
    writer.start()
    assert writer.close(5) == 0
    sent = [[p.step for p in op.metrics] if isinstance(op, Batch) else op.what for _, op in store.sent]
    assert sent == [[0], [1], "x", [2, 3, 4, 5]]
    assert store.calls == 6  # all three, the first, the bad one, and those that were sent


def test_a_long_reason_is_one_line_that_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    writer = TrackingWriter(Store(lambda run, op: Refused("so\n  long " * 100)))
    writer.put("", Action("x", nothing))
    writer.put("a", Batch((point(0),)))
    writer.start()
    assert writer.close(5) == 0
    first, second = writer.errors
    assert first.startswith("not in MLflow: x of the sweep: so long so long")
    assert second.startswith("not in MLflow: figures of a: so long")
    for line in (first, second):
        assert len(line) == 400
        assert line.endswith("...")
        assert "\n" not in line


def test_as_few_batches_as_the_limits_allow() -> None:
    metrics = tuple(point(0, f"m{i}") for i in range(1500))
    params, tags = ((f"p{i}", "1") for i in range(100)), ((f"t{i}", "1") for i in range(100))
    first, second = batches(metrics, tuple(params), tuple(tags))
    assert (len(first.metrics), len(first.params), len(first.tags)) == (1000, 0, 0)
    assert (len(second.metrics), len(second.params), len(second.tags)) == (500, 100, 100)
    assert batches() == []


def test_the_same_point_or_param_twice_travels_once() -> None:
    both = Batch((point(0), point(1)), (("lr", "1"),)).merged(Batch((point(1), point(2)), (("lr", "1"), ("lr", "2"))))
    assert both == Batch((point(0), point(1), point(2)), (("lr", "1"), ("lr", "2")))


def test_what_was_never_started_is_counted() -> None:
    writer = TrackingWriter(Store())
    writer.put("a", Batch((point(0),)), Batch((point(1),)))
    assert writer.flush(5) == 2
    assert writer.close(5) == 2


def test_one_of_many_that_fails_has_its_own_attempts() -> None:
    """It may have been the size of all together that was too much for the moment."""
    tries: list[int] = []

    def fail(run: str, op: Operation) -> Exception | None:
        assert isinstance(op, Batch)
        tries.append(len(op.metrics))
        return Unavailable("internal error", alive=True) if point(0) in op.metrics else None

    store = Store(fail)
    writer = TrackingWriter(store)
    writer.put("a", *(Batch((point(step),)) for step in range(3)))
    writer.start()
    assert writer.close(10) == 0
    assert tries == [3] * module.MAX_ATTEMPTS + [1] * module.MAX_ATTEMPTS + [1, 1]
    assert [p.step for p in store.points("a")] == [1, 2]
