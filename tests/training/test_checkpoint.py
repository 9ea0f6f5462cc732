from __future__ import annotations

import math
import os
import pickle
import random
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from raydistill import models
from raydistill.compression.structure import Selection, Thinned
from raydistill.errors import CheckpointError, StorageError
from raydistill.files import write_atomically
from raydistill.training.checkpoint import (
    arch_of,
    built,
    load_weights,
    model_of,
    read_checkpoint,
    read_history,
    require,
    rng_state,
    schedule_hash,
    set_rng_state,
    without_training,
    write_checkpoint,
)
from raydistill.training.distiller_checkpoint import read_any

PARTS = {"run": {"arch": "simplenet_cifar", "model_args": {}}, "num_classes": 10, "model": {}}


class Trap:
    def __reduce__(self):
        return os.system, ("touch trapped",)


@pytest.mark.parametrize("content", [b"", b"garbage", pickle.dumps(Trap()), pickle.dumps({"format": 1})])
def test_no_file_runs_code_or_ends_in_a_traceback(
    tmp_path: Path, content: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "checkpoint.pt"
    path.write_bytes(content)
    with pytest.raises(CheckpointError) as caught:
        read_checkpoint(path)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "trapped").exists()


def test_a_pickle_inside_a_torch_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"format": 1, "model": Trap()}, tmp_path / "checkpoint.pt")
    with pytest.raises(CheckpointError, match="which may run code"):
        read_checkpoint(tmp_path / "checkpoint.pt")
    assert not (tmp_path / "trapped").exists()


def test_a_truncated_checkpoint_is_said_to_be_damaged(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pt"
    write_checkpoint(path, {**PARTS, "model": {"w": torch.ones(1000)}})
    assert read_checkpoint(path)["model"]["w"].sum() == 1000
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(CheckpointError, match="is damaged"):
        read_checkpoint(path)
    with pytest.raises(CheckpointError, match="no such checkpoint"):
        read_checkpoint(tmp_path / "other.pt")


@pytest.mark.slow
def test_damage_of_any_kind_is_one_line(tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    """Cut off, bytes changed, or something else altogether. (A changed weight may still be a checkpoint.)"""
    path = tmp_path / "checkpoint.pt"
    rng = random.Random(0)
    write_checkpoint(path, {**PARTS, "model": {"w": torch.ones(20)}, "history": []})
    whole = path.read_bytes()
    cut = [whole[:length] for length in range(0, len(whole), 40)]
    changed = [bytearray(whole) for _ in range(150)]
    for content in changed:
        for _ in range(rng.choice([1, 3, 30])):
            content[rng.randrange(len(content))] = rng.randrange(256)
    noise = [start + rng.randbytes(rng.randrange(1, 300)) for start in (b"", b"\x80\x02") for _ in range(80)]
    said: list[str] = []
    for content in (*cut, *changed, *noise, bytes(len(whole))):
        path.write_bytes(content)
        for read in (read_checkpoint, read_history, read_any):
            try:
                read(path)
            except CheckpointError as error:
                said.append(str(error))
    assert all(line.startswith(f"{path}: is ") and "\n" not in line for line in said)
    assert len(said) > 3 * (len(cut) + len(noise))
    assert not recwarn.list


def test_a_file_that_the_disk_does_not_give_may_be_whole(tmp_path: Path) -> None:
    (tmp_path / "checkpoint.pt").mkdir()
    with pytest.raises(CheckpointError, match=r"cannot be read \(Is a directory\)"):
        read_checkpoint(tmp_path / "checkpoint.pt")


def test_a_history_that_is_none(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "c.pt", {**PARTS, "history": [{"epoch": 1}]})
    with pytest.raises(CheckpointError, match="is damaged: the history of its epochs"):
        read_history(tmp_path / "c.pt")


def test_random_states_survive_a_round_trip(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "c.pt", {**PARTS, "rng": rng_state()})
    expected = (torch.rand(3), np.random.rand(3), random.random())
    set_rng_state(read_checkpoint(tmp_path / "c.pt")["rng"])
    assert torch.equal(torch.rand(3), expected[0])
    assert np.array_equal(np.random.rand(3), expected[1])
    assert random.random() == expected[2]


def test_a_write_that_fails_leaves_the_old_content_and_no_litter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file.txt"
    write_atomically(path, "old")
    monkeypatch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(StorageError, match=r"file.txt: cannot be written \(no space left on device\)"):
        write_atomically(path, "new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot be written"):
        write_atomically(tmp_path / "file" / "deeper", "text")


SMALL = {"run": {"arch": "a", "model_args": {}}, "model": {}}
RIGHT: dict[str, list[Any]] = {
    "run": [{"arch": "a", "model_args": {"width": 3}}],
    "model": [{"w": torch.ones(1)}],
    "num_classes": [1, 10_000_000],
    "sizes": [{}, {"tokens": 1, "more": 10_000_000}],
    "epoch": [-1, 2**31],
    "history": [[]],
    "trained": [{}],
    "average": [{"steps": 0}, {"steps": 2**62}],
    "stepping": [{}],
    "scheduler": [{}, {"masks": {"w": torch.ones(1)}}],
    "masks": [{"w": torch.ones(1)}],
    "optimizer": [None, {}],
    "precision": ["fp32", "bf16", "fp16"],
    "dataset": ["x"],
    "classes": [[], ["cat"]],
    "task": [{}],
    "schedule": ["", "x"],
    "structure": [[]],
    "mean": [[], [0, 0.5], (1.0,)],
    "std": [[1.0]],
    "image_shape": [[1], (3, 32, 32), [1] * 8, [1 << 26], [1 << 13, 1 << 13]],
    "inputs": [[]],
}
WRONG: dict[str, list[Any]] = {
    "run": [None, [], {}, {"arch": "a"}, {"arch": 1, "model_args": {}}, {"arch": "a", "model_args": []},
            {"arch": "a", "model_args": {1: 2}}],
    "model": [None, [], {"w": 1.0}, {1: torch.ones(1)}],
    "num_classes": [0, 10_000_001, True, 2.0, "3", None],
    "sizes": [[], {"tokens": 0}, {"tokens": 10_000_001}, {1: 2}, {"tokens": True}],
    "epoch": [-2, 2**31 + 1, 1.0, None],
    "history": [{}, None],
    "trained": [None, {"w": 1}],
    "average": [{}, {"steps": -1}, {"steps": 2**62 + 1}, 3, None],
    "stepping": [[], None],
    "scheduler": [[], {"masks": []}, {"masks": {"w": 1}}],
    "masks": [None, {"w": [1]}],
    "optimizer": [[], 1],
    "precision": ["fp8", None, 16],
    "dataset": [1, None],
    "classes": ["cat", [1], None],
    "task": [[], None],
    "schedule": [1, None],
    "structure": [{}, None],
    "mean": [0.5, ["x"], [math.nan], [math.inf], None],
    "std": [{}, [None]],
    "image_shape": [[], [0], [-1], [1] * 9, [(1 << 26) + 1], [1 << 13, 1 << 14], 3, [True], [2.0]],
    "inputs": [{}, [1]],
}  # fmt: skip


@pytest.mark.parametrize("key", RIGHT)
def test_each_key_of_a_checkpoint_is_what_it_must_be_or_is_named(key: str, tmp_path: Path) -> None:
    path = tmp_path / "c.pt"
    for value in RIGHT[key]:
        write_checkpoint(path, {**SMALL, key: value})
        assert read_checkpoint(path).keys() == {"format", *SMALL, key}
    for value in WRONG[key]:
        write_checkpoint(path, {**SMALL, key: value})
        with pytest.raises(CheckpointError, match=f"is damaged: its '{key}' is not what it must be; give a checkpoint"):
            read_checkpoint(path)


def test_what_is_no_checkpoint_and_what_a_checkpoint_lacks(tmp_path: Path) -> None:
    path = tmp_path / "c.pt"
    for content in ({"format": 2, **SMALL}, {**SMALL}, [1], {"format": 1, "run": SMALL["run"]}):
        torch.save(content, path)
        with pytest.raises(CheckpointError, match="is not a checkpoint of raydistill"):
            read_checkpoint(path)
    torch.save({"format": 1, "model": {}}, path)
    with pytest.raises(CheckpointError, match="is damaged: its 'run' is missing"):
        read_checkpoint(path)
    require({"a": None, "b": 1}, "c.pt", "a", "b")
    with pytest.raises(CheckpointError, match=r"c\.pt: is damaged: its 'b' is missing"):
        require({"a": None}, "c.pt", "a", "b")
    write_checkpoint(path, SMALL)
    with pytest.raises(CheckpointError, match="the history of its epochs cannot be read"):
        read_history(path)


def test_a_view_is_saved_without_the_rest_of_what_it_is_a_view_of(tmp_path: Path) -> None:
    rest = torch.rand(100_000)
    write_checkpoint(tmp_path / "c.pt", {**SMALL, "model": {"w": rest[:3]}, "history": [{"deep": [rest[5:7]]}]})
    assert (tmp_path / "c.pt").stat().st_size < 10_000
    content = read_checkpoint(tmp_path / "c.pt")
    assert torch.equal(content["model"]["w"], rest[:3])
    assert torch.equal(content["history"][0]["deep"][0], rest[5:7])


def test_hashes_of_schedules_and_what_is_left_of_a_checkpoint_whose_network_is_changed() -> None:
    assert schedule_hash("a") == schedule_hash("a") != schedule_hash("b")
    assert len(schedule_hash("")) == 16
    assert without_training({"model": 1, "optimizer": 2, "format": 1, "average": 3, "classes": 4}) == {
        "model": 1, "classes": 4,
    }  # fmt: skip


def linear(columns: int = 3, bias: bool = True) -> dict[str, torch.Tensor]:
    return dict(torch.nn.Linear(columns, 2, bias=bias).state_dict())


def test_weights_are_those_of_the_model_or_the_first_difference_is_told() -> None:
    model = torch.nn.Linear(3, 2)
    state = linear()
    for content in ({"model": state, "structure": []}, {"model": state}):
        assert load_weights(model, content, "c.pt") == ()
        assert torch.equal(model.weight, state["weight"])
    for content, said in (
        ({"model": linear(bias=False)}, "c.pt: has no 'bias'; it belongs to another architecture"),
        ({"model": {**state, "more": torch.ones(1)}}, "c.pt: has 'more', the model does not; choose its architecture"),
        ({"model": linear(4), "structure": []}, "c.pt: 'weight' must have shape (2, 3), got (2, 4)"),
    ):
        with pytest.raises(CheckpointError, match=re.escape(said)):
            load_weights(model, content, "c.pt")
    with pytest.raises(CheckpointError, match="begins with other changes than those of the network"):
        load_weights(model, {"model": state, "structure": []}, "c.pt", [Thinned({"x": Selection(2, (0,))}, {})])


def test_which_architecture_is_built() -> None:
    def said(arch: object) -> dict[str, Any]:
        return {"run": {"arch": arch, "model_args": {}}}

    assert arch_of(said("simplenet_cifar"), "c.pt") == "simplenet_cifar"
    assert arch_of(said("simplenet_cifar"), "c.pt", "simplenet_cifar") == "simplenet_cifar"
    assert arch_of(said("their.own:net"), "c.pt", "my:net") == arch_of(said(None), "c.pt", "my:net") == "my:net"
    for content, arch, text in (
        (said("simplenet_cifar"), "vgg11", "c.pt: is of simplenet_cifar, got 'vgg11'"),
        (said(None), None, "c.pt: does not say its architecture; name it: --arch ARCH"),
        (said("own:net"), None, "c.pt: is of a factory of your own"),
        (said("simplenet_cifr"), None, "did you mean 'simplenet_cifar'"),
    ):
        with pytest.raises(CheckpointError, match=re.escape(text)):
            arch_of(content, "c.pt", arch)


def test_a_model_is_built_in_eval_mode_and_needs_to_know_its_classes() -> None:
    state = models.create("simplenet_cifar", 7).state_dict()
    content = {"run": {"arch": "simplenet_cifar", "model_args": {}}, "model": dict(state), "num_classes": 7}
    model, structure = built(content, "c.pt")
    assert (model.training, structure) == (False, ())
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())
    assert model_of(content, "c.pt").state_dict().keys() == state.keys()
    with pytest.raises(CheckpointError, match="its 'num_classes' is missing"):
        built({key: value for key, value in content.items() if key != "num_classes"}, "c.pt")
    with pytest.raises(CheckpointError, match=r"holds [\d,]+ bytes of weights and describes a network of [\d,]+"):
        built({**content, "num_classes": 10_000_000}, "c.pt")
