"""``raydistill sensitivity``: a run, Ctrl-C and going on, another range, errors."""

from __future__ import annotations

import csv
import json
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
import yaml
from torch import nn

from raydistill import models, tasks
from raydistill.datasets import DatasetConfig
from raydistill.parts import Pixels
from raydistill.sweep.file.load import load_sweep
from raydistill.tasks import Loading, TaskConfig, Weights
from raydistill.training import RunConfig, evaluate_checkpoint, fit
from raydistill.training.checkpoint import write_checkpoint
from tests.cli.conftest import Ended

Command = Callable[..., Ended]
CPU = torch.device("cpu")
PLAIN = {"run": {"arch": "simplenet_cifar", "model_args": {}}, "plain": True}
MODULE = """
import os, signal
from pathlib import Path
import torch
import yaml
from torch import nn

class Net(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.conv = nn.Conv2d(3, 5, 3, stride=4)
        self.fc = nn.Linear(5, num_classes)

    def forward(self, x):
        countdown = Path("countdown")
        if countdown.exists():
            left = int(countdown.read_text()) - 1
            countdown.write_text(str(left))
            if left == 0:
                countdown.unlink()
                os.kill(os.getpid(), signal.{signal})
        return self.fc(torch.relu(self.conv(x)).mean((2, 3)))
"""


@pytest.fixture
def sensitivity(raydistill: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Command:
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    name = f"net_{abs(hash(tmp_path))}"  # a module of its own: an earlier test's would still be imported
    for number in ("SIGINT", "SIGTERM"):
        (tmp_path / f"{name}_{number.lower()}.py").write_text(MODULE.replace("{signal}", number))
        monkeypatch.syspath_prepend(tmp_path)
        net = nn.ModuleDict({"conv": nn.Conv2d(3, 5, 3, stride=4), "fc": nn.Linear(5, 10)})
        content = {
            "run": {"arch": f"{name}_{number.lower()}:Net", "model_args": {}, "validation": 0.1, "split_seed": 0},
            "num_classes": 10,
            "precision": "fp32",
            "dataset": "digits",
            "model": net.state_dict(),
        }
        write_checkpoint(tmp_path / f"{number.lower()}.pt", content)

    def command(*arguments: object, checkpoint: str = "sigint.pt") -> Ended:
        kind = "sigterm" if checkpoint == "sigterm.pt" else "sigint"
        own = [] if "--arch" in arguments else ["--arch", f"{name}_{kind}:Net"]
        return raydistill("sensitivity", "--checkpoint", checkpoint, *own, *arguments)

    return command


def rows(folder: Path) -> list[dict[str, str]]:
    with open(folder / "sensitivity.csv", newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.slow
def test_a_run(sensitivity: Command, tmp_path: Path) -> None:
    ended = sensitivity("--sense-range", "0", "0.9", "0.3")
    assert (ended.code, ended.err) == (0, "")
    found = rows(tmp_path / "sensitivity")
    assert [(row["weight"], row["level"]) for row in found] == [
        (name, level) for name in ("conv.weight", "fc.weight") for level in ("0.0", "0.3", "0.6")
    ]
    assert found[0]["top1"] == found[3]["top1"]
    assert all(0 <= float(row["top1"]) <= float(row["top5"]) <= 1 for row in found)
    assert len({row["loss"] for row in found}) == 5
    assert (tmp_path / "sensitivity" / "sensitivity.png").read_bytes()[:4] == b"\x89PNG"
    assert "on the validation split of digits (145 samples), one weight pruned by element" in ended.out
    lines = ended.out.splitlines()
    assert lines[1].split() == ["0", "%", "30", "%", "60", "%"]
    assert lines[2].split() == ["conv.weight", *(f"{100 * float(row['top1']):.2f}" for row in found[:3])]
    assert max(map(len, lines[1:])) <= 80


@pytest.fixture
def ctrl_c_works() -> Iterator[None]:
    """A shell that starts tests in the background has them ignore SIGINT."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.slow
@pytest.mark.usefixtures("ctrl_c_works")
@pytest.mark.parametrize(("kind", "number"), [("sigint", signal.SIGINT), ("sigterm", signal.SIGTERM)])
def test_ctrl_c_keeps_what_was_measured_and_the_same_command_goes_on(
    sensitivity: Command, tmp_path: Path, kind: str, number: int
) -> None:
    arguments = ("--sense-range", "0", "0.9", "0.1")
    handlers = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    whole = sensitivity(*arguments, "-o", "whole", checkpoint=f"{kind}.pt")
    (tmp_path / "countdown").write_text("12")
    ended = sensitivity(*arguments, "-o", "part", checkpoint=f"{kind}.pt")
    assert ended.code == 130
    assert "interrupted: 12 of 18 points are measured; the same command goes on" in ended.out
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == handlers
    assert len(rows(tmp_path / "part")) == 12, "11 evaluations, and the dense one stands for both weights"
    (tmp_path / "countdown").write_text("1000")
    again = sensitivity(*arguments, "-o", "part", checkpoint=f"{kind}.pt")
    assert (tmp_path / "countdown").read_text() == "994", "6 of 18 points were left"
    assert rows(tmp_path / "part") == rows(tmp_path / "whole")
    assert again.out.replace("part/", "whole/") == whole.out


@pytest.mark.slow
def test_filters_some_weights_and_another_range_in_the_same_folder(sensitivity: Command, tmp_path: Path) -> None:
    arguments = ("--sense", "filter", "--weights", "conv*", "--images", "40", "--split", "test")
    ended = sensitivity(*arguments, "--sense-range", "0", "0.9", "0.4")
    assert "on the test split of digits (40 samples), one weight pruned by filter" in ended.out
    assert [row["pruned"] for row in rows(tmp_path / "sensitivity")] == ["0.0", "0.4", "0.8"]
    sensitivity(*arguments, "--sense-range", "0.2", "0.9", "0.4")
    assert [row["level"] for row in rows(tmp_path / "sensitivity")] == ["0.0", "0.2", "0.4", "0.6", "0.8"]
    before = (tmp_path / "sensitivity" / "sensitivity.csv").read_bytes()
    ended = sensitivity("--sense", "channel")
    assert ended.code == 2
    assert "sensitivity: holds an analysis with another split, 'test', got 'validation'" in ended.err
    assert (tmp_path / "sensitivity" / "sensitivity.csv").read_bytes() == before
    (tmp_path / "sensitivity" / "sensitivity.json").write_text("{")
    assert "sensitivity.json: cannot be read" in sensitivity(*arguments).err


@pytest.mark.slow
def test_what_it_was_measured_with_is_beside_it(sensitivity: Command, tmp_path: Path) -> None:
    sensitivity("--sense-range", "0", "0.5", "0.25", "--images", "10")
    about = json.loads((tmp_path / "sensitivity" / "sensitivity.json").read_text())
    assert {key: about[key] for key in ("dataset", "split", "images", "sense")} == {
        "dataset": "digits",
        "split": "validation",
        "images": 10,
        "sense": "element",
    }


@pytest.mark.slow
def test_a_search_space_is_written_that_a_sweep_takes(
    sensitivity: Command, raydistill: Command, tmp_path: Path
) -> None:
    content = torch.load(tmp_path / "sigint.pt", weights_only=True)
    write_checkpoint(tmp_path / "dense.pt", {**content, "history": [{}] * 4})
    arguments = ("--sense-range", "0", "0.9", "0.3", "--write-space", "space.yaml", "--max-drop", "0.5")
    ended = sensitivity(*arguments, checkpoint="dense.pt")
    assert (ended.code, ended.err) == (0, "")
    assert ended.out.endswith("space.yaml    raydistill sweep space.yaml\n")
    dry = raydistill("sweep", "space.yaml", "--dry-run")
    assert (dry.code, dry.err) == (0, "")
    # an untrained network has less than 50 points to lose: both weights bear all that was measured
    assert dry.out.count("uniform(0.3, 0.84)") == 2
    assert "warm_start[0]" in dry.out
    assert "16 of 4 epochs" in dry.out
    before = (tmp_path / "space.yaml").read_bytes()
    again = sensitivity(*arguments, checkpoint="dense.pt")
    assert (again.code, again.out) == (2, "")
    assert "--write-space: space.yaml is there already; add --overwrite" in again.err
    assert (tmp_path / "space.yaml").read_bytes() == before
    assert sensitivity(*arguments, "--overwrite", checkpoint="dense.pt").code == 0


@pytest.mark.slow
def test_a_network_of_another_task_is_measured_by_its_metric_and_searched_as_it(
    raydistill: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    task, data = TaskConfig("regression", {"loss": "huber"}), DatasetConfig("diabetes", validation=0.3)
    run = RunConfig("mlp", data, task=task, epochs=2, precision="fp32", device="cpu", tensorboard=False, out_dir="run")
    list(fit(run))
    options = ("--task", "regression", "--task-args", "loss: huber", "--dataset", "diabetes")
    command = ("sensitivity", "--checkpoint", "run/checkpoint.pt", *options, "--sense-range", "0", "0.9", "0.4")
    ended = raydistill(*command, "--write-space", "space.yaml", "--max-drop", "0.9")
    assert (ended.code, ended.err) == (0, "")
    assert ended.out.startswith("rmse on the validation split of diabetes (106 samples), one weight pruned")
    task_of_network = tasks.load(task, data, Weights("mlp"))
    dense = evaluate_checkpoint("run/checkpoint.pt", task_of_network, "validation", "cpu")
    assert float(rows(tmp_path / "sensitivity")[0]["rmse"]) == pytest.approx(dense.metrics["rmse"], rel=1e-4)
    sweep = load_sweep(tmp_path / "space.yaml")
    assert (sweep.task, sweep.dataset.name, sweep.dataset.validation) == (task, "diabetes", 0.3)
    assert [(o.name, o.direction) for o in sweep.objectives] == [("rmse", "min"), ("sparsity", "max")]
    wrong = raydistill(*command[:3], "--task", "regresion")
    assert (wrong.code, wrong.out) == (2, "")
    assert "task.name: unknown task, got 'regresion'; did you mean 'regression'?" in wrong.err


@pytest.mark.slow
@pytest.mark.usefixtures("ctrl_c_works")
def test_bits_interrupted_resumed_and_written_as_a_space(
    sensitivity: Command, raydistill: Command, tmp_path: Path
) -> None:
    content = torch.load(tmp_path / "sigint.pt", weights_only=True)
    write_checkpoint(tmp_path / "dense.pt", {**content, "history": [{}] * 4})
    arguments = ("--bits", "8, 4,2", "--write-space", "space.yaml", "--max-drop", "0.5")
    whole = sensitivity(*arguments, "-o", "whole", checkpoint="dense.pt")
    assert (whole.code, whole.err) == (0, "")
    (tmp_path / "space.yaml").unlink()
    (tmp_path / "countdown").write_text("4")
    ended = sensitivity(*arguments, "-o", "part", checkpoint="dense.pt")
    assert ended.code == 130
    assert "interrupted: 3 of 8 points are measured; the same command goes on" in ended.out
    assert not (tmp_path / "space.yaml").exists()
    again = sensitivity(*arguments, "-o", "part", checkpoint="dense.pt")
    assert again.out.replace("part/", "whole/") == whole.out
    assert rows(tmp_path / "part") == rows(tmp_path / "whole")
    found = rows(tmp_path / "part")
    assert [(row["weight"], row["bits"]) for row in found] == [
        (name, bits) for name in ("conv.weight", "fc.weight") for bits in ("2", "4", "8", "32")
    ]
    assert "one weight rounded at a time to:" in whole.out
    lines = whole.out.splitlines()
    assert lines[1].split() == ["float", "8", "bit", "4", "bit", "2", "bit"]
    top1 = [f"{100 * float(row['top1']):.2f}" for row in reversed(found[:4])]
    assert lines[2].split() == ["conv.weight", *top1]
    assert (tmp_path / "part" / "sensitivity.png").read_bytes()[:4] == b"\x89PNG"
    dry = raydistill("sweep", "space.yaml", "--dry-run")
    assert (dry.code, dry.err) == (0, "")
    sweep = load_sweep(tmp_path / "space.yaml")
    assert [(o.name, o.direction) for o in sweep.objectives] == [("top1", "max"), ("size_bytes", "min")]
    space = yaml.safe_load((tmp_path / "space.yaml").read_text())
    chosen = {entry["weights"][0]: entry["bits_weights"]["choice"] for entry in space["search"]["per_layer"]}
    assert chosen == {name: [2, 4, 8] for name in ("conv.weight", "fc.weight")}  # there are less than 50 points to lose
    refused = sensitivity("-o", "part", checkpoint="dense.pt")
    assert "holds an analysis with another sense, 'bits', got 'element'" in refused.err


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--bits", "8,nine"], "--bits: must be whole numbers from 2 to 16, with commas between, got '8,nine'"),
        (["--bits", "8", "--sense", "filter"], "--sense: says how weights are pruned, --bits rounds them"),
        (["--bits", "8", "--sense-range", "0", "0.5", "0.1"], "--sense-range: says how weights are pruned"),
        (["--bits", "8", "--weights", "conf.weight"], "did you mean 'conv.weight'?"),
        (["--write-space", "s.yaml", "--sense", "filter"], "--sense: --write-space searches single weights"),
        (["--write-space", "s.yaml", "--split", "test"], "--split: the test split selects nothing"),
        (["--write-space", "s.yaml", "--max-drop", "5"], "--max-drop: must be above 0 and below 1, got 5.0"),
        (["--write-space", "s.yaml", "--sense-range", "0.1", "0.9", "0.1"], "the levels must begin at 0 and go on"),
        (["--write-space", "s.yaml"], "sigint.pt: --write-space needs a checkpoint that raydistill trained"),
        (["--sense-range", "0.5", "0.2", "0.1"], "--sense-range: start and stop must satisfy 0 <= start < stop <= 1"),
        (["--sense-range", "0", "0.9", "0"], "--sense-range: step must be above 0"),
        (["--weights", "conf.weight"], "--weights: no weight matches, got 'conf.weight'; did you mean 'conv.weight'?"),
        (["--arch", "simplenet_cifar"], "sigint.pt: has no 'conv1.weight'; it belongs to another architecture"),
        (["--dataset", "digit"], "did you mean 'digits'?"),
        (["--dataset", "cifar10", "--data-dir", "gone"], "gone"),
        (["--checkpoint", "gone.pt"], "gone.pt"),
    ],
)
def test_errors_are_one_line(sensitivity: Command, tmp_path: Path, arguments: list[str], expected: str) -> None:
    ended = sensitivity(*arguments)
    assert ended.code == 2
    assert ended.err.count("\n") == 1
    assert expected in ended.err
    assert not (tmp_path / "sensitivity").exists()


@pytest.mark.slow
def test_plain_weights_see_the_pixels_that_the_user_says(raydistill: Command, tmp_path: Path) -> None:
    """Level zero is the network itself, with the figure that `evaluate_checkpoint` finds on such pixels."""
    torch.manual_seed(0)
    model = models.create("simplenet_cifar", 10)
    torch.save(model.state_dict(), tmp_path / "plain.pt")
    pixels = Pixels(mean=(0.2, 0.3, 0.4), std=(0.1, 0.2, 0.3))
    common = (
        "--arch",
        "simplenet_cifar",
        "--dataset",
        "digits",
        "--weights",
        "fc3.weight",
        "--sense-range",
        "0",
        "0.5",
        "0.5",
    )
    found = {}
    for name, said in (("own", ()), ("said", ("--mean", "0.2,0.3,0.4", "--std", "0.1,0.2,0.3"))):
        ended = raydistill("sensitivity", "--checkpoint", tmp_path / "plain.pt", "-o", tmp_path / name, *common, *said)
        assert (ended.code, ended.err) == (0, "")
        with (tmp_path / name / "sensitivity.csv").open() as file:
            found[name] = next(csv.DictReader(file))
    task = tasks.load(
        TaskConfig(), DatasetConfig("digits"), Weights("simplenet_cifar", content={**PLAIN, "model": {}}, pixels=pixels)
    )
    batch_loss = task.evaluate(model, task.feed("validation", Loading(CPU, 256)), Loading(CPU, 256))
    assert float(found["said"]["loss"]) == pytest.approx(batch_loss["loss"], rel=1e-4)
    assert found["own"]["loss"] != found["said"]["loss"]
    ended = raydistill("sensitivity", "--checkpoint", tmp_path / "plain.pt", "-o", tmp_path / "own", *common, *said)
    assert (ended.code, ended.err.count("\n")) == (2, 1)  # another analysis
    assert "holds an analysis with another" in ended.err


@pytest.mark.parametrize(
    ("said", "says"),
    [
        (("--mean", "0.5"), "error: --std: is missing beside mean; give both"),
        (("--mean", "a,b,c", "--std", "1"), "error: --mean, --std: must be numbers, got 'a,b,c'"),
        (("--mean", "127", "--std", "58"), "error: --mean: must be of pixels scaled to [0, 1]"),
    ],
)
def test_pixels_that_are_none_are_one_line(
    raydistill: Command, tmp_path: Path, said: tuple[str, ...], says: str
) -> None:
    ended = raydistill("sensitivity", "--checkpoint", tmp_path / "none.pt", *said)
    assert (ended.code, ended.err.count("\n")) == (2, 1)
    assert says in ended.err
