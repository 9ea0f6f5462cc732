"""``searcher: auto`` and ``trial_scheduler: auto``: what they stand for, and that a resumed sweep keeps it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from raydistill.metrics import Metric
from raydistill.search import Choice, Dimension, Objective, PerLayer, Uniform
from raydistill.sweep.file.automatic import Choices, chosen
from raydistill.sweep.file.load import Overrides, Sweep, load_sweep
from raydistill.sweep.file.spec import SearcherSection, TrialSchedulerSection
from raydistill.sweep.file.warm_entries import AutoEntry, ValuesEntry
from raydistill.sweep.record.journal import History
from raydistill.sweep.record.resume import check_same

WriteSweep = Callable[..., Path]
LEVELS = {"per_layer": {"final_sparsity": {"uniform": [0.1, 0.9]}}}
WITH_BITS = {"per_layer": {"final_sparsity": {"uniform": [0.1, 0.9]}, "bits_weights": {"choice": [4, 8]}}}
ONE = {"pruners.agp.final_sparsity": {"uniform": [0.1, 0.9]}}
FEW = {"pruners.agp.final_sparsity": {"choice": [0.5, 0.7]}, "training.lr": {"choice": [0.01, 0.02, 0.05]}}


def loaded(write_sweep: WriteSweep, overrides: Overrides | None = None, **changes: Any) -> Sweep:
    said = {"searcher": ..., "trial_scheduler": ..., "training": {"epochs": 8}, **changes}
    return load_sweep(write_sweep(*said.items()), overrides)


@pytest.mark.parametrize(
    ("changes", "searcher", "scheduler"),
    [
        ({"search": LEVELS}, "additive", "none"),
        ({"search": LEVELS, "objectives": {"top1": "max", "macs": "min"}}, "additive", "none"),
        ({"search": LEVELS, "constraints": ["macs <= 0.5x", "sparsity >= 0.5"]}, "additive", "none"),
        ({"search": WITH_BITS, "objectives": {"top1": "max", "macs": "min"}}, "additive", "none"),
        ({"search": WITH_BITS, "objectives": {"top1": "max", "size_bytes": "min"}}, "sobol", "asha"),
        ({"search": LEVELS, "objectives": {"top1": "max", "size_bytes": "min"}}, "additive", "none"),
        ({"search": LEVELS, "objectives": {"top1": "max"}}, "sobol", "asha"),  # it weighs two figures
        ({"search": LEVELS, "objectives": {"top1": "max", "sparsity": "max", "macs": "min"}}, "sobol", "asha"),
        ({"search": LEVELS, "trial_scheduler": {"name": "asha"}}, "sobol", "asha"),  # it wants whole trials
        ({"search": LEVELS, "trial_scheduler": {"grace_period": 2}}, "sobol", "asha"),
        ({"search": LEVELS, "trial_scheduler": {"name": "none"}}, "additive", "none"),
        ({"search": LEVELS, "searcher": {"name": "tpe"}}, "tpe", "asha"),
        ({"search": ONE, "num_samples": 64}, "sobol", "asha"),
        ({"search": ONE, "num_samples": 65}, "evolution", "moasha"),
        ({"search": FEW, "num_samples": 6}, "grid", "none"),
        ({"search": FEW, "num_samples": 5}, "sobol", "asha"),
    ],
)
def test_what_is_chosen(write_sweep: WriteSweep, changes: dict[str, Any], searcher: str, scheduler: str) -> None:
    sweep = loaded(write_sweep, **changes)
    assert (sweep.sections.searcher.name, sweep.sections.trial_scheduler.name) == (searcher, scheduler)
    assert sweep.automatic is not None
    left = {"searcher", "trial_scheduler"} - changes.keys()
    assert set(sweep.automatic.why) == left
    assert all(sweep.automatic.said(key).startswith("auto: ") for key in left)


def test_short_trials_are_not_stopped_and_the_command_says_how_long_they_are(write_sweep: WriteSweep) -> None:
    assert loaded(write_sweep, Overrides(epochs=3), search=ONE).sections.trial_scheduler.name == "none"
    assert loaded(write_sweep, Overrides(epochs=4), search=ONE).sections.trial_scheduler.name == "asha"


def test_a_file_that_names_both_leaves_nothing_to_choose(write_sweep: WriteSweep) -> None:
    named = {"searcher": {"name": "random"}, "trial_scheduler": {"name": "none"}}
    assert loaded(write_sweep, search=ONE, **named).automatic is None


def test_a_resumed_sweep_keeps_what_it_was_started_with(write_sweep: WriteSweep) -> None:
    """More samples than before would be another searcher's; and earlier versions had other defaults."""
    started = loaded(write_sweep, search=ONE, num_samples=20, trial_scheduler={"name": "median", "grace_period": 3})
    config = started.config()
    more = loaded(write_sweep, search=ONE, num_samples=90)
    assert (more.sections.searcher.name, more.sections.trial_scheduler.name) == ("evolution", "moasha")
    kept = more.as_started(config)
    assert kept.sections.searcher == started.sections.searcher
    assert kept.sections.trial_scheduler == started.sections.trial_scheduler
    assert kept.automatic is not None
    assert kept.automatic.lines() == [
        "searcher: sobol (auto: as the sweep was started)",
        "trial_scheduler: median (auto: as the sweep was started)",
    ]
    named = loaded(write_sweep, search=ONE, searcher={"name": "random"}, trial_scheduler={"name": "none"})
    assert named.as_started(config) is named  # a file that names another is refused by `check_same`


def test_a_journals_section_names_every_option() -> None:
    section = SearcherSection(name="evolution", step=0.2)
    assert SearcherSection.of_journal(section.model_dump()) == section
    own = TrialSchedulerSection(name="pkg.mod:Mine", args={"step": 1})
    assert TrialSchedulerSection.of_journal(own.model_dump()) == own
    assert Choices(section, own).lines() == []


def test_sections_that_are_newer_than_a_sweep_have_their_defaults(write_sweep: WriteSweep) -> None:
    """What a journal of an earlier version lacks is no difference."""
    sweep = loaded(write_sweep, search=ONE, searcher={"name": "evolution"}, trial_scheduler={"name": "asha"})
    older = {key: value for key, value in sweep.config().items() if key not in ("confirm", "workers_per_trial", "seed")}
    dataset = {"name": "digits", "fingerprint": "abc"}
    history = replace(History(), start={"config": older, "dataset": dataset})
    check_same(sweep.file, history, sweep.config(), dataset, _plan())


def _plan() -> Any:
    from types import SimpleNamespace

    return SimpleNamespace(searcher=SimpleNamespace(startup=0), trials=())


@pytest.mark.slow
def test_a_searcher_that_the_tool_chose_begins_by_what_the_layers_lose(write_sweep: WriteSweep) -> None:
    stopped = loaded(write_sweep, search=LEVELS, trial_scheduler={"name": "asha"})
    assert stopped.warm_start == (AutoEntry(),)
    assert stopped.automatic is not None
    assert stopped.automatic.lines()[-1] == "warm_start: auto (levels of layers are searched)"
    others: list[dict[str, Any]] = [
        {"search": LEVELS},  # additive begins so by itself
        {"search": ONE},
        {"search": LEVELS, "objectives": {"top1": "max"}},
        {"search": LEVELS, "searcher": {"name": "sobol"}, "trial_scheduler": {"name": "asha"}},  # as it is named
        {"search": LEVELS, "searcher": {"name": "evolution", "startup": 5}},  # it says how it begins
        {"search": ONE, "searcher": {"name": "evolution"}},
    ]
    for changes in others:
        assert loaded(write_sweep, **changes).warm_start == (), changes
    learns = loaded(write_sweep, search=LEVELS, searcher={"name": "evolution"}, trial_scheduler={"name": "moasha"})
    assert learns.warm_start == (AutoEntry(),)
    assert learns.automatic is not None
    assert learns.automatic.lines() == ["warm_start: auto (levels of layers are searched)"]
    value = {"per_layer.fc1.weight.final_sparsity": 0.5}
    said = loaded(write_sweep, search=LEVELS, trial_scheduler={"name": "asha"}, warm_start=[value])
    assert [type(entry) for entry in said.warm_start] == [ValuesEntry]


def test_a_resumed_sweep_begins_as_it_was_started(write_sweep: WriteSweep) -> None:
    now = loaded(write_sweep, search=LEVELS, trial_scheduler={"name": "asha"})
    assert now.as_started(now.config()).warm_start == (AutoEntry(),)
    earlier = {**now.config(), "warm_start": None}
    kept = now.as_started(earlier)
    assert kept.warm_start == ()
    assert kept.config()["warm_start"] is None


def methods(write_sweep: WriteSweep, metric: Metric, per_layer: bool = False, **changes: Any) -> tuple[str, str]:
    """The searcher and the trial scheduler for a task of one metric, of a file that names what it says here."""
    auto = {"searcher": SearcherSection(name="auto"), "trial_scheduler": TrialSchedulerSection(name="auto")}
    sections = loaded(write_sweep, search=ONE).sections.model_copy(update={**auto, **changes})
    layers = (PerLayer(None, {"final_sparsity": Uniform(0.1, 0.9)}),) if per_layer else ()
    objectives = (Objective("figure", metric.direction), Objective("sparsity", "max"))
    drawn = (Dimension("a.b", Uniform(0.0, 1.0)),)
    found = chosen(sections, drawn, layers, objectives, {"figure": metric}, 8)
    return str(found.searcher.name), str(found.trial_scheduler.name)


def test_only_what_lies_between_0_and_1_and_is_to_be_large_is_weighed_against_sparsity(write_sweep: WriteSweep) -> None:
    assert methods(write_sweep, Metric("max", "fraction")) == ("sobol", "asha")
    assert methods(write_sweep, Metric("min", "fraction")) == ("sobol", "moasha")
    assert methods(write_sweep, Metric("max")) == ("sobol", "moasha")
    assert methods(write_sweep, Metric("min")) == ("sobol", "moasha")


def test_what_trains_whole_trials_is_not_stopped(write_sweep: WriteSweep) -> None:
    of = Metric("max", "fraction")
    for name in ("amc", "grid", "additive"):
        assert methods(write_sweep, of, searcher=SearcherSection(name=name)) == (name, "none")
    assert methods(write_sweep, of, searcher=SearcherSection(name="evolution")) == ("evolution", "moasha")
    assert methods(write_sweep, of, trunk=object()) == ("sobol", "none")


def test_levels_of_a_loop_of_ones_own_are_spread_evenly(write_sweep: WriteSweep) -> None:
    of = Metric("max", "fraction")
    assert methods(write_sweep, of, per_layer=True) == ("additive", "none")
    assert methods(write_sweep, of, per_layer=True, train=object()) == ("sobol", "asha")


def test_what_is_drawn_of_a_few_options_is_counted(write_sweep: WriteSweep) -> None:
    sections = loaded(write_sweep, search=ONE).sections.model_copy(
        update={"searcher": SearcherSection(name="auto"), "num_samples": 6}
    )
    objectives, metrics = (Objective("top1", "max"),), {"top1": Metric("max", "fraction")}
    few = (Dimension("a", Choice((1, 2))), Dimension("b", Choice((1, 2, 3))))
    found = chosen(sections, few, (), objectives, metrics, 8)
    assert (found.searcher.name, found.why["searcher"]) == ("grid", "all 6 combinations")
    layer = (PerLayer(None, {"bits": Choice((2, 4))}),)  # of how many weights is not known yet
    assert chosen(sections, few, layer, objectives, metrics, 8).searcher.name == "sobol"
