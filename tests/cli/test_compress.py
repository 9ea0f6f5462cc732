"""``raydistill compress``: one run, its lines, its table, its errors."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from raydistill import models
from raydistill.training import read_checkpoint
from raydistill.training.checkpoint import write_checkpoint
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


@pytest.mark.slow
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


ADAPTERS = """
version: 1
pruners:
  half: {class: SparsityLevelParameterPruner, levels: {"fc*.weight": 0.8}}
extensions:
  recovery: {class: LowRankRecovery, rank: 4}
policies:
  - {pruner: {instance_name: half}, epochs: [0]}
  - {extension: {instance_name: recovery}, starting_epoch: 1, ending_epoch: 3, frequency: 1}
"""


@pytest.mark.slow
def test_adapters_on_what_pruning_has_left(run: Command, tmp_path: Path) -> None:
    (tmp_path / "adapters.yaml").write_text(ADAPTERS)
    ended = run("--compress", "adapters.yaml", "--epochs", "3", "-b", "128", "--num-best-scores", "3")
    assert (ended.code, ended.err) == (0, "")
    assert [line.split()[1] for line in ended.out.splitlines() if line.split()[:1] == ["fc2.weight"]] == ["80.00"]
    content = read_checkpoint(tmp_path / "runs" / "simplenet_cifar-adapters" / "checkpoint.pt")
    adapters = content["scheduler"]["policies"][1]["adapters"]
    assert set(adapters) == {"fc1.weight", "fc2.weight", "fc3.weight"}
    for name, adapter in adapters.items():
        weight, mask = content["model"][name], content["scheduler"]["masks"][name]
        assert not weight[~mask].any()
        torch.testing.assert_close(weight, (adapter["base"] + 4 * adapter["up"] @ adapter["down"]) * mask)
        assert not torch.equal(weight, adapter["base"])


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
        (["--augment", "tests.tasks.classification.own:NOPE"], "dataset.augment"),
        (["--lr", "-1"], "training.lr: must be a number from 0 up, got -1.0"),
        (["--lr", "1e300"], "training.lr: must be a number from 0 up, below 3.40282e+38, got 1e+300"),
        (["--precision", "fp8"], "got 'fp8'"),
    ],
)
def test_a_bad_option(run: Command, arguments: list[str], expected: str) -> None:
    ended = run(*arguments)
    assert ended.code == 2
    assert expected in ended.err
    assert "Traceback" not in ended.err


@pytest.mark.slow
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


@pytest.mark.slow
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
    assert " test samples: top1 " in tested.out


@pytest.mark.slow
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
        (
            ("--effective-train-size", "0"),
            "training.effective_train_size: must be a number above 0 and up to 1, got 0.0",
        ),
        (("--evs", "1.5"), "effective_valid_size: must be a number above 0 and up to 1, got 1.5"),
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
    (found,) = client.search_runs([client.get_experiment_by_name("compress").experiment_id])
    assert found.info.status == "FINISHED"
    assert found.data.params["arch"] == "simplenet_cifar"
    history = client.get_metric_history(found.info.run_id, "sparsity")
    assert [(point.step, round(point.value, 4)) for point in history] == [(0, 0.0940), (1, 0.4701), (2, 0.4701)]
    assert 0.0 <= found.data.metrics["test_top1"] <= 1.0
    assert {"schedule.yaml", "sparsity.csv"} <= {f.path for f in client.list_artifacts(found.info.run_id)}
    import mlflow
    import numpy as np

    (model,) = client.search_logged_models([found.info.experiment_id])  # of the run as it is now, not after two epochs
    assert (model.name, model.source_run_id, str(model.status)) == ("one", found.info.run_id, "READY")
    said = {metric.key: (metric.value, metric.step) for metric in model.metrics}
    assert said["test_top1"] == (found.data.metrics["test_top1"], 2)
    assert said["macs"] == (found.data.metrics["macs"], 2) == (651_720.0, 2)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/runs/mlflow.db")
    served = mlflow.pyfunc.load_model(f"models:/{model.model_id}")
    assert served.predict({"image": np.zeros((2, 32, 32, 3), dtype=np.uint8)}).shape == (2, 10)
    assert not list((tmp_path / "runs" / "one").glob("mlflow_pending*"))


@pytest.mark.slow
def test_distillers_spellings(run: Command, tmp_path: Path) -> None:
    ended = run("--learning-rate", "0.02", "--wd", "0.001", "--det", "--vs", "0.2", "--etrs", "0.2", "--evs", "0.5",
                "--etes", "0.5", "-v", "--cpu", "--masks-sparsity", "--compress", "agp.yaml", "--epochs", "2",
                "-b", "64", "--name", "d")  # fmt: skip
    assert (ended.code, ended.err) == (0, "")
    saved = read_checkpoint(tmp_path / "runs" / "d" / "checkpoint.pt")
    assert (saved["run"]["lr"], saved["run"]["weight_decay"], saved["run"]["validation"]) == (0.02, 0.001, 0.2)
    assert saved["run"]["effective_train_size"] == 0.2
    assert "training loss" in ended.out  # -v
    assert sum(line.split()[:1] == ["fc2.weight"] for line in ended.out.splitlines()) == 3  # each epoch, and the end


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["AdamW", "RMSprop", "SGD without momentum"])
def test_another_optimizers_state_is_one_line(run: Command, tmp_path: Path, kind: str) -> None:
    model = models.create("simplenet_cifar", 10)
    make = {"AdamW": torch.optim.AdamW, "RMSprop": torch.optim.RMSprop, "SGD without momentum": torch.optim.SGD}[kind]
    optimizer = make(model.parameters(), lr=0.01)
    model(torch.zeros(2, 3, 32, 32)).sum().backward()
    optimizer.step()
    state = optimizer.state_dict()
    if kind.startswith("SGD"):
        del state["param_groups"][0]["momentum"]
    write_checkpoint(tmp_path / "other.pt", {**content_of(model), "optimizer": state})
    ended = run("--resume-from", tmp_path / "other.pt", "--epochs", "3")
    assert ended.code == 2
    assert ended.err.count("\n") == 1
    assert "was trained with another optimizer than SGD" in ended.err
    assert "--reset-optimizer" in ended.err


@pytest.mark.slow
def test_momenta_of_the_shapes_before_thinning_are_left_and_it_is_said(run: Command, tmp_path: Path) -> None:
    model = models.create("simplenet_cifar", 10)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    model(torch.zeros(2, 3, 32, 32)).sum().backward()
    optimizer.step()
    state = optimizer.state_dict()
    state["state"][0]["momentum_buffer"] = torch.zeros(99, 3, 5, 5)
    write_checkpoint(tmp_path / "thinned.pt", {**content_of(model), "optimizer": state})
    ended = run("--resume-from", tmp_path / "thinned.pt", "--epochs", "2", "--etrs", "0.1", "--name", "on")
    assert ended.code == 0
    assert "its optimizer's state of 'conv1.weight' is of another shape" in ended.out
    assert "going on with a fresh optimizer" in ended.out
    assert ended.err == ""
    assert read_checkpoint(tmp_path / "runs" / "on" / "checkpoint.pt")["epoch"] == 1


def content_of(model: torch.nn.Module) -> dict[str, Any]:
    return {
        "run": {"arch": "simplenet_cifar", "model_args": {}}, "num_classes": 10, "model": dict(model.state_dict()),
        "epoch": 0, "schedule_hash": "none", "scheduler": {"masks": {}}, "rng": None, "precision": "fp32",
    }  # fmt: skip


@pytest.mark.slow
def test_a_schedule_for_other_images_than_cifars_is_checked_with_those(
    raydistill: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It needs an example input, and the network takes two classes and images of 64x64 or more only."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "large.py").write_text(
        "import numpy as np, torch\nfrom torch import nn\nfrom raydistill.datasets import ArrayDataset\n"
        "class Net(nn.Module):\n"
        "    def __init__(self, num_classes):\n"
        "        super().__init__(); assert num_classes == 2\n"
        "        self.conv1 = nn.Conv2d(3, 8, 12, 4); self.bn1 = nn.BatchNorm2d(8)\n"
        "        self.conv2 = nn.Conv2d(8, 8, 9); self.bn2 = nn.BatchNorm2d(8); self.fc = nn.Linear(8, 2)\n"
        "    def forward(self, x):\n"
        "        x = self.bn2(self.conv2(self.bn1(self.conv1(x)).relu()))\n"
        "        return self.fc(x.relu().mean((2, 3)))\n"
        "def images(config):\n"
        "    x = np.random.default_rng(0).integers(0, 255, (40, 64, 64, 3), dtype=np.uint8); y = np.arange(40) % 2\n"
        "    return ArrayDataset('two', ('a', 'b'), (.5,) * 3, (.25,) * 3, 'none', x, y, x, y, np.arange(32),\n"
        "                        np.arange(32, 40))\n"
    )
    (tmp_path / "slim.yaml").write_text(
        "pruners: {s: {class: RankedPruner, ranking: bn_scale, granularity: Filters, final_sparsity: 0.5,\n"
        "              weights: [conv2.weight]}}\n"
        "policies: [{pruner: {instance_name: s}, starting_epoch: 0, ending_epoch: 1, frequency: 1}]\n"
    )
    words = ["--arch", "large:Net", "--dataset", "large:images", "--compress", "slim.yaml", "--epochs", "1"]
    ended = raydistill("compress", *words, "-b", "16", "--no-mlflow", "--precision", "fp32", "--name", "large")
    assert (ended.code, ended.err) == (0, "")
    small = raydistill("compress", *words[:2], "--dataset", "digits", "--epochs", "1", "--no-mlflow")
    assert small.code == 2
    assert small.err.count("\n") == 1
