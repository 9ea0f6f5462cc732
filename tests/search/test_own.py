"""A searcher and a trial scheduler of one's own are watched while they are asked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pytest

from raydistill.errors import ConfigError, TrainingError
from raydistill.records import Scalar
from raydistill.search import Dimension, SearchSpace, Uniform
from raydistill.search.decisions import GO_ON, PAUSE, Figures, Measure, Stopping, TrialScheduler, Verdict
from raydistill.search.observations import Observation
from raydistill.search.own import own_searcher, own_trial_scheduler, searcher_class, trial_scheduler_class
from raydistill.search.searchers import Searcher

SPACE = SearchSpace((Dimension("lr", Uniform(0.0, 1.0)),))


class Says(Searcher):
    """Gives what it was made with; a function is called."""

    startup = 7

    def __init__(self, space: SearchSpace, seed: int, given: object = None) -> None:
        if given == "made":
            raise KeyError("in its constructor")
        self.given = given

    def suggest(self, trial: int, seen: Sequence[Observation], stages: Sequence[int]) -> Mapping[str, Scalar] | None:
        return self.given() if callable(self.given) else self.given  # type: ignore[return-value]


class Rules(Stopping):
    def __init__(self, measure: Measure, *, max_epochs: int, answer: object) -> None:
        self.answer, self.max_epochs = answer, max_epochs

    def result(self, trial: int, epochs_done: int, figures: Figures) -> Verdict:
        return self.answer  # type: ignore[return-value]

    def promotable(self, paused: object, drained: bool) -> int | None:
        return self.answer  # type: ignore[return-value]

    def failed(self, trial: int) -> None:
        raise ZeroDivisionError("oh")


def searcher(given: object) -> Searcher:
    return own_searcher(f"{__name__}:Says", {"given": given}, SPACE, 0, "s.yaml: searcher")


def test_what_can_be_drawn_is_passed_on_as_a_plain_number() -> None:
    for given in (0.25, np.float64(0.25)):
        found = searcher({"lr": given}).suggest(0, (), ())
        assert found == {"lr": 0.25}
        assert type(found["lr"]) is float
    assert searcher(None).suggest(0, (), ()) is None
    assert searcher(None).startup == 7


def raises(error: Exception) -> object:
    def call() -> None:
        raise error

    return call


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({}, "gives no value for 'lr'; all are needed"),
        ({"lr": 0.5, "lrs": 1}, "gives 'lrs', which is not searched; did you mean 'lr'?"),
        ({"lr": 2.0}, "'lr' must be one that the search can draw"),
        ([0.5], "must give a mapping of key paths to values"),
        (raises(ValueError("no")), "fails (ValueError: no)"),
    ],
)
def test_what_cannot_be_drawn_is_a_line(given: object, says: str) -> None:
    with pytest.raises(ConfigError, match=r"^s\.yaml: searcher: suggest\(\) for trial 3 ?") as caught:
        searcher(given).suggest(3, (), ())
    assert says in str(caught.value)
    with pytest.raises(TrainingError, match="its own line"):  # an error of ours is said as it is
        searcher(raises(TrainingError("its own line"))).suggest(3, (), ())


def test_names_and_arguments_are_checked_before_anything_is_made() -> None:
    assert searcher_class(f"{__name__}:Says", {"given": "made"}, "s") is Says
    with pytest.raises(ConfigError, match=r"s\.args\.givn: unknown argument; did you mean 'given'"):
        searcher_class(f"{__name__}:Says", {"givn": 1}, "s")
    with pytest.raises(ConfigError, match=r"s\.name: is not a TrialScheduler"):
        trial_scheduler_class(f"{__name__}:Says", {}, "s")
    with pytest.raises(ConfigError, match=r"s\.args\.answer: is missing"):
        trial_scheduler_class(f"{__name__}:Rules", {}, "s")
    with pytest.raises(ConfigError, match="fails \\(KeyError: 'in its constructor'"):
        own_searcher(f"{__name__}:Says", {"given": "made"}, SPACE, 0, "s")


def test_an_answer_has_to_be_a_verdict_or_a_paused_trial() -> None:
    def made(answer: object) -> Stopping:
        return own_trial_scheduler(f"{__name__}:Rules", {"answer": answer}, lambda f: (), 4, "s")  # type: ignore[return-value]

    assert made(Verdict(GO_ON)).result(0, 1, {}) == Verdict(GO_ON)
    with pytest.raises(ConfigError, match="must give a Verdict: go on, stop or pause, got 'stop'"):
        made("stop").result(0, 1, {})
    assert made(2).promotable({1, 2}, drained=False) == 2
    with pytest.raises(ConfigError, match="must give one of the paused trials or None, got 3"):
        made(3).promotable({1, 2}, drained=False)
    with pytest.raises(ConfigError, match=r"failed\(\) fails \(ZeroDivisionError: oh\)"):
        made(None).failed(0)
    assert made(None).until(0, 1) is None


class Pausing(TrialScheduler):
    """Keeps what it is told."""

    def __init__(self, measure: Measure, *, max_epochs: int) -> None:
        self.told: list[object] = []
        TOLD.append(self.told)

    def result(self, trial: int, epochs_done: int, figures: Figures) -> Verdict:
        return Verdict(PAUSE, "paused here")

    def promotable(self, paused: object, drained: bool) -> int | None:
        return 2 if drained else None

    def promoted(self, trial: int) -> None:
        self.told.append(("promoted", trial))

    def failed(self, trial: int) -> None:
        self.told.append(("failed", trial))

    def until(self, trial: int, epochs_done: int) -> int | None:
        return trial + epochs_done

    def why_not_promoted(self, trial: int) -> str:
        return f"{trial} was not good enough"


TOLD: list[list[object]] = []


def test_everything_is_passed_on_both_ways() -> None:
    own = own_trial_scheduler(f"{__name__}:Pausing", {}, lambda f: (), 4, "s")
    assert own.result(0, 1, {}) == Verdict(PAUSE, "paused here")
    assert (own.promotable({2}, drained=True), own.promotable({2}, drained=False)) == (2, None)
    own.promoted(2)
    own.failed(1)
    assert TOLD[-1] == [("promoted", 2), ("failed", 1)]
    assert own.until(3, 4) == 7
    assert own.why_not_promoted(3) == "3 was not good enough"


def test_a_searcher_is_made_for_the_space_and_the_seed_of_the_sweep() -> None:
    assert searcher(lambda: {"lr": 0}).suggest(0, (), ()) == {"lr": 0.0}
    made = own_searcher(f"{__name__}:Seeded", {}, SPACE, 9, "s").suggest(5, ["seen"], [7])  # type: ignore[list-item]
    assert made == {"lr": 0.9}
    assert SAID[-1] == (SPACE, 9, 5, ["seen"], [7])


class Seeded(Says):
    def __init__(self, space: SearchSpace, seed: int) -> None:
        self.of = (space, seed)

    def suggest(self, trial: int, seen: Sequence[Observation], stages: Sequence[int]) -> Mapping[str, Scalar]:
        SAID.append((*self.of, trial, seen, stages))
        return {"lr": self.of[1] / 10}


SAID: list[tuple[object, ...]] = []
