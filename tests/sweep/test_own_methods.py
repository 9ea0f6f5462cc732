"""A user's own searcher and trial scheduler, named in a sweep file: they search, and what is wrong is a line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from raydistill import tasks
from raydistill.errors import ConfigError
from raydistill.search import Dimension, SearchSpace, Uniform
from raydistill.search.decisions import STOP
from raydistill.search.search import DONE, NEW, Search
from raydistill.sweep.file.load import load_sweep
from raydistill.sweep.file.spec import SearcherSection, TrialSchedulerSection
from raydistill.sweep.planning.methods import make_search, make_searcher
from raydistill.sweep.planning.plan import check_plan, plan_sweep

OWN = "tests.search.own:"
LADDER, PATIENCE = f"{OWN}Ladder", f"{OWN}Patience"
LR, LEVEL = "training.lr", "pruners.agp.level"
SPACE = SearchSpace((Dimension(LR, Uniform(0.0, 1.0)), Dimension(LEVEL, Uniform(0.0, 2.0))))


def search_of(file: Path) -> Search:
    sweep = load_sweep(file)
    sections = sweep.sections
    searcher = make_searcher(sections.searcher, SPACE, sections.seed, 9)
    return make_search(
        sections.searcher, sections.trial_scheduler, searcher, sweep.objectives, sections.training.epochs, 9
    )


def test_they_search_without_ray(write_sweep: Callable[..., Path]) -> None:
    search = search_of(
        write_sweep(
            ("searcher", {"name": LADDER, "args": {"step": 0.5}}),
            ("trial_scheduler", {"name": PATIENCE, "args": {"epochs": 2}}),
        )
    )
    assert search.next().kind == NEW
    assert search.observations[0].values == {"training.lr": 0.0, "pruners.agp.level": 0.0}
    for epochs in (1, 2, 3, 4):
        verdict = search.result(0, epochs, {"top1": 0.1 * epochs, "planned_sparsity": 0.5})
        assert verdict.action != STOP
    search.ended(0)
    search.next()
    assert search.observations[1].values == {"training.lr": 0.5, "pruners.agp.level": 1.0}
    said = [search.result(1, epochs, {"top1": 0.3, "planned_sparsity": 0.5}) for epochs in (1, 2, 3)]
    assert [(verdict.action, verdict.why) for verdict in said[2:]] == [(STOP, "no better for 2 epochs")]
    search.ended(1)
    search.next()
    assert search.observations[2].values == {"training.lr": 0.5, "pruners.agp.level": 1.0}, "from the best that ended"


def test_a_searcher_that_has_nothing_left_ends_the_search(write_sweep: Callable[..., Path]) -> None:
    search = search_of(write_sweep(("searcher", {"name": LADDER, "args": {"step": 2.0}})))
    search.next()
    for epochs in (1, 2, 3, 4):
        search.result(0, epochs, {"top1": 0.5, "planned_sparsity": 0.5})
    search.ended(0)
    assert search.next().kind == DONE


def test_what_depends_on_no_result_is_planned(write_sweep: Callable[..., Path]) -> None:
    sweep = load_sweep(write_sweep(("searcher", {"name": LADDER})))
    shape = tasks.foreseen(sweep.task, sweep.dataset)
    assert shape is not None
    plan = plan_sweep(sweep, shape)
    layers = {f"per_layer.{layer}.weight.final_sparsity": 0.3 for layer in ("fc1", "fc2")}
    assert [dict(trial.values) for trial in plan.trials] == [pytest.approx({LR: 0.01, **layers})]
    assert plan.count == 3


@pytest.mark.parametrize(
    ("section", "said", "says"),
    [
        ("searcher", {"name": f"{OWN}Lader"}, "searcher.name: module 'tests.search.own' has no such searcher"),
        ("searcher", {"name": f"{OWN}NotASearcher"}, "searcher.name: is not a Searcher, got"),
        ("searcher", {"name": f"{OWN}Unfinished"}, "searcher.name: is abstract, it lacks suggest"),
        ("searcher", {"name": PATIENCE}, "searcher.name: is not a Searcher"),
        ("searcher", {"name": "os:system"}, "searcher.name: is not a Searcher"),
        ("searcher", {"name": LADDER, "args": {"stp": 1}}, "searcher.args.stp: unknown argument; did you mean 'step'?"),
        ("searcher", {"name": LADDER, "args": {"seed": 1}}, "searcher.args.seed: unknown argument"),
        ("searcher", {"name": LADDER, "startup": 3}, "Ladder has no use for startup (its options: args)"),
        ("searcher", {"name": "random", "args": {}}, "random has no use for args (its options: none)"),
        ("trial_scheduler", {"name": LADDER}, "trial_scheduler.name: is not a TrialScheduler"),
        ("trial_scheduler", {"name": PATIENCE}, "trial_scheduler.args.epochs: is missing; add 'epochs:'"),
        ("trial_scheduler", {"name": PATIENCE, "args": {"epochs": 1, "max_epochs": 2}}, "max_epochs: unknown argument"),
        ("trial_scheduler", {"name": "ashe"}, "trial_scheduler.name: must be one of auto, moasha, asha"),
    ],
)
def test_what_is_wrong_is_a_line_when_the_file_is_read(
    write_sweep: Callable[..., Path], section: str, said: dict[str, Any], says: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        load_sweep(write_sweep((section, said)))
    assert says in str(caught.value)
    assert len(caught.value.faults) == 1


@pytest.mark.parametrize(
    ("section", "said", "says"),
    [
        ("searcher", {"name": LADDER, "args": {"step": 0}}, "tests.search.own:Ladder fails (ValueError: step must be"),
        (
            "searcher",
            {"name": f"{OWN}Gives", "args": {"given": "error"}},
            "suggest() for trial 0 fails (ZeroDivisionErr",
        ),
        ("searcher", {"name": f"{OWN}Gives", "args": {"given": 1}}, "suggest() for trial 0 must give a mapping"),
        ("searcher", {"name": f"{OWN}Gives", "args": {"given": {}}}, "trial 0 gives no value for 'training.lr'"),
        ("trial_scheduler", {"name": PATIENCE, "args": {"epochs": 1, "patience": 2}}, "patience: unknown argument"),
    ],
)
def test_what_cannot_be_made_or_asked_is_a_line_before_anything_runs(
    write_sweep: Callable[..., Path], section: str, said: dict[str, Any], says: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        check_plan(load_sweep(write_sweep((section, said))))
    assert says in str(caught.value)
    assert f"space.yaml: {section}" in str(caught.value)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({LR: 0.5}, f"searcher: suggest() for trial 3 gives no value for '{LEVEL}'"),
        ({LR: 0.5, LEVEL: 0.5, "training.lrs": 1}, "gives 'training.lrs', which is not searched; did you mean"),
        ({LR: 1.5, LEVEL: 0.5}, f"'{LR}' must be one that the search can draw, uniform"),
    ],
)
def test_values_that_the_search_cannot_draw_are_a_line(given: dict[str, float], says: str) -> None:
    searcher = make_searcher(SearcherSection(name=f"{OWN}Gives", args={"given": given}), SPACE, 0, 9)
    with pytest.raises(ConfigError) as caught:
        searcher.suggest(3, (), ())
    assert says in str(caught.value)


def test_numbers_of_numpy_are_numbers() -> None:
    given = {LEVEL: np.float32(0.5), LR: np.int64(1)}
    searcher = make_searcher(SearcherSection(name=f"{OWN}Gives", args={"given": given}), SPACE, 0, 9)
    drawn = searcher.suggest(3, (), ())
    assert drawn is not None
    assert [(path, value, type(value)) for path, value in drawn.items()] == [(LR, 1.0, float), (LEVEL, 0.5, float)]


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        ("error", "trial_scheduler: result() for trial 0 fails (ZeroDivisionError: division by zero)"),
        ("stop", "trial_scheduler: result() for trial 0 must give a Verdict: go on, stop or pause, got 'stop'"),
    ],
)
def test_an_answer_that_is_none_is_a_line(answer: str, says: str) -> None:
    scheduling = TrialSchedulerSection(name=f"{OWN}Answers", args={"answer": answer})
    searcher = make_searcher(SearcherSection(name="random"), SPACE, 0, 9)
    search = make_search(SearcherSection(name="random"), scheduling, searcher, (), 4, 9)
    search.next()
    with pytest.raises(ConfigError) as caught:
        search.result(0, 1, {})
    assert str(caught.value) == says
