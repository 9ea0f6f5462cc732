"""What was trained for, as a checkpoint tells it."""

from __future__ import annotations

from typing import Any

import pytest

from raydistill.datasets import DatasetConfig
from raydistill.errors import ConfigError
from raydistill.tasks import TaskConfig
from raydistill.tasks.of_checkpoint import asked_for, named_in, task_by_arch, task_of_content


@pytest.mark.parametrize(
    ("content", "name", "args"),
    [
        ({"num_classes": 10}, "classification", {}),
        ({"num_classes": 3, "multi_label": True}, "classification", {"multi_label": True}),
        ({"run": {"bptt": 16, "tokens": "bytes"}}, "language_model", {"bptt": 16, "tokens": "bytes"}),
        ({"target_scale": 1.0, "run": {"loss": "mse"}}, "regression", {}),
        (
            {"target_scale": 1.0, "columns": {"targets": [{"name": "price"}]}, "run": {"loss": "huber"}},
            "regression",
            {"target": "price", "loss": "huber"},
        ),
        ({"user_ids": [], "run": {"negatives": 7}}, "recommender", {"negatives": 7}),
        ({"num_classes": 3, "run": {"masks": True, "flips": True}}, "detection", {"masks": True}),
    ],
)
def test_a_checkpoint_tells_its_task(content: dict[str, Any], name: str, args: dict[str, Any]) -> None:
    said = {**content, "run": {"arch": "simplenet_cifar", **content.get("run", {})}}
    found = task_of_content(said, "c.pt")
    assert (found.name, dict(found.args)) == (name, args)


def test_or_does_not() -> None:
    with pytest.raises(ConfigError, match=r"--task: c\.pt does not say what it was trained for; name it"):
        task_of_content({"run": {"arch": "mine:net"}}, "c.pt")


@pytest.mark.parametrize(
    ("arch", "task"),
    [
        ("resnet20_cifar", "classification"), ("vit_b_16", "classification"), ("decoder_lm", "language_model"),
        ("mlp", "regression"), ("neumf", "recommender"), ("mine:net", "classification"),
    ],
)  # fmt: skip
def test_a_network_is_for_a_task(arch: str, task: str) -> None:
    assert task_by_arch(arch) == task


def test_the_task_as_the_user_named_it() -> None:
    task = TaskConfig("language_model", {"bptt": 7})
    asked = asked_for(task, DatasetConfig(data_dir="text", image_size=(8, 9)))
    whole = {"name": "language_model", "args": {"bptt": 7}, "dataset": {"data_dir": "text", "image_size": [8, 9]}}
    assert asked == whole
    assert named_in({"task": asked}) == (task, whole["dataset"])
    content = {"task": asked, "user_ids": [], "run": {"arch": "mlp"}}
    assert task_of_content(content, "c.pt") == task  # what is said comes before what can be guessed
    assert asked_for(TaskConfig("language_model", {"made": object()}), DatasetConfig()) == {"name": "language_model"}
    for other in ({}, {"task": 3}, {"task": {"name": 3}}):
        assert named_in(other) is None


def test_a_task_of_ones_own_is_the_users_to_name() -> None:
    asked = asked_for(TaskConfig("os:system"), DatasetConfig())
    assert named_in({"task": asked}) == (TaskConfig("os:system"), {})
    with pytest.raises(ConfigError) as caught:
        task_of_content({"task": asked, "run": {"arch": "mlp"}}, "c.pt")
    rule = "c.pt is of a task of your own, which is called only where you name it yourself"
    assert str(caught.value) == f"--task: {rule}, got 'os:system'; --task os:system"
