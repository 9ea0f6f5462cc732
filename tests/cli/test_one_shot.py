"""``raydistill compress --one-shot`` and its options."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from raydistill.cli.one_shot import schedule_of
from raydistill.errors import ConfigError
from raydistill.parts import OneShot
from raydistill.training import read_checkpoint
from tests.cli.conftest import Ended

Command = Callable[..., Ended]


@pytest.fixture
def prune(raydistill: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trained: Path) -> Command:
    monkeypatch.chdir(tmp_path)
    common = ("--arch", "simplenet_cifar", "--dataset", "digits", "--name", "shot", "--no-mlflow", "--cpu")
    return lambda *arguments: raydistill("compress", *common, "--resume-from", trained, "-b", "64", *arguments)


def weights(path: Path) -> dict[str, torch.Tensor]:
    return {name: value for name, value in read_checkpoint(path)["model"].items() if value.dim() > 1}


@pytest.mark.slow
def test_a_checkpoint_is_pruned_tested_and_written_and_what_stays_may_have_changed(
    prune: Command,
    tmp_path: Path,
    trained: Path,
) -> None:
    ended = prune("--one-shot", "sparsegpt", "--one-shot-sparsity", "0.5", "--one-shot-batches", "4")
    assert ended.code == 0, ended.err
    assert "top1 on digits: validation" in ended.out
    found, before = weights(tmp_path / "runs/shot/checkpoint.pt"), weights(trained)
    assert all(int((weight == 0).sum()) == weight.numel() // 2 for weight in found.values())
    assert any(not torch.equal(found[name][found[name] != 0], before[name][found[name] != 0]) for name in found)


@pytest.mark.slow
def test_two_of_four_by_wanda_leave_what_stays(prune: Command, tmp_path: Path, trained: Path) -> None:
    ended = prune("--one-shot", "wanda", "--one-shot-pattern", "2:4", "--one-shot-weights", "fc1.weight,fc2.weight")
    assert ended.code == 0, ended.err
    found, before = weights(tmp_path / "runs/shot/checkpoint.pt"), weights(trained)
    for name in ("fc1.weight", "fc2.weight"):
        assert bool(((found[name] != 0).reshape(-1, 4).sum(1) == 2).all())
    for name, weight in found.items():
        assert torch.equal(weight[weight != 0], before[name][weight != 0])
    assert int((found["fc3.weight"] == 0).sum()) == 0


@pytest.mark.slow
def test_with_epochs_and_a_teacher_it_recovers_and_its_zeros_stay(
    prune: Command, tmp_path: Path, trained: Path
) -> None:
    taught = ("--epochs", "1", "--kd-resume", trained, "--lr", "0.01")
    ended = prune("--one-shot", "sparsegpt", "--one-shot-sparsity", "0.5", *taught)
    assert ended.code == 0, ended.err
    found = weights(tmp_path / "runs/shot/checkpoint.pt")
    assert all(int((weight == 0).sum()) == weight.numel() // 2 for weight in found.values())
    bias = read_checkpoint(tmp_path / "runs/shot/checkpoint.pt")["model"]["fc1.bias"]
    assert not torch.equal(bias, read_checkpoint(trained)["model"]["fc1.bias"]), "it is trained"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (("--one-shot-sparsity", "0.5"), "--one-shot: is missing; wanda or sparsegpt"),
        (("--one-shot", "sparsgpt", "--one-shot-sparsity", "0.5"), "got 'sparsgpt'; did you mean 'sparsegpt'?"),
        (("--one-shot", "wanda"), "--one-shot-sparsity: or --one-shot-pattern must be given, one of the two"),
        (("--one-shot", "wanda", "--one-shot-pattern", "2of4"), "--one-shot-pattern: must be two numbers, got '2of4'"),
        (
            ("--one-shot", "wanda", "--one-shot-pattern", "2:4"),
            "m = 4 does not divide its 3 inputs, got 'conv1.weight'",
        ),
        (("--one-shot", "wanda", "--one-shot-sparsity", "50"), "must be a fraction in [0, 1), got 50.0; did you mean"),
    ],
)
def test_what_cannot_be_is_one_line(prune: Command, arguments: tuple[str, ...], line: str) -> None:
    ended = prune(*arguments)
    assert ended.code == 2
    assert line in " ".join(ended.err.split())


def test_it_needs_a_checkpoint(raydistill: Command) -> None:
    ended = raydistill("compress", "-a", "simplenet_cifar", "--one-shot", "wanda", "--one-shot-sparsity", "0.5")
    assert ended.code == 2
    assert "--one-shot: needs a checkpoint; add --resume-from CHECKPOINT" in ended.err


def test_it_is_a_schedule_of_one_pruner() -> None:
    said: dict[str, Any] = {"method": "wanda", "weights": ("a", "b"), "sparsity": 0.5, "allocation": "owl"}
    spec = schedule_of(OneShot(**said, batches=3))
    assert spec is not None
    expected = {"class": "WandaPruner", "weights": ["a", "b"], "final_sparsity": 0.5, "allocation": "owl"}
    assert spec.mapping["pruners"] == {"one_shot": expected}
    assert spec.policies[0].args == {"evidence_minibatches": 3}
    assert schedule_of(OneShot()) is None
    narrowed = schedule_of(OneShot(**said, types=("Linear",), excluded=("c",)))
    assert narrowed is not None
    assert narrowed.mapping["pruners"] == {"one_shot": {**expected, "types": ["Linear"], "except": ["c"]}}
    with pytest.raises(ConfigError, match="both are given"):
        schedule_of(OneShot(method="wanda", sparsity=0.5, pattern="2:4"))
