"""``raydistill compress``: one run, its lines, its table, its errors."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from raydistill.training import read_checkpoint
from tests.cli.conftest import Ended

Command = Callable[..., Ended]
SCHEDULE = """
version: 1
pruners:
  agp: {class: AutomatedGradualPruner, initial_sparsity: 0.1, final_sparsity: 0.5, weights: [fc1.weight, fc2.weight]}
policies:
  - {pruner: {instance_name: agp}, starting_epoch: 0, ending_epoch: 2, frequency: 1}
"""


@pytest.fixture
def run(raydistill: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Command:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "agp.yaml").write_text(SCHEDULE)

    common = ("--arch", "simplenet_cifar", "--dataset", "digits", "--precision", "fp32", "--no-mlflow")

    def command(*arguments: object) -> Ended:
        return raydistill("compress", *common, *arguments)

    return command


def test_a_run_and_the_same_command_again(run: Command, tmp_path: Path) -> None:
    ended = run("--compress", "agp.yaml", "--epochs", "2", "-b", "128")
    assert (ended.code, ended.err) == (0, "")
    lines = ended.out.splitlines()
    assert [line.split()[0] for line in lines[:2]] == ["1/2", "2/2"]
    # half of 48,000 and of 10,080 of the 61,770 weights
    assert f"sparsity {100 * 29040 / 61770:.2f} %" in lines[1]
    assert any(line.split() == ["fc2.weight", "50.00"] for line in lines)
    assert any(line.split() == ["total", f"{100 * 29040 / 61770:.2f}"] for line in lines)
    assert "top1 on digits: validation" in ended.out
    assert max(map(len, lines)) <= 80
    checkpoint = tmp_path / "runs" / "simplenet_cifar-agp" / "checkpoint.pt"
    assert read_checkpoint(checkpoint)["epoch"] == 1
    again = run("--compress", "agp.yaml", "--epochs", "2", "-b", "128")
    assert "holds 2 epochs already: all of them" in again.out
    assert "1/2" not in again.out


@pytest.mark.slow
def test_more_epochs_go_on_where_the_first_run_ended(run: Command) -> None:
    run("--epochs", "1")
    longer = run("--epochs", "2")
    assert "holds 1 epochs already: going on" in longer.out
    assert longer.out.splitlines()[1].startswith("  2/2")


@pytest.mark.slow
def test_dense_training_and_starting_from_it(run: Command, tmp_path: Path) -> None:
    assert run("--epochs", "1", "--name", "dense").code == 0
    dense = tmp_path / "runs" / "dense" / "checkpoint.pt"
    ended = run("--epochs", "2", "--compress", "agp.yaml", "--resume-from", dense, "--reset-optimizer", "--name", "pruned")
    assert ended.code == 0
    assert read_checkpoint(tmp_path / "runs" / "pruned" / "checkpoint.pt")["run"]["init"] != "random"


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("fc2.weight", "fc9.weight", "agp.yaml: pruners.agp.weights: the model has no such weight, got 'fc9.weight'"),
        ("final_sparsity: 0.5", "final_sparsity: 0.05", "agp.yaml: pruners.agp.final_sparsity: must not be below"),
        ("initial_sparsity", "intial_sparsity", "did you mean 'initial_sparsity'?"),
        ("ending_epoch: 2", "ending_epoch: 0", "agp.yaml: policies[0].ending_epoch: must be above starting_epoch 0"),
        (
            "ending_epoch: 2",
            "ending_epoch: 9",
            "agp.yaml: policies[0].ending_epoch: must end within --epochs (2), got 9",
        ),
    ],
)
def test_a_bad_schedule(run: Command, tmp_path: Path, old: str, new: str, expected: str) -> None:
    (tmp_path / "agp.yaml").write_text(SCHEDULE.replace(old, new))
    ended = run("--compress", "agp.yaml", "--epochs", "2", "--strict")
    assert (ended.code, ended.out) == (2, "")
    assert expected in ended.err
    assert all(line.startswith("error: ") for line in ended.err.splitlines())
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--arch", "simplenet"], "--arch: unknown model, got 'simplenet'; did you mean 'simplenet_cifar'?"),
        (["--compress", "gone.yaml"], "gone.yaml: no such file"),
        (["--dataset", "digit"], "unknown dataset, got 'digit'; did you mean 'digits'?"),
        (["--data-dir", "gone", "--dataset", "imagefolder"], "gone"),
        (["--resume-from", "gone.pt"], "gone.pt: no such checkpoint"),
        (["--lr", "-1"], "training.lr: must be a number from 0 up, got -1.0"),
        (["--precision", "fp16"], "got 'fp16'"),
    ],
)
def test_a_bad_option(run: Command, arguments: list[str], expected: str) -> None:
    ended = run(*arguments)
    assert ended.code == 2
    assert expected in ended.err
    assert "Traceback" not in ended.err
