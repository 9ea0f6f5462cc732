"""AMC's episodes in a sweep: the agent's steps, the curve that is left behind, and a real sweep that is interrupted."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from raydistill import datasets
from raydistill.compression.one_shot import pruned_at_once
from raydistill.datasets import DatasetConfig
from raydistill.records import BASELINE
from raydistill.search import Dimension, SearchSpace, Uniform
from raydistill.search.amc import Episode, Levels, Meaning, ranked, run_episodes
from raydistill.search.searchers import Aim, AMCSearcher
from raydistill.sweep.curves import part_of_validation
from raydistill.sweep.episodes import _cost, _Network, ensure_episodes, layers_of, write_curve
from raydistill.sweep.evidence import pruned
from raydistill.tasks.classification import Classification, ImageShape
from raydistill.training.checkpoint import write_checkpoint
from tests.sweep.sessions import Heard, finished, is_in, session_of
from tests.sweep.test_evidence import CPU, DIGITS, normed

SHAPE = ImageShape(10, (3, 32, 32))


def test_a_step_says_what_the_layer_is_and_how_far_it_may_go() -> None:
    levels = {"conv2.weight": (0.1, 0.7), "fc1.weight": (0.0, 0.9)}
    space = SearchSpace(
        tuple(Dimension(f"per_layer.{name}.s", Uniform(low, high), name, "s") for name, (low, high) in levels.items())
    )
    searcher = AMCSearcher(space, 0).with_curves({}, {"conv2.weight": 240_000.0, "fc1.weight": -1.0}, Aim())
    conv, linear = layers_of(SHAPE.network("simplenet_cifar", {}), SHAPE.example_input(), searcher)
    assert conv.features == (16, 6, 14, 14, 1.0, 5, 16 * 6 * 25 * 100, 16 * 6 * 25)
    assert (conv.size, conv.low, conv.high) == (240_000.0, 0.1, 0.7)
    assert linear.features == (120, 400, 1, 1, 0.0, 1, 48_000, 48_000)
    assert (linear.size, linear.low, linear.high) == (0.0, 0.0, 0.9)  # what makes it worse brings nothing


@pytest.mark.slow
def test_the_rewards_are_left_as_a_table_and_a_picture(tmp_path: Path) -> None:
    episodes = [Episode((0.1 * i, 0.5), 0.5 + 0.01 * i, -10.0, 0.5 + 0.01 * i) for i in range(6)]
    write_curve(tmp_path, episodes, 2, "DDPG, mac-constrained")
    rows = list(csv.DictReader((tmp_path / "episodes.csv").read_text().splitlines()))
    assert [float(row["reward"]) for row in rows] == [episode.reward for episode in episodes]
    assert [float(row["level_0"]) for row in rows] == [episode.levels[0] for episode in episodes]
    assert (tmp_path / "episodes.png").read_bytes()[:4] == b"\x89PNG"


def test_an_allocation_is_judged_with_norms_of_what_it_sees() -> None:
    model, schedule = normed(0.5)
    network = object.__new__(_Network)  # its constructor asks Ray for the data
    network.model, network.task, network.device = model, DIGITS, CPU
    network.feed, network.loading = part_of_validation(DIGITS, CPU)
    metrics = DIGITS.evaluate(pruned(schedule, model, DIGITS, CPU), network.feed, network.loading)
    stale = DIGITS.evaluate(
        pruned_at_once(schedule, model, DIGITS.example_input()).eval(), network.feed, network.loading
    )
    assert network.metric(schedule) == metrics["top1"]
    assert metrics["loss"] != stale["loss"]


@pytest.mark.ray
@pytest.mark.long
def test_a_sweep_trains_the_best_allocations_and_goes_on_with_episodes_that_are_known(
    write_sweep: Callable[..., Path], sweep_here: Callable[..., str], spared: None, tmp_path: Path
) -> None:
    levels = {"weights": ["conv1.weight", "fc1.weight", "fc2.weight"], "final_sparsity": {"uniform": [0.0, 0.99]}}
    file = write_sweep(
        ("search", {"per_layer": levels}), ("num_samples", 2), ("training/epochs", 3), ("trial_scheduler", ...),
        ("schedule/pruners/agp/initial_sparsity", 0.0), ("constraints", ["sparsity >= 0.7"]),
        ("searcher", {"name": "amc", "heatup_episodes": 4, "training_episodes": 4, "action_range": [0.0, 0.95]}),
    )  # fmt: skip
    folder = tmp_path / "sweeps" / "tiny"
    said = sweep_here(file, "--storage", "sweeps")
    assert "playing 8 episodes over 3 layers without training (DDPG, mac-constrained)" in said

    def events() -> list[dict[str, object]]:
        return [json.loads(line) for line in (folder / "journal.jsonl").read_text().splitlines()]

    played = [tuple(e["levels"]) for e in events() if e["event"] == "episode"]  # type: ignore[arg-type]
    with (folder / "episodes.csv").open() as table:
        best = max(csv.DictReader(table), key=lambda row: float(row["reward"]))
    first = next(e["record"]["values"] for e in events() if e["event"] == "trial_started")  # type: ignore[index]
    assert list(first.values()) == pytest.approx([float(best[f"level_{i}"]) for i in range(3)])
    journal = folder / "journal.jsonl"  # as if it had been killed after five of them
    lines = journal.read_text().splitlines(keepends=True)
    fifth = [number for number, line in enumerate(lines) if json.loads(line)["event"] == "episode"][4]
    journal.write_text("".join(lines[: fifth + 1]))
    sweep_here(file, "--storage", "sweeps", "--resume")
    again = [tuple(e["levels"]) for e in events() if e["event"] == "episode"]  # type: ignore[arg-type]
    np.testing.assert_allclose(again, played, atol=1e-6)


FC = {"per_layer": {"weights": ["fc1.weight", "fc2.weight"], "final_sparsity": {"uniform": [0.0, 0.95]}}}
RANDOM = {"name": "amc", "agent": "Random-policy", "heatup_episodes": 3, "training_episodes": 2}
SIZES = {"fc1.weight": 0.8, "fc2.weight": 0.2}


@pytest.mark.parametrize(
    ("figure", "told", "cost"),
    [
        ("sparsity", 0.25, 0.75 * (3 * 6 * 25 + 6 * 16 * 25 + 400 * 120 + 120 * 84 + 84 * 10)),
        ("macs", -3e5, 3e5),
        ("size_bytes", -1e3, 1e3),
        ("latency_ms", -2.5, 2.5e6),  # nanoseconds
    ],
)
def test_what_a_figure_costs(
    write_sweep: Callable[..., Path], tmp_path: Path, figure: str, told: float, cost: float
) -> None:
    direction = "max" if figure == "sparsity" else "min"
    session = session_of(write_sweep, tmp_path, ("objectives", {"top1": "max", figure: direction}))
    assert _cost(session)(told) == pytest.approx(cost)


@pytest.mark.slow
@pytest.mark.parametrize("bounded", [True, False])
def test_episodes_that_are_known_are_played_again_without_asking_anybody(
    write_sweep: Callable[..., Path], tmp_path: Path, bounded: bool
) -> None:
    """Second route: the agent by itself, whose allocations lose what their sizes say."""
    session = session_of(
        write_sweep, tmp_path, ("search", FC), ("searcher", RANDOM), ("constraints", ["sparsity >= 0.5"]),
        ("schedule/pruners/agp/initial_sparsity", 0.0),
    )  # fmt: skip
    task = session.task = Classification(datasets.load(DatasetConfig("digits")))
    dense = tmp_path / "dense.pt"
    model = task.network("simplenet_cifar", {})
    run = {"arch": "simplenet_cifar", "model_args": {}}
    write_checkpoint(dense, {"model": model.state_dict(), "run": run, "precision": "fp32", **task.described()})
    is_in(finished(BASELINE, 0.9, 0.0, str(dense)), session)
    searcher = session.plan.searcher
    assert isinstance(searcher, AMCSearcher)
    searcher = searcher.with_curves({}, SIZES, Aim(figure=0.5 if bounded else -math.inf))
    session.plan = replace(session.plan, searcher=searcher)

    def worth(levels: Levels) -> tuple[float, float]:
        return 0.9 - levels[0] ** 2, 0.8 * levels[0] + 0.2 * levels[1]

    layers = layers_of(model, task.example_input(), searcher)
    settings = replace(searcher.settings, target=0.5 if bounded else None)
    alone = run_episodes(layers, settings, Meaning(0.0, _cost(session), True), worth, lambda episode: None)
    assert len(alone) == 5
    session.interrupt.requested = True
    assert not ensure_episodes(session)  # a signal came before the first one that is not known
    assert session.plan.searcher is searcher
    assert not (session.folder / "episodes.csv").exists()
    for episode in alone:
        session.ledger.played(list(episode.levels), episode.metric, episode.figure)
    assert ensure_episodes(session)
    assert len(session.ledger.episodes) == 5  # none was played anew
    with (session.folder / "episodes.csv").open() as table:
        rows = [float(row["reward"]) for row in csv.DictReader(table)]
    assert rows == pytest.approx([episode.reward for episode in alone])
    told = session.plan.searcher
    best = ranked(alone)
    for trial in range(2):
        values = told.suggest(trial, (), ())
        assert values is not None
        assert [values[f"per_layer.fc{i}.weight.final_sparsity"] for i in (1, 2)] == pytest.approx(best[trial].levels)
    assert isinstance(session.observer, Heard)
    said = "playing 5 episodes over 2 layers without training (Random-policy, mac-constrained)"
    assert session.observer.steps == [said, said]


def test_another_searcher_plays_none(write_sweep: Callable[..., Path], tmp_path: Path) -> None:
    session = session_of(write_sweep, tmp_path)
    before = session.plan
    assert ensure_episodes(session)
    assert session.plan is before
