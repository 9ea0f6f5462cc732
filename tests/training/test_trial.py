"""What a loop of one's own is given, and what is written down of each of its epochs."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from raydistill.errors import CheckpointError, TrainingError
from raydistill.parts import Optimizer
from raydistill.schedule import parse_schedule
from raydistill.tasks import TaskConfig
from raydistill.training import OwnLoop, RunConfig, Trial, read_checkpoint
from raydistill.training.checkpoint import write_checkpoint
from tests.training.own_loops import Points

CPU = torch.device("cpu")
FIGURES = {"mae": 1.0, "loss": 2.0}
LEVEL = {
    "pruners": {"level": {"class": "SparsityLevelParameterPruner", "levels": {"0.weight": 0.5}}},
    "policies": [{"pruner": {"instance_name": "level"}, "epochs": [0]}],
}


def config(folder: Path | None, **changed: Any) -> RunConfig:
    loop = "tests.training.own_loops"
    made = RunConfig(
        "tests.tasks.own:net", task=TaskConfig(f"{loop}:Points"), train=OwnLoop(f"{loop}:train", {"lr": 0.5}),
        epochs=3, seed=4, batch_size=9, schedule=parse_schedule(LEVEL, "s"), device="cpu",
        out_dir=None if folder is None else str(folder), values={"train.args.lr": 0.5},
    )  # fmt: skip
    return replace(made, **changed)


def trial(folder: Path | None, **changed: Any) -> Trial:
    return Trial(config(folder, **changed), Points(), CPU)


def begun(folder: Path | None, seed: int = 0, **changed: Any) -> tuple[Trial, nn.Module, Any]:
    found = trial(folder, **changed)
    torch.manual_seed(seed)
    model = found.network()
    return found, model, found.begin(model, torch.optim.Adam(model.parameters(), lr=0.1))


def step(model: nn.Module, found: Trial, scheduler: Any, epoch: int) -> None:
    scheduler.on_epoch_begin(epoch)
    scheduler.on_minibatch_begin(epoch, 0, 1)
    model(torch.randn(4, 6)).square().mean().backward()
    assert found._engine is not None
    found._engine.optimizer.step()
    scheduler.on_minibatch_end(epoch, 0, 1)
    scheduler.on_epoch_end(epoch, **FIGURES)


def test_its_replica_is_the_model_where_there_is_one_process() -> None:
    found = trial(None)
    model = found.network()
    replica, rows = found.replica(model), torch.randn(4, 6)
    output = replica(rows)
    assert torch.equal(output, model(rows))
    output.sum().backward()
    alone = [parameter.grad.clone() for parameter in model.parameters() if parameter.grad is not None]
    replica.exchange()
    assert alone
    assert all(torch.equal(p.grad, own) for p, own in zip(model.parameters(), alone, strict=True) if p.grad is not None)


def test_it_says_what_the_file_and_the_search_have_said(tmp_path: Path) -> None:
    found = trial(tmp_path)
    assert (found.args, found.values) == ({"lr": 0.5}, {"train.args.lr": 0.5})
    assert (found.epochs, found.batch_size, found.seed, found.device) == (3, 9, 4, CPU)
    assert found.folder == tmp_path.resolve()
    assert not found.is_dense
    assert trial(tmp_path, train=None).args == {}
    assert trial(tmp_path, schedule=None).is_dense


def test_the_optimizer_is_the_files(tmp_path: Path) -> None:
    found = trial(tmp_path, optimizer=Optimizer(name="AdamW", lr=0.3))
    optimizer = found.optimizer(found.network())
    assert type(optimizer) is torch.optim.AdamW
    assert optimizer.param_groups[0]["lr"] == 0.3


def test_an_epoch_is_written_down_with_what_it_was(tmp_path: Path) -> None:
    found, model, scheduler = begun(tmp_path)
    step(model, found, scheduler, 0)
    found.state["seen"] = torch.arange(3)
    metrics = found.keep({**FIGURES, "train_loss": 0.25})
    assert (metrics.epoch, metrics.epochs, metrics.metrics, metrics.train_loss) == (0, 3, FIGURES, 0.25)
    assert metrics.learning_rate == 0.1
    assert metrics.layer_sparsity["0.weight"] == 0.5
    assert metrics.sparsity == pytest.approx(24 / 56)  # 24 of the 48 and 8 weights
    assert metrics.checkpoint == str(tmp_path.resolve() / "checkpoint.pt")
    content = read_checkpoint(tmp_path / "checkpoint.pt")
    assert (content["epoch"], content["precision"], content["run"]["arch"]) == (0, "fp32", "tests.tasks.own:net")
    assert torch.equal(content["own"]["seen"], torch.arange(3))
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in content["model"].items())
    assert "0.weight" in (tmp_path / "sparsity.csv").read_text()
    assert "SparsityLevelParameterPruner" in (tmp_path / "schedule.yaml").read_text()
    assert found.history == [metrics]
    assert (found.first_epoch, list(found.epochs_left())) == (1, [1, 2])


def test_without_a_folder_nothing_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    found, _, _ = begun(None)
    assert found.keep(FIGURES).checkpoint is None
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_one_that_was_interrupted_goes_on_where_it_was(tmp_path: Path) -> None:
    first, model, scheduler = begun(tmp_path)
    step(model, first, scheduler, 0)
    first.state["seen"] = 3
    first.keep(FIGURES)
    drawn = torch.rand(3)
    second = trial(tmp_path)
    assert second.kept_state() == {"seen": 3}
    torch.manual_seed(99)
    second.set_random_state()
    assert torch.equal(torch.rand(3), drawn)
    torch.manual_seed(98)
    other = second.network()
    optimizer = torch.optim.Adam(other.parameters(), lr=0.1)
    again = second.begin(other, optimizer)
    assert torch.equal(torch.rand(3), drawn)
    assert all(torch.equal(value, other.state_dict()[name]) for name, value in model.state_dict().items())
    assert torch.equal(again.masks["0.weight"], scheduler.masks["0.weight"])
    assert len(optimizer.state) == 4
    assert (second.state, second.first_epoch, second.history) == ({"seen": 3}, 1, first.history)


def test_the_random_state_may_be_left_to_the_loop(tmp_path: Path) -> None:
    first, *_ = begun(tmp_path)
    first.keep(FIGURES)
    second = trial(tmp_path)
    model = second.network()
    before = torch.get_rng_state()
    second.begin(model, torch.optim.Adam(model.parameters()), random_state=False)
    assert torch.equal(torch.get_rng_state(), before)
    assert second.first_epoch == 1


def test_one_that_is_not_to_go_on_begins_anew(tmp_path: Path) -> None:
    first, *_ = begun(tmp_path)
    first.state["seen"] = 3
    first.keep(FIGURES)
    second, *_ = begun(tmp_path, resume=False)
    assert (second.kept_state(), second.state, second.first_epoch) == ({}, {}, 0)


def test_it_starts_from_the_weights_that_the_run_names(tmp_path: Path) -> None:
    first, model, _ = begun(tmp_path / "first", seed=5)
    first.keep(FIGURES)
    second = trial(tmp_path / "second", init_from=str(tmp_path / "first/checkpoint.pt"))
    other = second.network()
    assert all(torch.equal(value, other.state_dict()[name]) for name, value in model.state_dict().items())
    assert second.first_epoch == 0


def test_a_checkpoint_of_another_run_is_refused(tmp_path: Path) -> None:
    first, *_ = begun(tmp_path)
    first.keep(FIGURES)
    other = trial(tmp_path, train=OwnLoop("tests.training.own_loops:train", {"lr": 0.6}))
    model = other.network()
    with pytest.raises(CheckpointError, match=r"was trained with train .*'lr': 0.5"):
        other.begin(model, torch.optim.Adam(model.parameters()))


def test_a_state_that_is_damaged_is_one_line(tmp_path: Path) -> None:
    first, *_ = begun(tmp_path)
    first.keep(FIGURES)
    write_checkpoint(tmp_path / "checkpoint.pt", {**read_checkpoint(tmp_path / "checkpoint.pt"), "own": [3]})
    with pytest.raises(CheckpointError, match="is damaged: its 'own' is not what it must be"):
        trial(tmp_path).kept_state()


def test_sparsity_is_of_the_network_that_was_not_thinned(tmp_path: Path) -> None:
    """Four of its eight units are gone: half of its weights."""
    found = trial(tmp_path)
    found.network()
    smaller = nn.Sequential(nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 1))
    found.begin(smaller, torch.optim.SGD(smaller.parameters(), lr=0.1))
    assert found.keep(FIGURES).sparsity == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("yielded", "line"),
    [
        ({"mea": 1.0}, r"^train: yields a metric that the task does not know, got 'mea'; .*'mae'"),
        ({"mae": 1.0}, r"^train: yields no 'loss', got \['mae'\]; the task names its metrics$"),
        (0.5, r"^train: yields no metrics, got 'float'; yield a mapping with mae, loss$"),
        ({"mae": math.nan, "loss": 1.0}, r"^epoch 0: mae must be finite, got nan; lower the learning rate$"),
        ({**FIGURES, "train_loss": math.inf}, r"^epoch 0: train_loss must be finite, got inf"),
    ],
)
def test_what_is_yielded_wrongly_is_one_line_and_nothing_is_kept(yielded: Any, line: str, tmp_path: Path) -> None:
    found, *_ = begun(tmp_path)
    with pytest.raises(TrainingError, match=line):
        found.keep(yielded)
    assert found.history == []
    assert not (tmp_path / "checkpoint.pt").exists()


def test_more_epochs_than_it_has_and_one_that_did_not_begin_are_one_line(tmp_path: Path) -> None:
    found, *_ = begun(tmp_path)
    for _ in range(3):
        found.keep(FIGURES)
    with pytest.raises(TrainingError, match=r"^train: yields more than the 3 epochs of a trial, got 4$"):
        found.check_epoch()
    with pytest.raises(TrainingError, match=r"^train: must call trial.begin\(model, optimizer\) before its first"):
        trial(tmp_path / "other").keep(FIGURES)


def test_only_a_loop_that_is_no_generator_reports(tmp_path: Path) -> None:
    found = trial(tmp_path)
    with pytest.raises(RuntimeError, match="does not report"):
        found.report(FIGURES)
    told: list[Any] = []
    found.reported = told.append
    found.report(FIGURES)
    assert told == [FIGURES]
