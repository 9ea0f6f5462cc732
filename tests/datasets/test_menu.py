"""`load`: a user's own dataset, and every wrong value of the configuration at once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from raydistill.datasets import TORCHVISION, DatasetConfig, DatasetUnavailable, check, load, names
from raydistill.errors import ConfigError, DataError

OWN = """
import numpy as np
from raydistill.datasets import ArrayDataset, DatasetUnavailable

def squares(config):
    count = config.args.get("count", 8)
    images = np.full((count, 4, 4, 3), 7, np.uint8)
    labels = np.arange(count) % 2
    return ArrayDataset("squares", ("a", "b"), (0.5,) * 3, (0.1,) * 3, "none", images, labels, images, labels,
                        np.arange(count - 2), np.arange(count - 2, count))

def absent(config):
    raise DatasetUnavailable("squares are sold out")

def nothing(config):
    return None
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "own_datasets_of_test.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    return "own_datasets_of_test"


def test_a_users_factory_gets_the_configuration(own: str) -> None:
    dataset = load(DatasetConfig(f"{own}:squares", args={"count": 6}))
    assert dataset.name == "squares"
    assert len(dataset.train_labels) == 6


def test_a_factory_must_give_a_dataset(own: str) -> None:
    with pytest.raises(DataError, match=r"must return an ArrayDataset, a StreamedDataset, a torch .* got 'NoneType'"):
        load(DatasetConfig(f"{own}:nothing"))


def test_a_factory_can_ask_for_the_fallback_unless_the_user_named_a_folder(own: str) -> None:
    dataset = load(DatasetConfig(f"{own}:absent", fallback=f"{own}:squares"))
    assert (dataset.name, dataset.used_fallback) == ("squares", True)
    assert "squares are sold out" in dataset.warning
    with pytest.raises(DatasetUnavailable, match="sold out"):
        load(DatasetConfig(f"{own}:absent", fallback=f"{own}:squares", data_dir="given"))
    with pytest.raises(DatasetUnavailable, match="sold out"):
        load(DatasetConfig(f"{own}:absent"))


def test_names() -> None:
    assert names() == sorted(["cifar10", "digits", "imagefolder", "hugging_face", *TORCHVISION])


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"name": "cifar11"}, ["dataset.name", "did you mean 'cifar10'?"]),
        ({"name": 3}, ["dataset.name", "named by a string"]),
        ({"fallback": "digit"}, ["dataset.fallback", "did you mean 'digits'?"]),
        ({"validation": 0}, ["dataset.validation", "above 0 and below 1", "got 0"]),
        ({"validation": 1.0}, ["dataset.validation"]),
        ({"validation": -0.1}, ["dataset.validation"]),
        ({"validation": float("nan")}, ["dataset.validation"]),
        ({"validation": "tenth"}, ["dataset.validation"]),
        ({"validation": True}, ["dataset.validation"]),
        ({"augment": "crop_flp"}, ["dataset.augment", "did you mean 'crop_flip'?"]),
        ({"augment": ["crop"]}, ["dataset.augment"]),
        ({"in_memory": "yes"}, ["dataset.in_memory", "auto, true or false"]),
        ({"split_seed": -1}, ["dataset.split_seed"]),
        ({"workers": 1.5}, ["dataset.workers"]),
        ({"workers": True}, ["dataset.workers"]),
        ({"image_size": 32}, ["dataset.image_size", "[height, width]"]),
        ({"image_size": (32, 0)}, ["dataset.image_size"]),
        ({"image_size": "ab"}, ["dataset.image_size"]),
        ({"args": {"root": 1}}, ["dataset.args", "takes no args"]),
        ({"data_dir": 5}, ["dataset.data_dir"]),
        ({"download": "no"}, ["dataset.download"]),
    ],
)
def test_a_wrong_value_is_one_line(changes: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        check(DatasetConfig(**changes))
    assert len(caught.value.faults) == 1
    for word in words:
        assert word in str(caught.value)


def test_all_faults_come_together_before_any_data_is_read() -> None:
    with pytest.raises(ConfigError) as caught:
        load(DatasetConfig("cifar11", data_dir="no such folder", validation=2, augment="x", workers=-1))
    assert [str(fault).split(":")[0] for fault in caught.value.faults] == [
        "dataset.name", "dataset.validation", "dataset.augment", "dataset.workers"
    ]  # fmt: skip
