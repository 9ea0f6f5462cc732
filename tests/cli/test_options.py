"""The optimizer's options of `compress`: what is typed is what the run has."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from raydistill.cli.options import arguments
from raydistill.errors import ConfigError
from raydistill.training import read_checkpoint
from tests.cli.conftest import Ended

Command = Callable[..., Ended]
TINY = ("--arch", "simplenet_cifar", "--dataset", "digits", "--precision", "fp32", "--no-mlflow", "--etrs", "0.1",
        "--epochs", "1", "--name", "run")  # fmt: skip


@pytest.fixture
def run(raydistill: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Command:
    monkeypatch.chdir(tmp_path)
    return lambda *arguments: raydistill("compress", *TINY, *arguments)


@pytest.mark.slow
def test_another_optimizer_and_what_is_done_around_its_steps(run: Command, tmp_path: Path) -> None:
    ended = run(
        "--optimizer", "AdamW", "--lr", "0.05", "--optimizer-args", "betas: [0.9, 0.98], eps: 1e-7",
        "--no-decay", "norms, biases", "--clip", "1", "--accumulate", "2", "--warmup-epochs", "0.5", "--ema", "0.9",
    )  # fmt: skip
    assert (ended.code, ended.err) == (0, "")
    content = read_checkpoint(tmp_path / "runs/run/checkpoint.pt")
    assert content["run"]["optimizer"] == {
        "name": "AdamW", "lr": 0.05, "args": {"betas": [0.9, 0.98], "eps": 1e-7}, "no_decay": ["norms", "biases"],
        "clip_norm": 1.0, "accumulate": 2, "warmup_epochs": 0.5, "ema": 0.9,
    }  # fmt: skip
    weights, biases = content["optimizer"]["param_groups"]
    assert (weights["lr"], weights["betas"], weights["eps"], weights["weight_decay"]) == (0.05, (0.9, 0.98), 1e-7, 0.01)
    assert biases["weight_decay"] == 0.0


@pytest.mark.slow
def test_a_rate_that_is_not_typed_is_the_optimizer_s_own(run: Command, tmp_path: Path) -> None:
    assert run("--optimizer", "RMSprop").code == 0
    assert read_checkpoint(tmp_path / "runs/run/checkpoint.pt")["optimizer"]["param_groups"][0]["lr"] == 0.01


@pytest.mark.parametrize(
    ("typed", "line"),
    [
        (("--optimizer", "Adam", "--momentum", "0.5"), "training.momentum: is SGD's, the optimizer is Adam, got 0.5"),
        (("--optimizer", "Adam", "--optimizer-args", "betas"), "training.optimizer: Adam does not take it"),
        (("--optimizer", "Adam", "--optimizer-args", "[1]"), "--optimizer-args"),
        (("--optimizer", "sgd"), "training.optimizer.name: unknown optimizer, got 'sgd'; did you mean 'SGD'?"),
        (("--accumulate", "0"), "--accumulate"),
    ],
)
def test_what_is_wrong_is_said_and_nothing_is_trained(
    run: Command, tmp_path: Path, typed: tuple[str, ...], line: str
) -> None:
    ended = run(*typed)
    assert ended.code == 2
    assert line in ended.err
    assert "Traceback" not in ended.err
    assert not (tmp_path / "runs").exists()


def test_arguments_with_and_without_braces() -> None:
    assert arguments("{a: 1, b: [x, 2]}", "--o") == arguments("a: 1, b: [x, 2]", "--o") == {"a": 1, "b": ["x", 2]}
    with pytest.raises(ConfigError, match=r"^--o(:1)?: "):
        arguments("{a: !!python/object/apply:os.system [true]}", "--o")
