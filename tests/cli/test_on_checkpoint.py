"""What ``raydistill compress`` does with a checkpoint besides training it, and with a teacher and early exits."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from raydistill.training import load_model, read_checkpoint
from raydistill.training.checkpoint import write_checkpoint
from tests.cli.conftest import Ended

Command = Callable[..., Ended]
FILTERS = """
version: 1
pruners:
  half: {class: L1RankedStructureParameterPruner, group_type: Filters, desired_sparsity: 0.5, weights: [conv2.weight]}
policies:
  - {pruner: {instance_name: half}, epochs: [0]}
"""


@pytest.fixture(scope="module")
def pruned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A simplenet with half of conv2's filters zero, one epoch on the digits."""
    from raydistill.datasets import DatasetConfig
    from raydistill.schedule import load_schedule
    from raydistill.training import RunConfig, fit

    folder = tmp_path_factory.mktemp("pruned")
    (folder / "filters.yaml").write_text(FILTERS)
    config = RunConfig(
        arch="simplenet_cifar",
        dataset=DatasetConfig("digits"),
        epochs=1,
        schedule=load_schedule(folder / "filters.yaml"),
        precision="fp32",
        out_dir=str(folder),
        tensorboard=False,
        threads=1,
    )
    list(fit(config))
    return folder / "checkpoint.pt"


@pytest.fixture
def published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Weights of torchvision's squeezenet where downloads are kept, and a folder of images of several sizes."""
    import torchvision

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    weights = torchvision.models.SqueezeNet1_1_Weights.IMAGENET1K_V1
    (tmp_path / "hub" / "checkpoints").mkdir(parents=True)
    torch.manual_seed(99)
    state = torchvision.models.squeezenet1_1().state_dict()
    torch.save(state, tmp_path / "hub" / "checkpoints" / weights.url.rsplit("/", 1)[1])
    rng = np.random.default_rng(0)
    for split, count in (("train", 6), ("val", 3)):
        for name in ("ant", "bee"):
            (tmp_path / "images" / split / name).mkdir(parents=True)
            for number in range(count):
                size = (int(rng.integers(40, 120)), int(rng.integers(40, 120)))
                shade = tuple(int(value) for value in rng.integers(0, 256, 3))
                Image.new("RGB", size, shade).save(tmp_path / "images" / split / name / f"{number}.png")
    return tmp_path / "images"


@pytest.mark.slow
def test_published_weights_without_training(raydistill: Command, published: Path) -> None:
    common = ("compress", "--arch", "squeezenet1_1", "--pretrained", "--dataset", "imagefolder", "--no-mlflow")
    where = ("--data-dir", published, "--name", "out")
    ended = raydistill(*common, *where, "--evaluate", "--act-stats", "--thinnify")
    assert ended.code == 0, ended.err
    assert "images are prepared as the weights want them: mean 0.485 0.456 0.406 (the dataset's own: " in ended.out
    assert "the published weights know 1,000 classes, the dataset has 2: the last layer is random" in " ".join(
        ended.out.split()
    )
    assert "6 test samples: top1" in ended.out
    content = read_checkpoint("runs/out/thinned.pt")
    assert content["preprocessing"]["mean"] == [0.485, 0.456, 0.406]
    assert (content["preprocessing"]["resize"], content["image_shape"]) == (256, [3, 224, 224])
    ended = raydistill(*common, *where, "--sense", "filter", "--sense-range", "0", "0.9", "0.6")
    assert ended.code == 0, ended.err
    assert "images are prepared as the weights want them" in ended.out


@pytest.mark.slow
def test_what_needs_no_images_keeps_the_published_classes(raydistill: Command, published: Path) -> None:
    ended = raydistill("compress", "--arch", "squeezenet1_1", "--pretrained", "--thinnify", "--no-mlflow")
    assert ended.code == 0, ended.err
    assert read_checkpoint("runs/squeezenet1_1/thinned.pt")["num_classes"] == 1000


@pytest.mark.slow
def test_published_weights_are_fine_tuned_on_images_of_any_size(raydistill: Command, published: Path) -> None:
    common = ("compress", "--arch", "squeezenet1_1", "--dataset", "imagefolder", "--no-mlflow", "--gpus", "-1")
    where = ("--data-dir", published, "--epochs", "1", "-b", "4", "--precision", "fp32", "--validation-split", "0.4")
    ended = raydistill(*common, *where, "--pretrained", "--name", "a")
    assert ended.code == 0, ended.err
    assert read_checkpoint("runs/a/checkpoint.pt")["mean"] == [0.485, 0.456, 0.406]
    ended = raydistill(*common, *where, "--name", "b", "--image-size", "40x48")
    assert ended.code == 0, ended.err
    content = read_checkpoint("runs/b/checkpoint.pt")
    assert content["image_shape"] == [3, 40, 48]
    assert content["mean"] != [0.485, 0.456, 0.406]
    assert "as the weights want" not in ended.out


@pytest.mark.slow
@pytest.mark.parametrize("size", ["0x3", "a", "3x4x5", "", "-1"])
def test_an_image_size_that_is_none(raydistill: Command, published: Path, size: str) -> None:
    ended = raydistill("compress", "--arch", "squeezenet1_1", "--image-size", size, "--data-dir", published)
    assert ended.code == 2
    assert "--image-size: must be height x width in pixels" in ended.err


@pytest.mark.slow
def test_reset_optimizer_needs_a_checkpoint_even_with_published_weights(raydistill: Command, published: Path) -> None:
    ended = raydistill("compress", "--arch", "squeezenet1_1", "--pretrained", "--reset-optimizer")
    assert (ended.code, "--reset-optimizer: needs a checkpoint" in ended.err) == (2, True)


@pytest.fixture
def look(raydistill: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pruned: Path) -> Command:
    monkeypatch.chdir(tmp_path)
    common = ("--arch", "simplenet_cifar", "--dataset", "digits", "--name", "look", "--resume-from", pruned)

    def command(*arguments: object) -> Ended:
        return raydistill("compress", *common, "--no-mlflow", *arguments)

    return command


@pytest.mark.slow
def test_activation_statistics(look: Command, tmp_path: Path) -> None:
    ended = look("--evaluate", "--act-stats", "--confusion", "--effective-test-size", "0.5")
    assert ended.code == 0, ended.err
    folder = tmp_path / "runs" / "look"
    matrix = list(csv.DictReader((folder / "confusion.csv").open()))
    counts = sum(int(row[name]) for row in matrix for name in row if name not in ("actual", "recall"))
    assert f"{counts:,} test samples" in ended.out
    right = sum(int(row[row["actual"]]) for row in matrix)
    assert f"top1 {100 * right / counts:.2f} %" in ended.out
    assert (folder / "confusion.png").read_bytes().startswith(b"\x89PNG")
    bins = list(csv.DictReader((folder / "act_histograms.csv").open()))
    of_conv2 = sum(int(row["count"]) for row in bins if row["layer"] == "conv2")
    held = int(ended.out.split("activations of ")[1].split()[0])
    assert of_conv2 % held == 0
    assert of_conv2 > 0
    rows = list(csv.DictReader((tmp_path / "runs" / "look" / "act_stats.csv").open()))
    zero = [row for row in rows if row["layer"] == "conv2" and float(row["apoz"]) == 1.0]
    assert len([row for row in rows if row["layer"] == "conv2"]) == 16
    assert len(zero) <= 8, "only a pruned filter may be off everywhere"


@pytest.mark.slow
def test_thinnify_writes_a_smaller_checkpoint_that_answers_alike(look: Command, tmp_path: Path, pruned: Path) -> None:
    ended = look("--thinnify")
    assert ended.code == 0, ended.err
    assert "8 filters of 1 layers removed, 62,006 parameters to " in ended.out
    thinned = tmp_path / "runs" / "look" / "thinned.pt"
    small, large = load_model(thinned), load_model(pruned)
    assert small.conv2.weight.shape[0] == 8
    assert small.fc1.weight.shape == (120, 200)
    images = torch.randn(4, 3, 32, 32)
    assert torch.allclose(small(images), large(images), atol=1e-5)
    assert read_checkpoint(thinned)["scheduler"]["masks"]["conv2.weight"].shape[0] == 8


@pytest.mark.slow
def test_a_run_goes_on_from_the_thinned_checkpoint(look: Command, raydistill: Command, tmp_path: Path) -> None:
    look("--thinnify")
    common = ("--arch", "simplenet_cifar", "--dataset", "digits", "--no-mlflow", "--name", "on", "--epochs", "2")
    ended = raydistill("compress", *common, "--resume-from", tmp_path / "runs" / "look" / "thinned.pt")
    assert ended.code == 0, ended.err
    assert load_model(tmp_path / "runs" / "on" / "checkpoint.pt").conv2.weight.shape[0] == 8


@pytest.mark.slow
def test_export_onnx_gives_what_torch_gives(look: Command, tmp_path: Path, pruned: Path) -> None:
    runtime = pytest.importorskip("onnxruntime")
    ended = look("--export-onnx", "net.onnx")
    assert ended.code == 0, ended.err
    assert (ended.err, ended.out.count("\n")) == ("", 1)
    session = runtime.InferenceSession(tmp_path / "net.onnx")
    for batch in (1, 3):
        images = torch.randn(batch, 3, 32, 32)
        (found,) = session.run(None, {session.get_inputs()[0].name: images.numpy()})
        assert np.allclose(found, load_model(pruned)(images).detach().numpy(), atol=1e-5)


@pytest.mark.slow
def test_greedy_pruning_prints_its_steps_and_keeps_the_network(look: Command, tmp_path: Path) -> None:
    ended = look(
        *("--greedy", "--greedy-target-density", "0.8", "--greedy-pruning-step", "0.25", "--greedy-ft-epochs", "1"),
        *("--effective-train-size", "0.1", "--effective-valid-size", "0.5"),
    )
    assert ended.code == 0, ended.err
    steps = [line.split() for line in ended.out.splitlines()[1:-1]]
    assert [int(step[0]) for step in steps] == list(range(1, len(steps) + 1))
    assert {step[2] for step in steps} <= {"conv1.weight", "conv2.weight"}
    assert float(steps[-1][3]) <= 80.0
    assert all(len(line) <= 80 for line in ended.out.splitlines()[:-1])
    model = load_model(tmp_path / "runs" / "look" / "greedy.pt")
    assert model.conv1.weight.shape[0] < 6 or model.conv2.weight.shape[0] < 16


@pytest.mark.slow
def test_a_teacher_and_histograms_reach_the_run(raydistill: Command, tmp_path: Path, monkeypatch, pruned: Path) -> None:
    monkeypatch.chdir(tmp_path)
    ended = raydistill(
        *("compress", "--arch", "simplenet_cifar", "--dataset", "digits", "--epochs", "1", "--no-mlflow"),
        *("--kd-resume", pruned, "--kd-temp", "4", "--kd-dw", "0.7", "--kd-sw", "0.3", "--param-hist", "--name", "kd"),
    )
    assert ended.code == 0, ended.err
    taught = read_checkpoint(tmp_path / "runs" / "kd" / "checkpoint.pt")["run"]["distillation"]
    assert (taught["temperature"], taught["distill_wt"], taught["student_wt"]) == (4.0, 0.7, 0.3)
    (events,) = (tmp_path / "runs" / "kd").glob("events.*")
    assert b"conv1.weight" in events.read_bytes()


@pytest.mark.slow
def test_early_exits_are_trained_and_used(raydistill: Command, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    ended = raydistill(
        *("compress", "--arch", "resnet20_cifar_earlyexit", "--dataset", "digits", "--epochs", "1", "--no-mlflow"),
        *("--earlyexit-lossweights", "0.4", "--earlyexit-thresholds", "1.5", "--effective-train-size", "0.2"),
        *("--name", "exits"),
    )
    assert ended.code == 0, ended.err
    last = read_checkpoint(tmp_path / "runs" / "exits" / "checkpoint.pt")["history"][-1]
    assert {"exit0/top1", "exit1/top1"} <= set(last["metrics"])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--earlyexit-thresholds", "0.5"), "--earlyexit-thresholds: is for networks with early exits"),
        (("--earlyexit-lossweights", "a"), "--earlyexit-lossweights: must be numbers, got 'a'; such as 0.3,0.3"),
        (("--kd-resume", "none.pt"), "none.pt: no such checkpoint"),
        (("--greedy", "--greedy-target-density", "2"), "target_density: must be a fraction above 0 and below 1"),
    ],
)
def test_wrong_options_are_one_line(look: Command, options: tuple[str, ...], says: str) -> None:
    ended = look(*options, "--reset-optimizer", "--epochs", "1")
    assert ended.code == 2
    assert says in ended.err
    assert ended.err.count("\n") == 1


@pytest.mark.parametrize("option", ["--thinnify", "--greedy"])
def test_what_needs_a_checkpoint_says_so(raydistill: Command, option: str) -> None:
    ended = raydistill("compress", "--arch", "simplenet_cifar", option)
    assert (ended.code, ended.err) == (2, f"error: {option}: needs a checkpoint; add --resume-from CHECKPOINT\n")


@pytest.mark.slow
def test_summary_and_sensitivity_by_their_options(look: Command, raydistill: Command, tmp_path: Path) -> None:
    sparse = look("--summary", "sparsity")
    assert sparse.code == 0, sparse.err
    (row,) = [line.split() for line in sparse.out.splitlines() if line.strip().startswith("conv2.weight")]
    assert row[-1] == "50.00"
    masked = look("--summary", "masks")
    assert ["50.00" in line.split() for line in masked.out.splitlines() if "conv2.weight" in line] == [True]
    assert raydistill("summary", "masks", "--arch", "simplenet_cifar").err.startswith("error: --checkpoint: is needed")
    fresh = raydistill("compress", "--arch", "resnet20_cifar", "--summary", "compute")
    assert "40,813,184" in fresh.out
    curves = look("--sense", "filter", "--sense-range", "0", "0.6", "0.5", "--effective-valid-size", "0.5")
    assert curves.code == 0, curves.err
    assert (tmp_path / "runs" / "look" / "sensitivity.csv").read_text().count("\n") == 5  # 2 weights, 2 levels
    wrong = look("--summary", "sparse")
    assert wrong.err.startswith("error: KIND: no such summary, got 'sparse'; did you mean 'sparsity'?")


def test_published_weights_that_cannot_be_had_are_one_line(raydistill: Command, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    ended = raydistill("compress", "--arch", "simplenet_cifar", "--dataset", "digits", "--pretrained", "--no-mlflow")
    assert (ended.code, ended.out) == (2, "")
    assert "no published weights" in ended.err
    assert ended.err.count("\n") == 1


@pytest.mark.slow
@pytest.mark.parametrize("option", [["--act-stats"], ["--act-hist", "0.5"]])
def test_statistics_of_a_checkpoint_train_nothing(look: Command, tmp_path: Path, option: list[str]) -> None:
    ended = look(*option)
    assert (ended.code, ended.err) == (0, "")
    assert "activations of " in ended.out
    assert not (tmp_path / "runs" / "look" / "checkpoint.pt").exists()
    assert "1/60" not in ended.out


@pytest.mark.slow  # sensitivity
def test_all_that_is_asked_is_answered(look: Command, tmp_path: Path) -> None:
    ended = look("--evaluate", "--summary", "sparsity", "--summary", "modules", "--sense", "element",
                 "--sense-range", "0", "0.5", "0.5", "--confusion")  # fmt: skip
    assert (ended.code, ended.err) == (0, "")
    for answer in ("test samples: top1", "fine %", "parameters", "sensitivity.csv", "confusion matrix:"):
        assert answer in ended.out


@pytest.mark.slow
def test_a_thinned_network_is_what_is_exported(look: Command, tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxscript")
    ended = look("--thinnify", "--export-onnx", "thin.onnx")
    assert (ended.code, ended.err) == (0, "")
    thinned = load_model(tmp_path / "runs" / "look" / "thinned.pt")
    sizes = {tuple(tensor.dims) for tensor in onnx.load("thin.onnx").graph.initializer}
    assert tuple(thinned.conv2.weight.shape) in sizes
    assert thinned.conv2.weight.shape[0] == 8


@pytest.mark.slow
def test_confusion_and_top1_count_the_same_answer(raydistill: Command, tmp_path: Path, monkeypatch: Any) -> None:
    """A tuple of logits of one shape is one exit each, and the last one counts."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "twoheads.py").write_text(
        "import torch\nfrom torch import nn\n"
        "class Two(nn.Module):\n"
        "    def __init__(self, num_classes=10):\n"
        "        super().__init__(); self.a = nn.Linear(3072, num_classes); self.b = nn.Linear(3072, num_classes)\n"
        "    def forward(self, x):\n"
        "        x = x.flatten(1); return self.a(x), self.b(x)\n"
    )
    torch.manual_seed(0)
    first, second = (torch.nn.Linear(3072, 10).state_dict() for _ in range(2))
    state = {**{f"a.{k}": v for k, v in first.items()}, **{f"b.{k}": v for k, v in second.items()}}
    run = {"arch": "twoheads:Two", "model_args": {}}
    write_checkpoint("two.pt", {"run": run, "num_classes": 10, "model": state, "precision": "fp32"})
    words = ["--arch", "twoheads:Two", "--dataset", "digits", "--resume-from", "two.pt", "--name", "two"]
    ended = raydistill("compress", *words, "--evaluate", "--confusion", "--no-mlflow")
    assert ended.code == 0
    rows = list(csv.reader((tmp_path / "runs" / "two" / "confusion.csv").open()))[1:]
    counts = np.array([[int(cell) for cell in row[1:11]] for row in rows[:10]])
    top1 = counts.trace() / counts.sum()
    assert f"top1 {100 * top1:.2f} %" in ended.out


@pytest.mark.slow
def test_an_export_that_fails_gives_its_reason(raydistill: Command, tmp_path: Path, monkeypatch: Any) -> None:
    pytest.importorskip("onnxscript")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "branching.py").write_text(
        "from torch import nn\n"
        "class Net(nn.Module):\n"
        "    def __init__(self, num_classes=10):\n"
        "        super().__init__(); self.fc = nn.Linear(3072, num_classes)\n"
        "    def forward(self, x):\n"
        "        x = self.fc(x.flatten(1))\n"
        "        return x if x.sum() > 0 else -x\n"
    )
    from branching import Net

    run = {"arch": "branching:Net", "model_args": {}}
    content = {"run": run, "num_classes": 10, "image_shape": [3, 32, 32], "model": dict(Net().state_dict())}
    write_checkpoint("net.pt", content)
    words = ["--arch", "branching:Net", "--dataset", "digits", "--resume-from", "net.pt", "--no-mlflow"]
    ended = raydistill("compress", *words, "--export-onnx", "net.onnx")
    assert ended.code == 2
    assert ended.err.count("\n") == 1
    assert len(ended.err) < 400
    assert "data-dependent" in ended.err or "Data dependent" in ended.err or "guard" in ended.err


@pytest.mark.slow
def test_the_onnx_file_says_how_its_images_are_prepared(look: Command, tmp_path: Path, pruned: Path) -> None:
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxscript")
    ended = look("--export-onnx", "model.onnx")
    assert ended.code == 0, ended.err
    said = {entry.key: entry.value for entry in onnx.load(tmp_path / "model.onnx").metadata_props}
    assert json.loads(said["preprocessing"]) == read_checkpoint(pruned)["preprocessing"]


@pytest.mark.slow
def test_every_look_at_a_checkpoint_takes_its_preprocessing(
    raydistill: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pruned: Path
) -> None:
    """Statistics that are far off leave other figures; every command gives those, and says so."""
    from raydistill.datasets import DatasetConfig, load
    from raydistill.tasks.classification.evaluate import evaluate
    from raydistill.tasks.classification.feed import EvalFeed
    from raydistill.tasks.classification.preprocessing import of_checkpoint
    from raydistill.training.checkpoint import write_checkpoint

    monkeypatch.chdir(tmp_path)
    content = read_checkpoint(pruned)
    other = {**content["preprocessing"], "mean": [0.9, 0.1, 0.5], "std": [2.0, 0.1, 1.0]}
    write_checkpoint(tmp_path / "other.pt", {**content, "preprocessing": other})
    images, model = load(DatasetConfig("digits")), load_model(pruned)
    top1 = {}
    for split in ("test", "validation"):
        feed = EvalFeed(images, split, 500, "cpu", preprocessing=of_checkpoint(read_checkpoint("other.pt"), ""))
        top1[split] = f"{100 * evaluate(model, feed, split, torch.device('cpu')).metrics['top1']:.2f}"
    common = ("--arch", "simplenet_cifar", "--dataset", "digits", "--resume-from", "other.pt", "--no-mlflow")
    look = raydistill("compress", *common, "--evaluate", "--confusion", "--name", "a")
    assert f"top1 {top1['test']} %" in look.out
    assert "prepared as the weights want them: mean 0.900 0.100 0.500 (the dataset's own: " in look.out
    counts = list(csv.DictReader(Path("runs/a/confusion.csv").read_text().splitlines()))
    right = sum(int(row[row["actual"]]) for row in counts)
    assert f"{100 * right / len(images.test_labels):.2f}" == top1["test"]
    arguments = ("--checkpoint", "other.pt", "--weights", "fc3.weight", "--sense-range", "0", "0.9", "0.5")
    sense = raydistill("sensitivity", *arguments, "-o", "sense")
    assert "prepared as the weights want them: mean 0.900 0.100 0.500" in sense.out
    assert f"fc3.weight  {top1['validation']}" in sense.out.replace("   ", "  ")
    greedy = raydistill("compress", *common, "--greedy", "--greedy-target-density", "0.95", "--name", "b")
    assert "prepared as the weights want them" in greedy.out
    assert read_checkpoint("runs/b/greedy.pt")["preprocessing"] == other


@pytest.mark.slow
def test_activation_statistics_take_the_checkpoints_preprocessing(
    raydistill: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pruned: Path
) -> None:
    from raydistill.training.checkpoint import write_checkpoint

    monkeypatch.chdir(tmp_path)
    content = read_checkpoint(pruned)
    other = {**content["preprocessing"], "mean": [0.0, 0.0, 0.0], "std": [1e6, 1e6, 1e6]}
    write_checkpoint(tmp_path / "flat.pt", {**content, "preprocessing": other})
    common = ("--arch", "simplenet_cifar", "--dataset", "digits", "--resume-from", "flat.pt", "--no-mlflow")
    ended = raydistill("compress", *common, "--evaluate", "--act-stats", "--name", "flat")
    assert ended.code == 0, ended.err
    lines = Path("runs/flat/act_stats.csv").read_text().splitlines()
    rows = [row for row in csv.DictReader(lines) if row["layer"] == "conv1"]
    means = [float(row["mean"]) for row in rows]
    bias = load_model(pruned).state_dict()["conv1.bias"].relu().tolist()
    assert means == pytest.approx(bias, abs=1e-3), "nothing but the bias is left of such images"
