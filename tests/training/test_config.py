"""A run's value: the files it begins with, and what it is on another machine."""

from __future__ import annotations

from raydistill.training.config import Distillation, RunConfig


def test_files_that_a_run_begins_with_are_named_once_and_in_order() -> None:
    taught = Distillation(checkpoint="b.pt")
    assert RunConfig("simplenet_cifar", init_from="b.pt", continue_from="a.pt", distillation=taught).given == (
        "a.pt",
        "b.pt",
    )
    assert RunConfig("simplenet_cifar", distillation=Distillation(teacher="resnet20_cifar")).given == ()


def test_a_run_that_moved_differs_in_its_folder_and_files_only() -> None:
    run = RunConfig(
        "simplenet_cifar", lr=0.3, init_from="a.pt", continue_from="b.pt",
        distillation=Distillation(checkpoint="c.pt", temperature=3.0),
    )  # fmt: skip
    assert run.moved("there", {"a.pt": "1.pt", "b.pt": "2.pt", "c.pt": "3.pt"}) == RunConfig(
        "simplenet_cifar", lr=0.3, init_from="1.pt", continue_from="2.pt", out_dir="there",
        distillation=Distillation(checkpoint="3.pt", temperature=3.0),
    )  # fmt: skip
    assert RunConfig("simplenet_cifar").moved("there", {}) == RunConfig("simplenet_cifar", out_dir="there")
