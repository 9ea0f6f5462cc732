"""A teacher: what may be said of it, how it is had, and by what a run knows it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from raydistill import models
from raydistill.compression import build
from raydistill.compression.distillation import distillation_loss
from raydistill.datasets import DatasetConfig, load
from raydistill.errors import CheckpointError, RaydistillError
from raydistill.schedule import parse_schedule
from raydistill.tasks.classification import Classification
from raydistill.tasks.classification.preprocessing import Translated
from raydistill.training import Distillation, RunConfig
from raydistill.training.checkpoint import write_checkpoint
from raydistill.training.teacher import add_teacher, check_distillation, digest, identity, load_teacher

ARCH = "simplenet_cifar"
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def task() -> Classification:
    return Classification(load(DatasetConfig("digits")))


def network() -> nn.Module:
    torch.manual_seed(7)
    return models.create(ARCH, 10)


@pytest.fixture
def content(task: Classification) -> dict[str, Any]:
    described = task.described()
    run = {"arch": ARCH, "model_args": {}}
    return {"run": run, "model": network().state_dict(), "precision": "fp32", **described}


@pytest.fixture
def file(content: dict[str, Any], tmp_path: Path) -> str:
    write_checkpoint(tmp_path / "teacher.pt", content)
    return str(tmp_path / "teacher.pt")


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({}, "distillation.checkpoint: needs a checkpoint (--kd-resume), or pretrained and the name of a teacher"),
        ({"checkpoint": "x", "pretrained": True}, "and not both, got 'x'"),
        ({"pretrained": True}, "distillation.teacher: is missing; name the architecture (--kd-teacher)"),
        ({"checkpoint": "x", "temperature": 0.0}, "distillation.temperature: must be a number above 0"),
        ({"checkpoint": "x", "teacher_wt": 1.0}, "distillation.teacher_wt: must be 0"),
        ({"checkpoint": "x", "start_epoch": 4}, "distillation.start_epoch: must be from 0 to below 4, where"),
        ({"checkpoint": "x", "start_epoch": 1, "end_epoch": 1}, "must be from 0 to below 1"),
        ({"checkpoint": "x", "start_epoch": -1}, "must be from 0 to below 4"),
        ({"checkpoint": "x", "hidden": {"fc1": "fc1"}, "hidden_loss": "mean"}, "hidden_loss"),
    ],
)
def test_what_cannot_be_is_known_before_anything_is_read(values: dict[str, Any], says: str) -> None:
    (fault,) = check_distillation(Distillation(**values), epochs=4)
    assert says in str(fault)


def test_what_can_be_has_no_faults_and_what_cannot_is_said_together() -> None:
    assert check_distillation(Distillation(checkpoint="x", start_epoch=3), epochs=4) == []
    assert check_distillation(Distillation(teacher="resnet18", pretrained=True), epochs=4) == []
    faults = check_distillation(Distillation(temperature=0.0, start_epoch=9), epochs=4)
    assert [fault.where for fault in faults] == [
        "distillation.temperature", "distillation.checkpoint", "distillation.start_epoch",
    ]  # fmt: skip


@pytest.mark.slow
def test_a_checkpoints_network_is_given_its_batches_as_they_are(file: str, task: Classification) -> None:
    teacher = load_teacher(Distillation(checkpoint=file), task)
    assert not isinstance(teacher, Translated)
    assert not teacher.training
    assert all(torch.equal(value, teacher.state_dict()[name]) for name, value in network().state_dict().items())


def test_one_that_has_seen_other_pixels_gets_those(
    content: dict[str, Any], task: Classification, tmp_path: Path
) -> None:
    seen = {"mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25]}
    write_checkpoint(tmp_path / "c.pt", {**content, **seen, "preprocessing": {**content["preprocessing"], **seen}})
    teacher = load_teacher(Distillation(checkpoint=str(tmp_path / "c.pt")), task)
    pixels = torch.rand(2, 3, 32, 32)
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (task.dataset.mean, task.dataset.std))
    with torch.no_grad():
        expected = network().eval()((pixels - 0.5) / 0.25)
        torch.testing.assert_close(teacher((pixels - mean) / std), expected, atol=1e-4, rtol=1e-4)


def test_published_weights_that_there_are_none_of_are_one_line(task: Classification) -> None:
    with pytest.raises(RaydistillError, match=r"there are no published weights of 'simplenet_cifar'"):
        load_teacher(Distillation(teacher=ARCH, pretrained=True), task)


@pytest.mark.parametrize(
    ("changed", "said", "rule"),
    [
        ({}, {"teacher": "resnet20_cifar"}, r"is of 'simplenet_cifar', got 'resnet20_cifar'; name that one as teacher"),
        ({"num_classes": 7}, {}, r"knows other classes: digits has 10, got 7"),
        ({"run": {"arch": "mine:net", "model_args": {}}}, {}, r"is not on the menu, got 'mine:net'; name the teacher"),
    ],
)
def test_one_that_does_not_fit_is_one_line(
    changed: dict[str, Any], said: dict[str, Any], rule: str, content: dict[str, Any], task: Classification,
    tmp_path: Path,
) -> None:  # fmt: skip
    path = tmp_path / "c.pt"
    write_checkpoint(path, {**content, **changed})
    with pytest.raises(CheckpointError, match=rule) as caught:
        load_teacher(Distillation(checkpoint=str(path), **said), task)
    assert len(str(caught.value).splitlines()) == 1


def test_one_of_distiller_that_does_not_say_its_architecture_is_named(task: Classification, tmp_path: Path) -> None:
    state = {f"module.{name}": value for name, value in network().state_dict().items()}
    torch.save({"state_dict": state, "optimizer": {}, "epoch": 3}, tmp_path / "best.pth.tar")
    path = str(tmp_path / "best.pth.tar")
    with pytest.raises(CheckpointError, match="does not say its architecture; name the teacher"):
        load_teacher(Distillation(checkpoint=path), task)
    assert load_teacher(Distillation(checkpoint=path, teacher=ARCH), task)


def test_a_run_knows_its_teacher_by_what_it_says_and_not_by_its_file(file: str) -> None:
    said = Distillation(checkpoint=file, temperature=3.0)
    known = identity(said, network())
    assert known == identity(replace(said, checkpoint="elsewhere.pt", teacher=ARCH), network())
    assert known["temperature"] == 3.0
    assert not [key for key in known if key.startswith("hidden")]
    assert identity(replace(said, hidden={"fc1": "fc1"}), network())["hidden"] == {"fc1": "fc1"}
    other = network()
    with torch.no_grad():
        other.fc3.bias[0] += 1  # type: ignore[index,operator,union-attr]
    assert identity(said, other)["teacher"] != known["teacher"]
    assert identity(replace(said, temperature=2.0), network()) != known


def test_a_hash_is_of_values_and_names() -> None:
    one, two = torch.tensor([1.0, 2.0]), torch.tensor([1.0, 3.0])
    assert digest({"a": one}) == digest({"a": one.clone()}) != digest({"a": two})
    assert digest({"a": one}) != digest({"b": one})
    assert digest({"a": torch.arange(6.0).reshape(2, 3).t()}) == digest({"a": torch.tensor([[0.0, 3], [1, 4], [2, 5]])})


@pytest.mark.slow
def test_it_speaks_in_the_loss_of_its_epochs(file: str, task: Classification) -> None:
    said = Distillation(
        checkpoint=file, temperature=2.0, distill_wt=0.7, student_wt=0.3, start_epoch=1, end_epoch=2,
    )  # fmt: skip
    config = RunConfig(ARCH, DatasetConfig("digits"), epochs=3, distillation=said)
    torch.manual_seed(1)
    student = models.create(ARCH, 10)
    optimizer = torch.optim.SGD(student.parameters(), lr=0.1)
    scheduler = build(parse_schedule({"policies": []}, "s"), student, optimizer, task.example_input())
    known = add_teacher(config, task, student, scheduler, CPU)
    assert known["teacher"] == digest(network().state_dict())
    images = torch.randn(4, 3, 32, 32)
    losses = []
    for epoch in range(3):
        scheduler.on_epoch_begin(epoch)
        scheduler.on_minibatch_begin(epoch, 0, 1)
        output = student(images)
        losses.append(float(scheduler.before_backward(epoch, 0, 1, output.sum()).detach()))
    own, output = output.sum().detach(), output.detach()
    taught = 0.3 * own + 0.7 * distillation_loss(output, network()(images).detach(), 2.0)
    assert losses == pytest.approx([float(own), float(taught), float(own)], rel=1e-4)
