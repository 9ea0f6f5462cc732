"""Weights as people have them: every form loads at every entry, or is one line; nothing in a file runs."""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from raydistill import models
from raydistill.analysis.network import read_network
from raydistill.datasets import DatasetConfig, load
from raydistill.errors import CheckpointError, RaydistillError
from raydistill.sweep.baseline import adopted, given_baseline
from raydistill.tasks.classification import Classification
from raydistill.training import Distillation, RunConfig, evaluate_checkpoint, fit, load_model, read_checkpoint
from raydistill.training.teacher import load_teacher
from raydistill.training.weights_file import fitted, is_plain, read_weights

ARCH = "simplenet_cifar"


def network() -> nn.Module:
    torch.manual_seed(3)
    return models.create(ARCH, 10)


def state(prefix: str = "") -> dict[str, torch.Tensor]:
    return {f"{prefix}{name}": value.clone() for name, value in network().state_dict().items()}


def lightning_file(folder: Path) -> Path:
    """As the trainer itself writes it."""
    lightning = pytest.importorskip("lightning", reason="Lightning's own file needs Lightning")
    from torch.utils.data import DataLoader, TensorDataset

    class Lit(lightning.LightningModule):  # type: ignore[name-defined,misc]
        def __init__(self, width: int = 3) -> None:
            super().__init__()
            self.save_hyperparameters()
            self.net = network()

        def training_step(self, batch: Any, index: int) -> torch.Tensor:
            return self.net(batch[0]).square().mean()

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), lr=0.0)

    trainer = lightning.Trainer(
        max_steps=1, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, default_root_dir=folder,
    )  # fmt: skip
    trainer.fit(Lit(), DataLoader(TensorDataset(torch.zeros(2, 3, 32, 32))))
    trainer.save_checkpoint(folder / "lit.ckpt")
    return folder / "lit.ckpt"


def saved(content: Callable[[], Any], name: str = "model.pt") -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        torch.save(content(), folder / name)
        return folder / name

    return write


def safetensors_file(folder: Path) -> Path:
    save_file(state(), folder / "model.safetensors")
    return folder / "model.safetensors"


def hugging_face_folder(folder: Path) -> Path:
    """Two parts with an index."""
    whole = list(state().items())
    parts = {"model-1.safetensors": dict(whole[:4]), "model-2.safetensors": dict(whole[4:])}
    for name, part in parts.items():
        save_file(part, folder / name)
    index = {"weight_map": {name: file for file, part in parts.items() for name in part}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return folder


def bin_folder(folder: Path) -> Path:
    torch.save(state(), folder / "pytorch_model.bin")
    return folder


FORMS: dict[str, Callable[[Path], Path]] = {
    "plain": saved(state),
    "old zip-less": lambda folder: (
        torch.save(state(), folder / "m.pt", _use_new_zipfile_serialization=False),
        folder / "m.pt",
    )[1],
    "state_dict": saved(lambda: {"state_dict": state(), "epoch": 3}),
    "model": saved(lambda: {"model": state(), "optimizer": {"state": {}, "param_groups": []}, "epoch": 3}),
    "model_state_dict": saved(lambda: {"model_state_dict": state(), "loss": 0.3}),
    "ema": saved(lambda: {"ema": {"module": state(), "decay": 0.9}}),
    "DataParallel": saved(lambda: {"state_dict": state("module.")}),
    "compiled": saved(lambda: state("_orig_mod.")),
    "compiled DataParallel": saved(lambda: state("module._orig_mod.")),
    "timm": saved(
        lambda: {
            "state_dict": state(), "state_dict_ema": {k: v * 0 for k, v in state().items()}, "arch": "some_net",
            "epoch": 3, "version": 2, "args": argparse.Namespace(lr=0.1, output=pathlib.PurePosixPath("x")),
        }
    ),
    "an attribute of what was saved": saved(lambda: {**state("backbone."), "criterion.weight": torch.ones(3)}),
    "Lightning": lightning_file,
    "safetensors": safetensors_file,
    "Hugging Face folder": hugging_face_folder,
    "folder with a .bin": bin_folder,
}  # fmt: skip


@pytest.fixture(scope="module")
def digits() -> Classification:
    return Classification(load(DatasetConfig("digits")))


@pytest.mark.parametrize(
    "form", [pytest.param(form, marks=[pytest.mark.slow] if form == "Lightning" else []) for form in FORMS]
)
def test_every_form_is_the_network_that_was_saved(form: str, tmp_path: Path) -> None:
    path = FORMS[form](tmp_path)
    assert is_plain(path)
    model, own = load_model(path, ARCH), state()
    assert all(torch.equal(value, own[name]) for name, value in model.state_dict().items())
    with pytest.raises(CheckpointError, match=r"does not say its architecture; name it: --arch ARCH"):
        load_model(path)


@pytest.mark.slow
@pytest.mark.parametrize("form", ["plain", "safetensors", "DataParallel"])
def test_every_entry_takes_it(form: str, tmp_path: Path, digits: Classification) -> None:
    path = str(FORMS[form](tmp_path))
    own = network().eval()
    found = evaluate_checkpoint(path, digits, "test", "cpu", arch=ARCH)
    from raydistill.tasks import Loading

    loading = Loading(torch.device("cpu"), 512)
    assert found.metrics == digits.evaluate(own, digits.feed("test", loading), loading)
    assert read_network(Path(path), ARCH).model(torch.zeros(1, 3, 32, 32)).shape == (1, 10)
    teacher = load_teacher(Distillation(teacher=ARCH, checkpoint=path), digits)
    assert torch.equal(teacher.state_dict()["fc1.weight"], own.state_dict()["fc1.weight"])
    config = RunConfig(
        ARCH, DatasetConfig("digits"), epochs=1, lr=1e-12, precision="fp32", device="cpu", init_from=path,
        effective_train_size=0.05, tensorboard=False, out_dir=str(tmp_path / "run"),
    )  # fmt: skip
    assert next(iter(fit(config, task=digits))).epochs == 1
    trained = read_checkpoint(tmp_path / "run/checkpoint.pt")["model"]
    assert torch.allclose(trained["fc1.weight"], own.state_dict()["fc1.weight"], atol=1e-6)
    going_on = RunConfig(ARCH, DatasetConfig("digits"), epochs=1, continue_from=path, device="cpu")
    with pytest.raises(CheckpointError, match=r"has no optimizer to go on with; start with a fresh one at epoch 0"):
        next(iter(fit(going_on, task=digits)))


@pytest.mark.slow
def test_a_sweep_s_baseline_becomes_a_checkpoint_of_its_own(tmp_path: Path, digits: Classification) -> None:
    given = FORMS["DataParallel"](tmp_path)
    run = RunConfig(ARCH, DatasetConfig("digits"))
    path = adopted(str(given), run, digits, tmp_path / "baselines")
    content = read_checkpoint(path)
    own = state()
    assert all(torch.equal(value, own[name]) for name, value in content["model"].items())
    last = given_baseline(str(path), run, digits)
    found = evaluate_checkpoint(given, digits, "validation", "cpu", arch=ARCH)
    assert (last.metrics, last.sparsity) == (found.metrics, 0.0)
    assert adopted(str(path), run, digits, tmp_path / "baselines") == path  # one of raydistill's stays where it is


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(5, 3)
        self.norm = nn.BatchNorm1d(3)
        self.head = nn.Linear(3, 5, bias=False)
        self.head.weight = self.embed.weight


def test_one_name_of_a_tied_weight_is_enough_and_counters_begin_at_0(tmp_path: Path) -> None:
    model = Tied()
    whole = {name: value.clone() for name, value in model.state_dict().items()}
    del whole["embed.weight"], whole["norm.num_batches_tracked"]
    torch.save(whole, tmp_path / "m.pt")
    fresh = Tied()
    found = fitted(fresh, read_weights(tmp_path / "m.pt"), "m.pt")
    assert torch.equal(found["embed.weight"], whole["head.weight"])
    assert int(found["norm.num_batches_tracked"]) == 0
    del whole["head.weight"]
    torch.save(whole, tmp_path / "m.pt")
    with pytest.raises(CheckpointError, match=r"m.pt: lacks 'embed.weight', 'head.weight'; name"):
        fitted(Tied(), read_weights(tmp_path / "m.pt"), "m.pt")


def test_missing_and_unexpected_names_are_said_by_name(tmp_path: Path) -> None:
    other = {name: value for name, value in state().items() if not name.startswith("conv1")}
    torch.save({**other, **{f"extra{i}.weight": torch.ones(2, 2) for i in range(5)}}, tmp_path / "m.pt")
    expected = (
        r"m.pt: lacks 'conv1.weight', 'conv1.bias' and has, and the network lacks, 'extra0.weight', "
        r"'extra1.weight', 'extra2.weight' and 2 more; name the architecture"
    )
    with pytest.raises(CheckpointError, match=expected):
        load_model(tmp_path / "m.pt", ARCH)


def test_another_width_is_not_taken_for_a_thinned_network(tmp_path: Path) -> None:
    torch.save({**state(), "fc2.weight": torch.zeros(84, 100)}, tmp_path / "m.pt")
    with pytest.raises(CheckpointError, match=r"'fc2.weight' must have shape \(84, 120\), got \(84, 100\)"):
        load_model(tmp_path / "m.pt", ARCH)


class Shell:
    def __reduce__(self) -> Any:
        return os.system, ("touch ran",)


def _truncated(folder: Path) -> Path:
    path = safetensors_file(folder)
    path.write_bytes(path.read_bytes()[:200])
    return path


def _outside(folder: Path) -> Path:
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": "../../secret"}}))
    return folder


def _pickled(folder: Path) -> Path:
    (folder / "m.pt").write_bytes(pickle.dumps({"state_dict": Shell()}))
    return folder / "m.pt"


@pytest.mark.parametrize(
    ("write", "line"),
    [
        (saved(lambda: {"state_dict": state(), "hook": Shell()}), r"names '\w+.system', which may run code"),
        (saved(lambda: {"model_state_dict": state(), "hook": Shell()}), r"names '\w+.system', which may run code"),
        (_pickled, r"m.pt: "),
        (saved(network), r"holds a whole network as an object \(torch.nn.modules.*save its state_dict\(\) instead"),
        (saved(lambda: {"epoch": 3, "lr": 0.1}), r"holds no state_dict, neither as it is nor under state_dict"),
        (saved(lambda: [1, 2]), r"holds no state_dict, got 'list'"),
        (saved(dict), r"holds no state_dict"),
        (_truncated, r"is damaged, or no safetensors file"),
        (_outside, r"names a file outside the folder, got '../../secret'"),
        (lambda folder: folder, r"holds no weights \(model.safetensors, pytorch_model.bin\); name the file itself"),
        (lambda folder: folder / "gone.safetensors", r"gone.safetensors: no such checkpoint"),
        (lambda folder: folder / "gone.pt", r"gone.pt: no such checkpoint"),
    ],
)
def test_what_is_wrong_is_one_line_and_nothing_runs(
    write: Callable[[Path], Path], line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = write(tmp_path)
    for entry in (lambda: load_model(path, ARCH), lambda: read_network(path, ARCH)):
        with pytest.raises(RaydistillError, match=line) as caught:
            entry()
        assert len(str(caught.value).splitlines()) == 1
    assert not Path("ran").exists()


@pytest.mark.slow
def test_a_file_s_arch_that_names_a_function_is_not_called(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"state_dict": state(), "arch": "os:system", "epoch": 1}, tmp_path / "m.pt")
    with pytest.raises(CheckpointError, match=r"is of a factory of your own"):
        load_model(tmp_path / "m.pt")
    assert load_model(tmp_path / "m.pt", ARCH).state_dict()["fc1.bias"].shape == (120,)
