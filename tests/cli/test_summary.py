"""``raydistill summary``: what it prints in 80 columns, what it writes, and its errors."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from raydistill import models
from raydistill.training.checkpoint import write_checkpoint
from tests.cli.conftest import Ended

Command = Callable[..., Ended]


@pytest.fixture
def summary(raydistill: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Command:
    monkeypatch.chdir(tmp_path)
    return lambda *arguments: raydistill("summary", *arguments)


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    model = models.create("simplenet_cifar", 10)
    with torch.no_grad():
        model.fc1.weight[:60] = 0
    optimizer = torch.optim.SGD(model.parameters(), lr=0.125, momentum=0.9)
    path = tmp_path / "checkpoint.pt"
    content = {
        "run": {"arch": "simplenet_cifar", "model_args": {}},
        "num_classes": 10,
        "image_shape": [3, 32, 32],
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
    }
    write_checkpoint(path, content)
    return path


@pytest.mark.parametrize("arch", ["resnet20_cifar", "simplenet_cifar"])
@pytest.mark.parametrize("kind", ["sparsity", "compute", "modules"])
def test_tables_fit_80_columns_without_a_break(summary: Command, arch: str, kind: str) -> None:
    ended = summary(kind, "--arch", arch)
    assert (ended.code, ended.err) == (0, "")
    lines = [line for line in ended.out.splitlines() if line.strip()]
    assert max(map(len, lines)) <= 80
    names = [line.split()[0] for line in lines[2:]]
    model = models.create(arch, 10)
    if kind == "sparsity":
        assert names[:-1] == [*(n for n, p in model.named_parameters() if p.dim() > 1), "total"]
    elif kind == "modules":
        assert names == ["(model)", *(name for name, _ in model.named_modules() if name)]
    else:
        assert "downsam" not in ended.out or "layer2.0.downsample.0" in names


@pytest.mark.slow
def test_structures_that_can_go_and_why_others_stay(summary: Command) -> None:
    text = summary("structures", "--arch", "decoder_lm").out
    assert "blocks.3.mlp.up" in text
    assert "Neurons" in text
    assert "decoder stays: an output of the network" in text
    assert "Embedding" in text


@pytest.mark.slow
def test_compute_total(summary: Command) -> None:
    total = next(line for line in summary("compute", "--arch", "resnet20_cifar").out.splitlines() if "total" in line)
    assert total.split() == ["total", "40,813,184"]


@pytest.mark.slow
def test_sparsity_of_a_checkpoint_and_everything_as_csv(summary: Command, checkpoint: Path, tmp_path: Path) -> None:
    printed = summary("sparsity", "--checkpoint", checkpoint).out
    line = next(line for line in printed.splitlines() if line.strip().startswith("fc1.weight"))
    assert line.split()[-1] == "50.00"
    assert "not shown: cols %, std, mean, abs mean (--format csv has all)" in printed
    rows = {
        r["weight"]: r
        for r in csv.DictReader(io.StringIO(summary("sparsity", "--checkpoint", checkpoint, "--format", "csv").out))
    }
    assert (rows["fc1.weight"]["cols"], rows["fc1.weight"]["rows"], rows["fc1.weight"]["sparsity"]) == (
        "0.5",
        "0.0",
        "0.5",
    )
    written = summary("sparsity", "--checkpoint", checkpoint, "-o", "tables/sparsity.csv")
    assert written.out == "tables/sparsity.csv\n"
    assert {r["weight"]: r for r in csv.DictReader((tmp_path / "tables" / "sparsity.csv").open())} == rows


def test_a_wider_terminal_shows_more(summary: Command, checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    printed = summary("sparsity", "--checkpoint", checkpoint).out
    assert "not shown" not in printed
    assert "abs mean" in printed


def test_optimizer_of_a_checkpoint(summary: Command, checkpoint: Path) -> None:
    rows = [line.split() for line in summary("optimizer", "--checkpoint", checkpoint).out.splitlines()]
    assert ["0", "lr", "0.125"] in rows
    assert ["0", "momentum", "0.9"] in rows


def test_model_as_torch_prints_it(summary: Command, tmp_path: Path) -> None:
    expected = f"{models.create('simplenet_cifar', 10)}\n"
    assert summary("model", "--arch", "simplenet_cifar").out == expected
    summary("model", "--arch", "simplenet_cifar", "-o", "model.txt")
    assert (tmp_path / "model.txt").read_text() == expected


@pytest.mark.slow
def test_pictures(summary: Command, checkpoint: Path, tmp_path: Path) -> None:
    assert summary("png", "--arch", "simplenet_cifar").out == "simplenet_cifar.png\n"
    assert (tmp_path / "simplenet_cifar.png").read_bytes()[:4] == b"\x89PNG"
    assert summary("svg", "--checkpoint", checkpoint, "-o", "net.svg").out == "net.svg\n"
    assert "conv2" in (tmp_path / "net.svg").read_text()


@pytest.mark.slow
def test_classes_and_shapes(summary: Command) -> None:
    def last(*arguments: str) -> str:
        lines = [line for line in summary("compute", *arguments).out.splitlines() if line.strip()]
        return next(line for line in lines if line.strip().startswith("fc "))

    assert "1x100" in last("--arch", "resnet20_cifar", "--num-classes", "100")
    assert "1x10 " in last("--arch", "resnet20_cifar", "--input-shape", "3x64x64")
    rows = summary("compute", "--arch", "resnet20_cifar", "--input-shape", "3,64,64", "--format", "csv").out
    assert rows.splitlines()[1].split(",")[4:6] == ["1x3x64x64", str(3 * 64 * 64)]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["sparsty", "--arch", "simplenet_cifar"], "KIND: no such summary, got 'sparsty'; did you mean 'sparsity'?"),
        (["sparsity"], "--arch: give an architecture, or a --checkpoint"),
        (["sparsity", "--arch", "simplnet_cifar"], "did you mean 'simplenet_cifar'?"),
        (["optimizer", "--arch", "simplenet_cifar"], "--checkpoint: is needed for the optimizer's settings"),
        (["compute", "--arch", "simplenet_cifar", "--input-shape", "3x28"], "the model does not run on it"),
        (["compute", "--arch", "simplenet_cifar", "--input-shape", "3x28x28"], "the model does not run on it"),
        (["compute", "--arch", "simplenet_cifar", "--input-shape", "big"], "--input-shape: must be whole numbers"),
        (
            ["compute", "--arch", "simplenet_cifar", "--dataset", "cifar"],
            "--dataset: its shape is not known, got 'cifar'",
        ),
        (["png", "--arch", "simplenet_cifar", "-o", "x.svg"], "--out: must end in .png, got 'x.svg'"),
        (["sparsity", "--checkpoint", "gone.pt"], "gone.pt"),
        (
            ["sparsity", "--checkpoint", "checkpoint.pt", "--arch", "resnet20_cifar"],
            "checkpoint.pt: is of simplenet_cifar, got 'resnet20_cifar'",
        ),
    ],
)
def test_errors_are_one_line(summary: Command, checkpoint: Path, arguments: list[str], expected: str) -> None:
    ended = summary(*arguments)
    assert (ended.code, ended.out) == (2, "")
    assert ended.err.count("\n") == 1
    assert expected in ended.err
