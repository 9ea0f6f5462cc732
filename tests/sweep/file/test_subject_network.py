"""The network of a sweep that is to be written is as its task and data want it."""

from __future__ import annotations

import pytest

from raydistill.errors import ConfigError
from raydistill.sweep.file.first_space import Subject
from raydistill.sweep.file.subject_network import network_of
from raydistill.tasks import TaskConfig, metrics_of


def subject(arch: str, **dataset: object) -> Subject:
    return Subject(arch, TaskConfig(), metrics_of(TaskConfig()), {"name": "digits", **dataset}, command="")


def test_it_has_the_datas_classes() -> None:
    built = network_of(subject("simplenet_cifar"))
    assert built.model.fc3.out_features == 10  # type: ignore[union-attr]
    assert [tuple(tensor.shape) for tensor in built.example] == [(1, 3, 32, 32)]  # type: ignore[attr-defined]
    assert built.notes == ()


@pytest.mark.slow
def test_images_are_as_large_as_it_takes_and_that_is_said() -> None:
    built = network_of(subject("vit_b_16"))
    assert built.subject.dataset["image_size"] == [224, 224]
    assert built.notes == ("image_size [224, 224]: vit_b_16 takes no other",)


@pytest.mark.slow
def test_a_size_that_was_asked_for_stands() -> None:
    with pytest.raises(ConfigError, match="vit_b_16"):
        network_of(subject("vit_b_16", image_size=[64, 64]))
