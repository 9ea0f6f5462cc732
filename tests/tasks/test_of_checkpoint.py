"""What was trained for, as a checkpoint tells it."""

from __future__ import annotations

from typing import Any

import pytest

from raydistill.errors import ConfigError
from raydistill.tasks.of_checkpoint import task_by_arch, task_of_content


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
