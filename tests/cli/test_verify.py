"""``raydistill verify``: what was changed, what is not there, what may not be called."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from raydistill.datasets import DatasetConfig
from raydistill.export import asked_for, deployed, write_artifact
from raydistill.tasks import TaskConfig
from raydistill.training import RunConfig, fit
from tests.cli.conftest import Ended
from tests.export.conftest import keep
from tests.tasks.language_model.texts import folder_of

pytestmark = pytest.mark.slow

Command = Callable[..., Ended]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    network = deployed(keep(tmp_path / "checkpoint.pt", "simplenet_cifar"))
    write_artifact(network, asked_for(["checkpoint"], "f"), tmp_path / "out", source={}, latency=False)
    return tmp_path / "out"


def test_a_changed_file_ends_with_code_1(raydistill: Command, folder: Path) -> None:
    (folder / "checkpoint.pt").write_bytes(b"other")
    ended = raydistill("verify", str(folder), "--split", "none")
    assert ended.code == 1
    lines = ended.out.splitlines()
    assert lines[0] == f"{folder}/checkpoint.pt: is not the file that was written, its hash differs"
    assert lines[-1] == "not as its manifest says"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--split", "tset"), "error: --split: no such split, got 'tset'; did you mean 'test'?"),
        (("--format", "onnx"), "was written without it, got 'onnx'; it has checkpoint"),
        (("--task", "nosuch"), "unknown task, got 'nosuch'"),
    ],
)
def test_what_cannot_be_done_is_one_line(
    raydistill: Command, folder: Path, arguments: tuple[str, ...], says: str
) -> None:
    ended = raydistill("verify", str(folder), *arguments)
    assert (ended.code, ended.err.count("\n")) == (2, 1)
    assert says in ended.err


def test_weights_that_do_not_know_their_data_are_told_which(raydistill: Command, folder: Path) -> None:
    ended = raydistill("verify", str(folder), "--task", "classification")
    assert (ended.code, ended.err.count("\n")) == (2, 1)
    assert "dataset.name: is missing; name one of cifar10, " in ended.err


@pytest.mark.parametrize(("key", "option"), [("name", "--task"), ("dataset", "--dataset")])
def test_code_that_a_manifest_names_is_not_called(raydistill: Command, folder: Path, key: str, option: str) -> None:
    said = json.loads((folder / "manifest.json").read_text())
    said["task"] |= {"name": "classification", key: {"name": "os:system"} if key == "dataset" else "os:system"}
    (folder / "manifest.json").write_text(json.dumps(said))
    ended = raydistill("verify", str(folder))
    assert (ended.code, ended.err.count("\n")) == (2, 1)
    assert f"called only where you name it yourself, got 'os:system'; {option} os:system, or --split none" in ended.err


def test_a_language_model_knows_its_task_and_its_text(raydistill: Command, tmp_path: Path) -> None:
    """The last stretch of a text is shorter than what an exported network takes."""
    text = folder_of(tmp_path)
    config = RunConfig(
        "word_lang_model", DatasetConfig(data_dir=str(text)), model_args={"emsize": 8, "nhid": 8, "dropout": 0.0},
        task=TaskConfig("language_model", {"bptt": 7}), epochs=1, batch_size=8, lr=0.5, precision="fp32", device="cpu",
        tensorboard=False, out_dir=str(tmp_path / "run"),
    )  # fmt: skip
    for _ in fit(config):
        pass
    out = tmp_path / "out"
    ended = raydistill(
        "export", str(tmp_path / "run/checkpoint.pt"), "-o", str(out), "--format", "safetensors,pt2", "--no-latency"
    )
    assert (ended.code, ended.err) == (0, "")
    ended = raydistill("verify", str(out))
    assert (ended.code, ended.err) == (0, "")
    perplexities = {line.partition("test perplexity ")[2] for line in ended.out.splitlines()[:-1]}
    assert len(perplexities) == 1
    assert 3 < float(perplexities.pop().partition(",")[0]) < 30
    manifest = json.loads((out / "manifest.json").read_text())
    manifest["figures"] = {"test": {"perplexity": 2.5}}  # as a sweep has it, with the state carried on
    (out / "manifest.json").write_text(json.dumps(manifest))
    ended = raydistill("verify", str(out))
    assert (ended.code, ended.out.count("the masked network with its state had 2.5")) == (0, 2)
    (text / "grammar.test.txt").unlink()
    ended = raydistill("verify", str(out))
    assert (ended.code, ended.err.count("\n")) == (2, 1)


def test_a_checkpoint_of_a_task_of_ones_own(raydistill: Command, tmp_path: Path) -> None:
    path = keep(tmp_path / "own.pt", "simplenet_cifar", task={"name": "mine:Task", "args": {}, "dataset": {}})
    write_artifact(deployed(path), asked_for(["checkpoint"], "f"), tmp_path / "out", source={}, latency=False)
    ended = raydistill("verify", str(tmp_path / "out"))
    assert (ended.code, ended.err.count("\n")) == (2, 1)
    assert "called only where you name it yourself, got 'mine:Task'; --task mine:Task, or --split none" in ended.err
    ended = raydistill("verify", str(tmp_path / "out"), "--split", "none")
    assert (ended.code, ended.err) == (0, "")
