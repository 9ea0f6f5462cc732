"""A checkpoint is a file of somebody else's: it names nothing that runs, and costs no more than its size explains."""

from __future__ import annotations

import functools
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from raydistill import datasets, models
from raydistill.cli.main import app
from raydistill.datasets import DatasetConfig, load
from raydistill.errors import CheckpointError, ConfigError, RaydistillError
from raydistill.tasks.classification import Classification
from raydistill.training import Distillation, RunConfig, evaluate_checkpoint, fit, load_model
from raydistill.training.checkpoint import read_checkpoint, write_checkpoint
from raydistill.training.distiller_checkpoint import read_any
from raydistill.training.footprint import footprint
from raydistill.training.teacher import load_teacher

OWN = """
from pathlib import Path
from torch import nn

def net(num_classes=10, width=4):
    Path("called").touch()
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, width), nn.Linear(width, num_classes))
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A working folder with a factory of the user's own in ``ownnet.py``."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "ownnet.py").write_text(OWN)
    yield tmp_path
    sys.modules.pop("ownnet", None)


@pytest.fixture(scope="module")
def digits() -> Any:
    return load(DatasetConfig("digits"))


def saved(arch: str, network: nn.Module, **changed: Any) -> Path:
    path = Path("c.pt")
    parts = {"run": {"arch": arch, "model_args": {}}, "num_classes": 10, "image_shape": [3, 32, 32]}
    write_checkpoint(path, {**parts, "model": dict(network.state_dict()), "precision": "fp32", **changed})
    return path


def own_network() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 4), nn.Linear(4, 10))


@functools.cache
def digits_task() -> Classification:
    return Classification(datasets.load(DatasetConfig("digits")))


READERS: dict[str, Callable[[Path], Any]] = {
    "load_model": load_model,
    "footprint": lambda path: footprint(path, digits_task()),
    "teacher": lambda path: load_teacher(Distillation(checkpoint=str(path)), digits_task(), student="simplenet_cifar"),
}


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("arch", ["ownnet:net", "torch.hub:load", "os:system", "builtins:exec"])
def test_what_a_file_names_is_never_called(folder: Path, arch: str, reader: str) -> None:
    path = saved(arch, own_network())
    with pytest.raises(CheckpointError, match=r"not on the menu|only where you name it yourself"):
        READERS[reader](path)
    assert not Path("called").exists()
    assert "ownnet" not in sys.modules


@pytest.mark.slow
@pytest.mark.parametrize(
    "words",
    [
        ["summary", "model", "--checkpoint", "c.pt"],
        ["sensitivity", "--checkpoint", "c.pt", "--dataset", "digits"],
        ["compress", "--arch", "simplenet_cifar", "--dataset", "digits", "--resume-from", "c.pt", "--evaluate"],
        ["compress", "--arch", "simplenet_cifar", "--dataset", "digits", "--resume-from", "c.pt", "--thinnify"],
        ["compress", "--arch", "simplenet_cifar", "--dataset", "digits", "--resume-from", "c.pt", "--epochs", "9"],
    ],
)
def test_no_command_calls_it_either(folder: Path, words: list[str]) -> None:
    saved("ownnet:net", own_network(), epoch=0)
    with pytest.raises(RaydistillError):
        app(words, standalone_mode=False)
    assert not Path("called").exists()


def test_what_the_user_names_is(folder: Path) -> None:
    path = saved("ownnet:net", own_network())
    assert len(load_model(path, "ownnet:net")) == 3
    assert Path("called").exists()
    assert footprint(path, digits_task(), arch="ownnet:net")["macs"] == 3 * 32 * 32 * 4 + 40
    assert len(load_teacher(Distillation("ownnet:net", str(path)), digits_task())) == 3
    assert len(load_teacher(Distillation(checkpoint=str(path)), digits_task(), student="ownnet:net")) == 3


@pytest.mark.slow
@pytest.mark.parametrize("said", ["resnet20", "their.own:net", "ResNet"])
def test_the_users_arch_counts_where_the_files_is_not_known(folder: Path, said: str) -> None:
    model = models.create("simplenet_cifar", 10)
    path = saved(said, model)
    again = load_model(path, "simplenet_cifar")
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in model.state_dict().items())
    with pytest.raises(CheckpointError, match="--arch"):
        load_model(path)
    with pytest.raises(CheckpointError, match=r"another architecture|the model does not"):
        load_model(path, "resnet20_cifar")


def test_a_known_arch_is_not_overruled(folder: Path) -> None:
    path = saved("simplenet_cifar", models.create("simplenet_cifar", 10))
    with pytest.raises(CheckpointError, match="is of simplenet_cifar, got 'vgg11_cifar'"):
        load_model(path, "vgg11_cifar")


@pytest.mark.slow
def test_a_dataset_that_a_file_names_is_not_called(folder: Path) -> None:
    Path("owndata.py").write_text("raise SystemExit('imported')")
    saved("simplenet_cifar", models.create("simplenet_cifar", 10), dataset="owndata:load")
    with pytest.raises(ConfigError, match=r"--dataset: .* not on the menu, got 'owndata:load'; name it yourself"):
        app(["sensitivity", "--checkpoint", "c.pt"], standalone_mode=False)


def test_the_schedule_in_a_checkpoint_is_never_read(folder: Path) -> None:
    """Going on with it compares its hash; what runs is the schedule that the user gives."""
    text = "pruners: {x: {class: 'ownnet:net'}}\npolicies: [{pruner: {instance_name: x}, epochs: [0]}]"
    path = saved("simplenet_cifar", models.create("simplenet_cifar", 10), schedule=text)
    load_model(path)
    run = RunConfig(arch="simplenet_cifar", init_from=str(path), epochs=1, device="cpu")
    assert run.schedule is None
    assert not Path("called").exists()


@pytest.mark.slow
@pytest.mark.parametrize("read", [read_checkpoint, read_any, load_model])
def test_one_that_unpacks_to_far_more_than_its_size_is_refused_by_its_listing(
    folder: Path, read: Callable[..., Any]
) -> None:
    whole = saved("simplenet_cifar", models.create("simplenet_cifar", 10))
    packed = Path("packed.pt")
    with zipfile.ZipFile(whole) as source, zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as target:
        for record in source.infolist():
            target.writestr(record.filename, source.read(record))
        with target.open("c/data/bomb", "w", force_zip64=True) as bomb:
            for _ in range(8):
                bomb.write(bytes(1 << 24))
    assert packed.stat().st_size < 5_000_000
    with pytest.raises(CheckpointError, match=r"is packed and would unpack to 1\d\d,\d+,\d+ bytes"):
        read(packed)


class Allocates:
    def __reduce__(self) -> tuple[Any, ...]:
        return bytearray, (1 << 33,)


def test_what_allocates_by_a_number_is_refused(folder: Path) -> None:
    with pytest.raises(CheckpointError, match="names 'bytearray'"):
        read_checkpoint(saved("simplenet_cifar", nn.Sequential(), extra=Allocates()))


def test_a_tensor_that_is_far_larger_than_the_file_is_refused(folder: Path) -> None:
    with pytest.raises(CheckpointError, match="many times larger than the file"):
        read_checkpoint(saved("simplenet_cifar", nn.Sequential(), extra={"deep": [torch.zeros(1).expand(1 << 30)]}))


@pytest.mark.slow
def test_a_network_that_is_far_larger_than_its_weights_is_not_built(folder: Path) -> None:
    path = saved("resnet50", nn.Sequential(), num_classes=10_000_000)
    with pytest.raises(CheckpointError, match=r"holds 0 bytes of weights and describes a network of 8\d,\d+,\d+,\d+"):
        load_model(path)


BROKEN: dict[str, Any] = {
    "run": [None, [], {}, {"arch": 3, "model_args": {}}, {"arch": "simplenet_cifar"}, {"arch": "a", "model_args": [1]}],
    "model": [[], {"w": 3}, {3: torch.zeros(1)}, {"w": None}],
    "num_classes": [None, "10", 0, -1, 10**9, True, 1.5],
    "epoch": ["3", -2, 10**30],
    "history": [{}, "x"],
    "scheduler": [[], {"masks": 3}, {"masks": {"w": 1}}],
    "optimizer": ["sgd"],
    "precision": ["fp8", 3],
    "dataset": [3],
    "classes": ["abc", [1]],
    "schedule": [{}],
    "mean": ["x", [None], [float("nan")]],
    "image_shape": [3, [], [3, 32, -1], [3, 100_000, 100_000], ["3", 32, 32]],
}


@pytest.mark.parametrize(("key", "value"), [(key, value) for key, values in BROKEN.items() for value in values])
def test_a_part_that_is_not_what_it_must_be_is_named(folder: Path, key: str, value: Any) -> None:
    path = saved("simplenet_cifar", nn.Sequential(), **{key: value})
    with pytest.raises(CheckpointError, match=f"is damaged: its '{key}' is not what it must be"):
        read_checkpoint(path)


@pytest.mark.parametrize("key", ["run", "model", "num_classes"])
def test_a_part_that_is_missing_is_named(folder: Path, key: str) -> None:
    parts = {"run": {"arch": "simplenet_cifar", "model_args": {}}, "num_classes": 10, "model": {}}
    del parts[key]
    write_checkpoint("c.pt", parts)
    with pytest.raises(CheckpointError, match=rf"its '{key}' is missing|is not a checkpoint"):
        load_model("c.pt")


@pytest.mark.slow
@pytest.mark.parametrize(
    "key", ["epoch", "optimizer", "schedule_hash", "scheduler", "rng"],
)  # fmt: skip
def test_going_on_says_what_it_lacks(folder: Path, key: str, digits: Any) -> None:
    model = models.create("simplenet_cifar", digits.num_classes)
    content = {
        "epoch": 0, "optimizer": torch.optim.SGD(model.parameters(), lr=0.1).state_dict(), "schedule_hash": "",
        "scheduler": {"masks": {}}, "rng": None, "num_classes": digits.num_classes,
    }  # fmt: skip
    del content[key]
    path = saved("simplenet_cifar", model, **content)
    run = RunConfig(arch="simplenet_cifar", continue_from=str(path), epochs=2, device="cpu", tensorboard=False)
    with pytest.raises(CheckpointError, match=f"its '{key}' is missing"):
        next(iter(fit(run, task=Classification(digits))))


def test_evaluating_takes_the_users_factory(folder: Path, digits: Any) -> None:
    path = saved("ownnet:net", own_network(), num_classes=digits.num_classes)
    assert evaluate_checkpoint(path, Classification(digits), "test", "cpu", arch="ownnet:net").samples > 0
    with pytest.raises(CheckpointError, match="only where you name it yourself"):
        evaluate_checkpoint(path, Classification(digits), "test", "cpu")


def test_a_nul_in_a_path_is_one_line() -> None:
    with pytest.raises(CheckpointError, match="cannot be read"):
        read_checkpoint("a\0b")
