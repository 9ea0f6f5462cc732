"""One piece makes a checkpoint of a run and takes it up again, whoever's loop it is."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from raydistill.compression import build
from raydistill.errors import CheckpointError
from raydistill.records import EpochMetrics
from raydistill.schedule import dump_schedule, parse_schedule
from raydistill.tasks import TaskConfig
from raydistill.training import OwnLoop, RunConfig, fit, read_checkpoint
from raydistill.training.kept import Kept
from tests.tasks.own import Line, net

SCHEDULE = parse_schedule({
    "pruners": {"level": {"class": "SparsityLevelParameterPruner", "levels": {"0.weight": 0.5}}},
    "policies": [{"pruner": {"instance_name": "level"}, "epochs": [0]}],
}, "level")  # fmt: skip


def begun(seed: int, identity: dict[str, object] | None = None) -> Kept:
    """A network of its own seed, in mid-run: a step of Adam, and a mask."""
    torch.manual_seed(seed)
    task, model = Line(), net()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
    scheduler = build(SCHEDULE, model, optimizer, task.example_input())
    scheduler.on_epoch_begin(0)
    scheduler.on_minibatch_begin(0, 0, 1)
    model(torch.randn(4, 6)).sum().backward()
    optimizer.step()
    scheduler.on_minibatch_end(0, 0, 1)
    return Kept(model, optimizer, scheduler, task, identity or {"arch": "net"}, dump_schedule(SCHEDULE), "Adam")


EPOCH = EpochMetrics(0, 3, None, {"mae": 1.0, "loss": 2.0}, 0.1, 0.5, {}, 0.0, 1.0, 7)


def state_of(kept: Kept) -> list[torch.Tensor]:
    moments = [value["exp_avg"] for value in kept.optimizer.state_dict()["state"].values()]
    return [*kept.model.state_dict().values(), *moments, kept.scheduler.masks["0.weight"]]


def test_another_run_takes_up_all_of_it() -> None:
    first, second = begun(1), begun(2)
    content = first.content("fp32", [EPOCH], own={"seen": 3})
    expected = [tensor.clone() for tensor in state_of(first)]
    drawn = torch.rand(3)  # what comes after the state that is kept
    assert not all(map(torch.equal, state_of(second), expected))
    assert second.resume({**content, "precision": "fp32"}, "c.pt") == [EPOCH]
    assert all(map(torch.equal, state_of(second), expected))
    assert torch.equal(torch.rand(3), drawn)
    assert (content["epoch"], content["own"], content["dataset"]) == (0, {"seen": 3}, "points on a line")


def test_chance_and_weights_may_be_left_to_the_caller() -> None:
    content, other = begun(1).content("fp32", [EPOCH]), begun(2)
    weights = {name: value.clone() for name, value in other.model.state_dict().items()}
    torch.manual_seed(5)
    before, asked = torch.get_rng_state(), []
    other.resume(content, "c.pt", lambda found, where: asked.append((found is content, where)), random_state=False)
    assert torch.equal(torch.get_rng_state(), before)
    assert asked == [(True, "c.pt")]
    masked = other.scheduler.masks["0.weight"] == 0
    for name, value in other.model.state_dict().items():
        kept = weights[name].masked_fill(masked, 0) if name == "0.weight" else weights[name]
        assert torch.equal(value, kept)


@pytest.mark.parametrize("key", ["schedule_hash", "optimizer", "scheduler", "rng", "history"])
def test_what_lacks_a_part_is_refused_by_its_name(key: str) -> None:
    content = begun(1).content("fp32", [EPOCH])
    del content[key]
    with pytest.raises(CheckpointError, match=f"^c.pt: is damaged: its '{key}' is missing"):
        begun(1).resume(content, "c.pt")


def test_what_is_of_another_run_is_refused_before_anything_is_taken() -> None:
    content, other = begun(1).content("fp32", [EPOCH]), begun(2, {"arch": "other"})
    before = [tensor.clone() for tensor in state_of(other)]
    with pytest.raises(CheckpointError, match=r"^c.pt: was trained with arch 'net', got 'other'"):
        other.resume(content, "c.pt")
    assert all(map(torch.equal, state_of(other), before))


@pytest.mark.slow
def test_both_loops_keep_the_same_keys(tmp_path: Path) -> None:
    engine: Any = RunConfig(
        "tests.tasks.own:net", task=TaskConfig("tests.tasks.own:Line"), epochs=1, batch_size=16, precision="fp32",
        schedule=SCHEDULE, device="cpu", threads=1, tensorboard=False, out_dir=str(tmp_path / "engine"),
    )  # fmt: skip
    own = replace(engine, train=OwnLoop("tests.training.own_loops:as_the_engine_does"), out_dir=str(tmp_path / "own"))
    for run in (engine, own):
        list(fit(run))
    theirs, ours = (read_checkpoint(tmp_path / name / "checkpoint.pt") for name in ("engine", "own"))
    assert set(theirs) - set(ours) == {"stepping"}
    assert set(ours) - set(theirs) == {"own"}
    assert all(torch.equal(value, ours["model"][name]) for name, value in theirs["model"].items())


def test_the_task_is_written_as_it_was_asked_for() -> None:
    kept = begun(1)
    assert "task" not in kept.content("fp32", [EPOCH])
    asked = {"name": "mine:Line", "args": {}, "dataset": {}}
    assert replace(kept, asked=asked).content("fp32", [EPOCH])["task"] == asked
