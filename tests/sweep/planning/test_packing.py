"""What is said of packing before a sweep starts, and what it takes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from raydistill.datasets import DatasetConfig, load
from raydistill.sweep.file.load import load_sweep
from raydistill.sweep.planning.packing import Packing, packing_of
from raydistill.sweep.planning.plan import plan_sweep
from raydistill.tasks.classification import Classification

WriteSweep = Callable[..., Path]
SIXTEEN = ("resources_per_trial", {"cpu": 1, "pack": 16})


@pytest.fixture(scope="module")
def task() -> Classification:
    return Classification(load(DatasetConfig("digits")))


def packing(write_sweep: WriteSweep, task: Classification, *changes: tuple[str, Any]) -> Packing:
    sweep = load_sweep(write_sweep(*changes))
    return packing_of(sweep, plan_sweep(sweep, task), task)


@pytest.mark.slow
def test_a_sweep_that_asks_for_none(write_sweep: WriteSweep, task: Classification) -> None:
    found = packing(write_sweep, task)
    assert not found.wanted
    assert str(found) == "none"


@pytest.mark.slow
def test_the_memory_of_a_pack_by_hand(write_sweep: WriteSweep, task: Classification) -> None:
    found = packing(write_sweep, task, SIXTEEN)
    assert found.wanted
    assert found.bytes is not None
    parameters = 61_770 + 6 + 16 + 120 + 84 + 10
    assert found.bytes.held == 4 * 4 * parameters  # weights, gradients, momentum, masks
    # of an image at least: what each of the five layers reads, what both poolings read
    least = 3 * 32 * 32 + 6 * 14 * 14 + 400 + 120 + 84 + 6 * 28 * 28 + 16 * 10 * 10
    assert 4 * 128 * least <= found.bytes.passing <= 3 * 4 * 128 * least
    total = 16 * found.bytes.total / 2**20
    assert str(found) == f"16 trials as one network, about {total:,.0f} MiB ({total / 16:,.0f} MiB a trial)"


@pytest.mark.slow
def test_auto_says_what_a_trial_takes(write_sweep: WriteSweep, task: Classification) -> None:
    found = packing(write_sweep, task, ("resources_per_trial", {"cpu": 1, "pack": "auto"}))
    assert found.wanted
    assert found.asked is None
    assert str(found).startswith("as many trials as are measured to be fastest as one network, ")


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ([("workers_per_trial", 2)], "each trains on workers of its own"),
        ([("distillation", {})], "a teacher watches each network by itself"),
        (
            [("model/arch", "tests.training.packing.nets:dropping"), ("search/per_layer", ...)],
            "it draws random numbers",
        ),
    ],
)
def test_what_is_trained_one_by_one(
    changes: list[tuple[str, Any]], why: str, write_sweep: WriteSweep, task: Classification
) -> None:
    if changes[0][0] == "model/arch":
        changes = [*changes, ("schedule/pruners/agp/weights", ["conv1.weight", "fc1.weight", "fc2.weight"])]
    found = packing(write_sweep, task, SIXTEEN, *changes)
    assert not found.wanted
    assert str(found).startswith(f"none, trials are trained one by one: {why}")


@pytest.mark.parametrize("wrong", [0, -1, "most", 1.5, 2000])
def test_a_pack_is_a_number_or_auto(wrong: object, write_sweep: WriteSweep) -> None:
    with pytest.raises(Exception, match=r"resources_per_trial\.pack"):
        load_sweep(write_sweep(("resources_per_trial", {"cpu": 1, "pack": wrong})))
