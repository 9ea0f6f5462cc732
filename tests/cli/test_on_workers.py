"""``raydistill compress --num-workers``: its lines, its errors, and that it goes on."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from raydistill.training import read_checkpoint
from tests.cli.conftest import Ended

Command = Callable[..., Ended]
CORES = len(os.sched_getaffinity(0))


@pytest.fixture
def run(raydistill: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Command:
    monkeypatch.chdir(tmp_path)
    common = ("--arch", "simplenet_cifar", "--dataset", "digits", "--no-mlflow", "--name", "run", "-b", "128")
    return lambda *arguments: raydistill("compress", *common, *arguments)


@pytest.mark.ray
@pytest.mark.long
def test_a_run_on_two_workers_goes_on_from_one_in_one_process(run: Command, tmp_path: Path) -> None:
    assert run("--epochs", "1", "--precision", "fp32").code == 0
    ended = run("--epochs", "2", "--precision", "fp32", "--num-workers", "2", "-p", "2", "--cpus-per-worker", CORES / 2)
    assert (ended.code, ended.err) == (0, "")
    lines = ended.out.splitlines()
    assert "holds 1 epochs already: going on" in lines[0]
    assert lines[1:3] == ["starting Ray", "2 workers: 128 samples a step, of all of them together"]
    assert lines[3].startswith("  epoch 2, step ")
    assert any(line.startswith("  2/2  loss ") for line in lines)
    assert any(line.startswith("top1 on digits: validation") for line in lines)
    assert max(map(len, lines)) <= 80
    content = read_checkpoint(tmp_path / "runs" / "run" / "checkpoint.pt")
    assert [metrics["epoch"] for metrics in content["history"]] == [0, 1]
    assert (tmp_path / "runs" / "run" / "best.pt").exists()


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--num-workers", "two"), "--num-workers: must be a whole number from 1 up, or the fewest and the most"),
        (("--num-workers", "4:2"), "--num-workers: must be a whole number from 1 up, or the fewest and the most"),
        (("--num-workers", "0"), "--num-workers: must be a whole number from 1 up"),
        (("--num-workers", CORES + 1), f"--num-workers: asks for {CORES + 1} workers of 1 CPU, there is room for"),
        (("--num-workers", "2", "--gpus-per-worker", "1"), "asks for 2 workers of 1 GPU and 1 CPU, there is room for"),
        (("--num-workers", "2", "--gpus", "0"), "--gpus: chooses a GPU for one process, got 'cuda:0'; use --gpus-per"),
        (("--address", "127.0.0.1:1"), "--address: is for several workers; add --num-workers N"),
        (("--num-workers", "2", "--address", "127.0.0.1:1"), "--address 127.0.0.1:1: nothing answers there"),
    ],
)
def test_what_cannot_be_is_one_line(run: Command, options: tuple[object, ...], says: str) -> None:
    if "1" in options and "--gpus-per-worker" in options:
        torch = pytest.importorskip("torch")
        if torch.cuda.device_count() > 1:
            pytest.skip("there are GPUs here")
    ended = run("--epochs", "1", *options)
    assert ended.code == 2
    assert says in ended.err
    assert ended.err.count("\n") == 1
