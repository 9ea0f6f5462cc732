"""``raydistill init``: the file it writes is a sweep as it stands, and it asks for nothing that it can find out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from raydistill.training import RunConfig, fit
from tests.cli.conftest import Ended

Command = Callable[..., Ended]
DIGITS = ("--dataset", "digits")
MODULE = """
import torch
from torch import nn
from raydistill.metrics import Metric
from raydistill.tasks import LoopTask

def net(num_classes=10, width=4):
    layers = nn.Conv2d(3, width, 3, stride=4), nn.ReLU(), nn.Conv2d(width, width, 3), nn.ReLU()
    return nn.Sequential(*layers, nn.Flatten(), nn.LazyLinear(num_classes)) if width > 99 else nn.Sequential(
        *layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, num_classes))

class Points(LoopTask):
    metrics = {"mae": Metric("min"), "loss": Metric("min")}

    def example_input(self, rows=1):
        return (torch.zeros(rows, 6),)

    def figures(self, network, split, device):
        return {"mae": 0.0, "loss": 0.0}

def line():
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 1))

def bare():
    return nn.Identity()

def train(trial):
    yield {"mae": 0.0, "loss": 0.0}
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a module with a user's own things, in the working folder; there is a text, too."""
    monkeypatch.chdir(tmp_path)
    name = f"things_{abs(hash(tmp_path)) % 10**6}"  # of its own: an earlier test's would still be imported
    (tmp_path / f"{name}.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "text.txt").write_text("the cat sat on the mat and the dog lay on the rug\n" * 60)
    return name


@pytest.fixture
def written(raydistill: Command, here: str) -> Callable[..., dict[str, Any]]:
    """What stands in the file that ``init`` wrote, after a dry run of it."""

    def command(*arguments: object) -> dict[str, Any]:
        ended = raydistill("init", *[str(argument).replace("HERE", here) for argument in arguments], "-o", "space.yaml")
        assert (ended.code, ended.err) == (0, ""), ended.err
        assert ended.out.endswith("\n  raydistill sweep space.yaml --dry-run\n  raydistill sweep space.yaml\n")
        dry = raydistill("sweep", "space.yaml", "--dry-run")
        assert (dry.code, dry.err) == (0, "")
        assert dry.out.endswith("dry run: everything checked, nothing started\n")
        text = Path("space.yaml").read_text()
        assert max(len(line) for line in text.splitlines() if not line.startswith("#     ")) <= 140
        assert not Path("sweeps").exists()
        said: dict[str, Any] = yaml.safe_load(text)
        return said

    return command


def bounds(said: dict[str, Any]) -> dict[str, list[float]]:
    """By weight, or by block."""
    search = dict(said["search"])
    found = {entry["weights"][0]: entry["final_sparsity"]["uniform"] for entry in search.pop("per_layer", ())}
    return {**found, **{path.split(".")[1]: drawn["uniform"] for path, drawn in search.items()}}


@pytest.mark.slow
def test_a_network_of_the_menu(written: Callable[..., dict[str, Any]]) -> None:
    said = written("--arch", "simplenet_cifar", *DIGITS)
    assert said["model"] == {"arch": "simplenet_cifar"}
    assert said["dataset"] == {"name": "digits"}
    assert "task" not in said
    assert said["baseline"]["lr"] == 0.05
    assert said["training"] == {"epochs": 60, "lr": 0.02}
    assert bounds(said) == {
        "conv1.weight": [0.0, 0.6], "conv2.weight": [0.2, 0.9], "fc1.weight": [0.4, 0.98], "fc2.weight": [0.4, 0.98],
        "fc3.weight": [0.2, 0.9],
    }  # fmt: skip
    assert said["objectives"] == {"top1": "max", "sparsity": "max"}
    text = Path("space.yaml").read_text()
    assert "# 6x3x5x5, 0.7 %; the first layer" in text
    assert '# constraints: ["top1_drop <= 0.01", "sparsity >= 0.5"]' in text
    assert "# resources_per_trial: {gpu: 0.5}" in text


@pytest.mark.slow
def test_resnet20_has_a_range_for_each_of_its_layers(written: Callable[..., dict[str, Any]]) -> None:
    said = written("--arch", "resnet20_cifar", *DIGITS, "--epochs", "8", "--num-samples", "4")
    assert len(bounds(said)) == 22
    assert (said["training"]["epochs"], said["num_samples"]) == (8, 4)


@pytest.mark.slow
def test_a_network_of_many_layers_is_searched_by_blocks(written: Callable[..., dict[str, Any]]) -> None:
    said = written("--arch", "mobilenet_v2", *DIGITS)
    found = bounds(said)
    assert len(found) == 20
    assert (found["features_0"], found["features_17"]) == ([0.0, 0.6], [0.4, 0.98])
    pruned = [weight for pruner in said["schedule"]["pruners"].values() for weight in pruner["weights"]]
    assert "features.17.conv.*weight" in pruned
    assert len(said["schedule"]["policies"]) == 21


@pytest.mark.slow
def test_a_transformer_gets_the_images_that_it_takes(raydistill: Command, here: str) -> None:
    ended = raydistill("init", "--arch", "vit_b_32", *DIGITS, "-o", "space.yaml")
    assert (ended.code, ended.err) == (0, "")
    assert "image_size [224, 224]: vit_b_32 takes no other" in ended.out
    said = yaml.safe_load(Path("space.yaml").read_text())
    assert said["dataset"] == {"name": "digits", "image_size": [224, 224]}
    assert "Left dense, as no weights of a layer: class_token, encoder.pos_embedding." in Path("space.yaml").read_text()
    assert bounds(said)["encoder_layers_encoder_layer_0"] == [0.2, 0.9]
    del here


@pytest.mark.slow
def test_a_factory_of_ones_own_with_arguments(written: Callable[..., dict[str, Any]], here: str) -> None:
    said = written("--arch", "HERE:net", "--model-args", "width: 6", *DIGITS)
    assert said["model"] == {"arch": f"{here}:net", "args": {"width": 6}}
    assert bounds(said) == {"0.weight": [0.4, 0.98], "2.weight": [0.4, 0.98], "6.weight": [0.2, 0.9]}


@pytest.mark.slow
def test_a_language_model_reads_the_text(written: Callable[..., dict[str, Any]]) -> None:
    small = "{width: 16, depth: 1, heads: 2, context: 16}"
    arguments = ("--model-args", small, "--task-args", "tokens: bytes", "--data-dir", "text.txt")
    said = written("--arch", "decoder_lm", *arguments)
    assert said["task"] == {"name": "language_model", "args": {"tokens": "bytes", "bptt": 16}}, "as far as it sees"
    assert said["dataset"] == {"data_dir": "text.txt"}
    assert said["training"]["optimizer"] == {"name": "AdamW", "lr": 0.0016, "clip_norm": 1.0}
    assert said["baseline"]["lr"] == 0.004
    assert said["objectives"] == {"perplexity": "min", "sparsity": "max"}
    assert bounds(said)["encoder.weight"] == [0.1, 0.9]
    assert "perplexity_rise <= 0.1" in Path("space.yaml").read_text()


@pytest.mark.slow
def test_a_table_is_there_without_being_named(written: Callable[..., dict[str, Any]]) -> None:
    said = written("--arch", "mlp")
    assert (said["task"], said["dataset"]) == ({"name": "regression"}, {"name": "diabetes"})


@pytest.mark.slow
def test_a_loop_and_a_task_of_ones_own(written: Callable[..., dict[str, Any]], here: str) -> None:
    said = written("--arch", "HERE:line", "--task", "HERE:Points", "--train", "HERE:train", "--train-args", "lr: 0.1")
    assert said["train"] == {"name": f"{here}:train", "args": {"lr": 0.1}}
    assert said["task"] == {"name": f"{here}:Points"}
    assert said["training"] == {"epochs": 10}
    assert "lr_schedulers" not in said["schedule"], "its rate is the loop's own"
    assert said["objectives"] == {"mae": "min", "sparsity": "max"}


@pytest.mark.slow
def test_a_checkpoint_knows_its_network_data_and_training(written: Callable[..., dict[str, Any]]) -> None:
    from raydistill.datasets import DatasetConfig
    from raydistill.parts import Optimizer

    config = RunConfig(
        arch="simplenet_cifar", dataset=DatasetConfig(name="digits", validation=0.2), epochs=2, batch_size=64,
        optimizer=Optimizer(name="Adam", lr=0.003), out_dir="runs/dense", tensorboard=False,
    )  # fmt: skip
    list(fit(config))
    said = written("--from", "runs/dense/checkpoint.pt")
    assert said["model"] == {"arch": "simplenet_cifar"}
    assert said["dataset"] == {"name": "digits", "validation": 0.2}
    assert said["baseline"] == {"checkpoint": "runs/dense/checkpoint.pt"}
    optimizer = {"name": "Adam", "lr": 0.0012}
    assert said["training"] == {"epochs": 2, "batch_size": 64, "optimizer": optimizer}


@pytest.mark.slow
def test_the_checkpoint_of_a_language_model_knows_its_task(written: Callable[..., dict[str, Any]]) -> None:
    from raydistill.datasets import DatasetConfig
    from raydistill.tasks import TaskConfig

    config = RunConfig(
        arch="decoder_lm", model_args={"width": 16, "depth": 1, "heads": 2, "context": 16, "dropout": 0.0},
        task=TaskConfig("language_model", {"tokens": "bytes", "bptt": 16}), dataset=DatasetConfig(data_dir="text.txt"),
        epochs=1, batch_size=8, lr=0.01, out_dir="run", tensorboard=False,
    )  # fmt: skip
    list(fit(config))
    said = written("--from", "run/checkpoint.pt", "--data-dir", "text.txt")
    assert said["task"] == {"name": "language_model", "args": {"tokens": "bytes", "bptt": 16}}
    assert said["model"]["args"]["width"] == 16


@pytest.mark.slow
def test_plain_weights_begin_a_sweep_too(written: Callable[..., dict[str, Any]], here: str) -> None:
    import importlib

    torch.manual_seed(0)
    torch.save(importlib.import_module(here).net().state_dict(), "weights.pt")
    said = written("--from", "weights.pt", "--arch", "HERE:net", *DIGITS)
    assert said["baseline"] == {"checkpoint": "weights.pt"}


@pytest.mark.slow
def test_it_is_not_written_over_what_is_there(raydistill: Command, here: str) -> None:
    Path("space.yaml").write_text("mine")
    arguments = ("init", "--arch", f"{here}:net", *DIGITS, "-o", "space.yaml")
    ended = raydistill(*arguments)
    said = "error: -o: space.yaml is there already; add --overwrite, or choose another name\n"
    assert (ended.code, ended.out, ended.err) == (2, "", said)
    assert Path("space.yaml").read_text() == "mine"
    assert raydistill(*arguments, "--overwrite").code == 0
    assert yaml.safe_load(Path("space.yaml").read_text())["name"] == "space"
    assert raydistill("init", "--arch", f"{here}:net", *DIGITS).code == 0
    assert Path(f"{here}_net.yaml").exists(), "named after the network"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((), "--arch: is missing; name the network (raydistill models lists them), or give a checkpoint with --from"),
        (("--arch", "simplnet_cifar"), "--arch: unknown model, got 'simplnet_cifar'; did you mean 'simplenet_cifar'?"),
        (("--arch", "HERE:nett", *DIGITS), "--arch: module 'HERE' has no such model, got 'HERE:nett'; did you mean"),
        (("--arch", "HERE:net", "--model-args", "widht: 3", *DIGITS), "--arch: 'HERE:net' takes (num_classes, width);"),
        (("--arch", "HERE:net", "--model-args", "[3]", *DIGITS), "--model-args"),
        (("--arch", "HERE:bare", "--task", "HERE:Points"), "--arch: the network has no weight that can be pruned"),
        (("--arch", "decoder_lm"), "--data-dir: is missing: where the text is; for language_model"),
        (("--arch", "neumf"), "--data-dir: is missing: where the ratings are; for recommender"),
        (
            ("--arch", "HERE:net", "--task", "detection"),
            "--data-dir: is missing: where images and annotations are; for",
        ),
        (("--arch", "HERE:net", "--data-dir", "nowhere"), "--data-dir: no such file or folder, got 'nowhere'"),
        (
            ("--arch", "HERE:net", "--dataset", "digit"),
            "dataset.name: unknown dataset, got 'digit'; did you mean",
        ),
        (
            ("--arch", "HERE:net", "--task", "clasification"),
            "task.name: unknown task, got 'clasification'",
        ),
        (("--arch", "HERE:net", "--train-args", "lr: 1"), "--train-args: is for a loop of one's own"),
        (("--from", "none.pt"), "none.pt: no such checkpoint"),
        (("--from", "text.txt"), "text.txt: is damaged, or no checkpoint"),
    ],
)
def test_what_is_wrong_is_one_line(raydistill: Command, here: str, arguments: tuple[str, ...], says: str) -> None:
    ended = raydistill("init", *(argument.replace("HERE", here) for argument in arguments), "-o", "space.yaml")
    assert (ended.code, ended.out) == (2, "")
    assert ended.err.startswith(f"error: {says.replace('HERE', here)}")
    assert ended.err.count("\n") == 1
    assert not Path("space.yaml").exists()


@pytest.mark.slow
def test_a_detector(written: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    from tests.tasks.detection.shapes import write

    write(tmp_path / "boxes", {"train": 12, "val": 4})
    said = written("--arch", "tests.tasks.detection.shapes:small", "--task", "detection", "--data-dir", "boxes")
    assert (said["task"], said["dataset"]) == ({"name": "detection"}, {"data_dir": "boxes"})
    assert said["training"] == {"epochs": 12, "batch_size": 16, "lr": 0.008, "optimizer": {"clip_norm": 10.0}}
    assert said["objectives"] == {"map": "max", "sparsity": "max"}


@pytest.mark.slow
def test_a_checkpoint_of_distiller(written: Callable[..., dict[str, Any]], compat: Path) -> None:
    file = compat / "checkpoints" / "ssl_channels_finetuned.pth.tar"
    said = written("--from", file, *DIGITS)
    assert said["model"] == {"arch": "resnet20_cifar"}
    assert said["baseline"] == {"checkpoint": str(file.resolve())}
    assert said["training"]["epochs"] == 60


@pytest.mark.slow
def test_a_folder_of_images_is_seen_for_what_it_is(written: Callable[..., dict[str, Any]], cifar: Path) -> None:
    said = written("--arch", "HERE:net", "--data-dir", cifar)
    assert said["dataset"] == {"name": "imagefolder", "data_dir": str(cifar)}


@pytest.mark.slow
def test_the_checkpoint_of_ones_own_loop_needs_its_names(
    raydistill: Command, written: Callable[..., dict[str, Any]], here: str
) -> None:
    from raydistill.training.checkpoint import write_checkpoint

    torch.manual_seed(0)
    import importlib

    content = {
        "run": {"arch": f"{here}:line", "model_args": {}}, "precision": "fp32",
        "model": importlib.import_module(here).line().state_dict(), "epoch": 0, "history": [],
    }  # fmt: skip
    write_checkpoint("own.pt", content)
    ended = raydistill("init", "--from", "own.pt")
    assert ended.err.startswith("error: own.pt: is of a factory of your own, which is called only where you name it")
    ended = raydistill("init", "--from", "own.pt", "--arch", f"{here}:line")
    assert ended.err == "error: --task: own.pt does not say what it was trained for; name it\n"
    own = ("--arch", "HERE:line", "--task", "HERE:Points", "--train", "HERE:train")
    said = written("--from", "own.pt", *own)
    assert said["baseline"] == {"checkpoint": "own.pt"}
