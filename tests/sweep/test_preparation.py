"""What is trained before the trials: in its own process's steps, interrupted where it hurts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from raydistill.errors import RaydistillError
from raydistill.records import EpochMetrics
from raydistill.storage.store import Folder
from raydistill.sweep import preparation
from raydistill.tasks import TaskConfig
from raydistill.training import RunConfig, read_checkpoint
from tests.tasks.own import Line

RUN = RunConfig(
    "tests.tasks.own:net", task=TaskConfig("tests.tasks.own:Line"), epochs=3, lr=0.01, batch_size=16, device="cpu",
    precision="fp32", tensorboard=False,
)  # fmt: skip


def messages(folder: Path, run: RunConfig = RUN, keep: tuple[int, ...] = (2, 3)) -> Any:
    run = replace(run, out_dir=str(folder / "trunk"))
    stream = preparation._train(run, Line(), Folder(folder), "trunk", keep)
    _, process = next(stream)
    assert process > 0
    return stream


@pytest.mark.slow
def test_networks_are_kept_on_the_way(tmp_path: Path) -> None:
    epochs = [message.epoch for message in messages(tmp_path)]
    assert epochs == [0, 1, 2]
    assert sorted(path.name for path in (tmp_path / "trunk").glob("after-*")) == ["after-0002.pt", "after-0003.pt"]


@pytest.mark.slow
def test_what_was_killed_before_a_network_was_kept_keeps_it_when_it_goes_on(tmp_path: Path) -> None:
    stream = messages(tmp_path)
    assert [next(stream).epoch for _ in range(2)] == [0, 1]
    stream.close()
    kept = tmp_path / "trunk" / "after-0002.pt"
    before = read_checkpoint(kept)["model"]
    kept.unlink()
    assert [message.epoch for message in messages(tmp_path)] == [2]
    again = read_checkpoint(kept)["model"]
    assert all((before[name] == again[name]).all() for name in before)


@pytest.mark.slow
def test_a_network_that_was_lost_is_trained_for_again(tmp_path: Path) -> None:
    list(messages(tmp_path))
    kept = tmp_path / "trunk" / "after-0002.pt"
    before = read_checkpoint(kept)["model"]
    kept.unlink()
    assert [message.epoch for message in messages(tmp_path)] == [0, 1, 2]
    again = read_checkpoint(kept)["model"]
    assert all((before[name] == again[name]).all() for name in before)


@pytest.mark.slow
def test_a_damaged_checkpoint_is_trained_again(tmp_path: Path) -> None:
    list(messages(tmp_path))
    (tmp_path / "trunk" / "checkpoint.pt").write_bytes(b"half a file")
    assert [message.epoch for message in messages(tmp_path)] == [0, 1, 2]


def test_an_error_travels_as_a_value(tmp_path: Path) -> None:
    (message,) = messages(tmp_path, replace(RUN, init_from=str(tmp_path / "gone.pt")))
    assert not isinstance(message, EpochMetrics)
    assert isinstance(message, RaydistillError)
    assert "gone.pt" in str(message)


@pytest.mark.slow
def test_it_is_left_after_as_many_epochs_as_are_wanted_and_not_begun_again(tmp_path: Path) -> None:
    run = replace(RUN, out_dir=str(tmp_path / "start"))

    def told(until: int) -> list[int]:
        _, *epochs = preparation._train(run, Line(), Folder(tmp_path), "start", (), until)
        return [message.epoch for message in epochs]  # type: ignore[union-attr]

    assert told(2) == [0, 1]
    assert told(2) == []
    assert told(3) == [2]
