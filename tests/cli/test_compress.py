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
    ended = run(
        "--epochs", "2", "--compress", "agp.yaml", "--resume-from", dense, "--reset-optimizer", "--name", "pruned"
    )
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


def test_the_lines_are_in_a_file_and_the_best_epoch_in_a_checkpoint(run: Command, tmp_path: Path) -> None:
    ended = run("--compress", "agp.yaml", "--epochs", "2", "-b", "128", "-p", "2", "--num-best-scores", "2")
    folder = tmp_path / "runs" / "simplenet_cifar-agp"
    log = (folder / "run.log").read_text()
    lines = [line.rstrip() for line in ended.out.splitlines()]
    assert set(lines) <= {line.rstrip() for line in log.splitlines()}
    assert any(line.startswith("  epoch 1, step ") for line in lines)
    assert lines.index(next(line for line in lines if line.startswith("best 1: epoch 2, sparsity 47.01 %"))) > 0
    assert any(line.startswith("best 2: epoch 1, sparsity 9.40 %") for line in lines)
    assert read_checkpoint(folder / "best.pt")["epoch"] == 1


def test_going_on_from_a_checkpoint_and_starting_anew_from_its_weights(run: Command, tmp_path: Path) -> None:
    assert run("--epochs", "1", "--name", "first").code == 0
    first = tmp_path / "runs" / "first" / "checkpoint.pt"
    further = run("--epochs", "2", "--name", "further", "--resume-from", first)
    assert [line.split()[0] for line in further.out.splitlines()[:1]] == ["2/2"]
    anew = run("--epochs", "1", "--name", "anew", "--resume-from", first, "--reset-optimizer")
    assert anew.out.split()[0] == "1/1"
    done = run("--epochs", "1", "--name", "done", "--resume-from", first)
    assert (done.code, done.out) == (2, "")
    assert "training.epochs: must be above 1" in done.err
    tested = run("--resume-from", first, "--evaluate", "--effective-test-size", "0.5")
    assert tested.code == 0
    assert tested.out.startswith("digits, ")
    assert " test images: top1 " in tested.out


def test_data_options_reach_the_run(run: Command, tmp_path: Path) -> None:
    ended = run(
        *("--epochs", "1", "--validation-split", "0.5", "--effective-train-size", "0.5", "-j", "0"),
        *("--effective-valid-size", "0.1", "--gpus", "-1", "--seed", "3", "--momentum", "0.5", "--name", "small"),
    )
    assert ended.code == 0
    identity = read_checkpoint(tmp_path / "runs" / "small" / "checkpoint.pt")["run"]
    assert (identity["validation"], identity["effective_train_size"]) == (0.5, 0.5)
    assert (identity["seed"], identity["momentum"]) == (3, 0.5)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--gpus", "0,1"), "--gpus: must be the number of one GPU, or -1, got '0,1'; give one number"),
        (("--gpus", "99"), "device: is not here"),
        (("--evaluate",), "--evaluate: needs a checkpoint; add --resume-from CHECKPOINT"),
        (("--reset-optimizer",), "--reset-optimizer: needs a checkpoint"),
        (("--effective-train-size", "0"), "training.effective_train_size: must be a fraction above 0 and up to 1"),
        (("--validation-split", "1.5"), "dataset.validation"),
        (("--resume-from", "none.pt"), "none.pt: no such checkpoint"),
    ],
)
def test_wrong_options_are_one_line_and_leave_nothing(
    run: Command, tmp_path: Path, options: tuple[str, ...], says: str
) -> None:
    ended = run("--epochs", "1", *options)
    assert (ended.code, ended.out) == (2, "")
    assert says in ended.err
    assert ended.err.count("\n") == 1
    assert not list(tmp_path.glob("runs/*/checkpoint.pt"))


@pytest.mark.slow
def test_figures_are_in_mlflow(raydistill: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mlflow import MlflowClient

    monkeypatch.chdir(tmp_path)
    (tmp_path / "agp.yaml").write_text(SCHEDULE)
    common = ("compress", "--arch", "simplenet_cifar", "--dataset", "digits", "--compress", "agp.yaml", "--name", "one")
    assert raydistill(*common, "--epochs", "2").code == 0
    assert raydistill(*common, "--epochs", "3").code == 0
    client = MlflowClient(f"sqlite:///{tmp_path}/runs/mlflow.db")
    (found,) = client.search_runs([client.get_experiment_by_name("one").experiment_id])
    assert found.info.status == "FINISHED"
    assert found.data.params["arch"] == "simplenet_cifar"
    history = client.get_metric_history(found.info.run_id, "sparsity")
    assert [(point.step, round(point.value, 4)) for point in history] == [(0, 0.0940), (1, 0.4701), (2, 0.4701)]
    assert 0.0 <= found.data.metrics["test_top1"] <= 1.0
    assert {"schedule.yaml", "sparsity.csv"} <= {f.path for f in client.list_artifacts(found.info.run_id)}
