"""Torch's datasets and loaders as a dataset to train on: held in memory, or read batch by batch."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from raydistill.datasets import ArrayDataset, BatchedDataset, DatasetConfig, load
from raydistill.datasets.own_data import own_data
from raydistill.errors import ConfigError, DataError
from tests.datasets.own_sources import Floats, Pictures, Stream, nested, pixels_of

OWN = "tests.datasets.own_sources:"


def test_a_dataset_that_fits_is_held_as_bytes_and_split_as_others_are() -> None:
    dataset = load(DatasetConfig(OWN + "alone", validation=0.25))
    assert isinstance(dataset, ArrayDataset)
    assert (dataset.classes, dataset.augment, dataset.image_shape) == (("green", "red"), "none", (3, 8, 8))
    numbers = [int(image.max()) - 100 for image in dataset.train_images]
    tested = [int(image.max()) - 100 for image in dataset.test_images]
    assert sorted(numbers + tested) == list(range(60))
    assert (len(tested), len(dataset.validation_index), len(dataset.train_index)) == (12, 12, 36)
    assert [int(label) for label in dataset.train_labels] == [number % 2 for number in numbers]
    assert all((image == pixels_of(n)).all() for image, n in zip(dataset.train_images, numbers, strict=True))
    again = load(DatasetConfig(OWN + "alone", validation=0.25, split_seed=1))
    assert isinstance(again, ArrayDataset)
    assert (again.test_images == dataset.test_images).all()
    assert again.validation_index.tolist() != dataset.validation_index.tolist()


def test_a_subset_keeps_the_names_of_the_classes() -> None:
    dataset = load(DatasetConfig(OWN + "subset"))
    assert dataset.classes == ("green", "red")


def test_parts_stay_what_they_are_and_validation_stands_in_for_a_missing_test_with_a_warning() -> None:
    dataset = load(DatasetConfig(OWN + "parts", image_size=(4, 6)))
    assert isinstance(dataset, ArrayDataset)
    assert dataset.image_shape == (3, 4, 6)
    assert dataset.train_index.tolist() == list(range(30))
    assert dataset.validation_index.tolist() == list(range(30, 39))
    assert dataset.test_images.max(axis=(1, 2, 3)).tolist() == list(range(130, 139))
    assert "of the validation images" in dataset.warning


def test_floats_are_left_as_they_are() -> None:
    dataset = load(DatasetConfig(OWN + "floats"))
    assert isinstance(dataset, ArrayDataset)
    assert dataset.as_they_are
    assert dataset.train_images.dtype == np.float32
    assert dataset.train_images[0].max() == (100 + 0) / 64 - 1.5
    assert set(dataset.preprocessing.std) == {1 / 255}


def test_grey_networks_get_one_channel() -> None:
    assert load(DatasetConfig(OWN + "floats", channels="grey")).image_shape == (1, 8, 8)


def test_what_augments_itself_has_an_order_of_its_own_or_is_told_to_is_read_as_it_goes() -> None:
    for config in (DatasetConfig(OWN + "flipped"), DatasetConfig(OWN + "stream"), DatasetConfig(OWN + "loaders")):
        dataset = load(config)
        assert isinstance(dataset, BatchedDataset)
        assert (dataset.image_shape, dataset.num_classes) == ((3, 8, 8), 2)
    dataset = load(DatasetConfig(OWN + "alone", in_memory=False, validation=0.25))
    assert isinstance(dataset, BatchedDataset)
    held = [part.index for part in dataset.parts.values()]
    assert sorted(np.concatenate([index for index in held if index is not None]).tolist()) == list(range(60))
    assert {name: part.count for name, part in dataset.parts.items()} == {"test": 12, "train": 36, "validation": 12}


def test_what_is_too_big_for_memory_is_read_as_it_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    for free, kind in ((60 * 8 * 8 * 3 * 4, ArrayDataset), (60 * 8 * 8 * 3 * 4 - 1, BatchedDataset)):
        monkeypatch.setattr("raydistill.datasets.own_data.available_memory", lambda free=free: free)
        assert isinstance(load(DatasetConfig(OWN + "alone")), kind)


def test_mean_and_std_of_what_is_read_as_it_goes_are_of_its_train_images() -> None:
    dataset = load(DatasetConfig(OWN + "stream"))
    images = np.stack([pixels_of(number) for number in range(33)]) / 255
    np.testing.assert_allclose(dataset.mean, images.mean(axis=(0, 1, 2)))
    np.testing.assert_allclose(dataset.std[:2], images.std(axis=(0, 1, 2))[:2])


def test_a_loaders_batches_are_known_beforehand() -> None:
    dataset = load(DatasetConfig(OWN + "loaders"))
    assert isinstance(dataset, BatchedDataset)
    assert dataset.parts["train"].sizes == (5,) * 6
    assert dataset.parts["validation"].sizes == (4, 4, 2)
    assert (dataset.parts["train"].count, dataset.classes) == (30, ("green", "red"))


def test_labels_that_a_dataset_keeps_are_believed_only_where_its_items_have_them() -> None:
    class Kept(Pictures):
        targets = [n % 2 for n in range(60)]  # noqa: RUF012

    honest, turned = Kept(0, 60), Kept(1, 60)
    for source in (honest, turned):
        own_data(source, DatasetConfig("x:y", in_memory=False))
    assert honest.read < 60 + 60 < turned.read


class Several(Pictures):
    def __getitem__(self, position: int) -> tuple[object, object]:  # type: ignore[override]
        return super().__getitem__(position)[0], [position % 2, position % 3 == 0, 1]


@pytest.mark.slow
def test_images_with_several_labels() -> None:
    for config in (DatasetConfig("x:y"), DatasetConfig("x:y", in_memory=False)):
        with pytest.raises(DataError, match="names 2 classes, and its labels have, got 3"):
            own_data(Several(0, 60), config)
        dataset = own_data({"train": Several(0, 60), "classes": ["odd", "third", "all"]}, config)
        assert (dataset.multi_label, dataset.classes) == (True, ("odd", "third", "all"))
    held = own_data({"train": Several(0, 60), "classes": ["abc"] * 3}, DatasetConfig("x:y"))
    assert isinstance(held, ArrayDataset)


class Mixed(Pictures):
    def __getitem__(self, position: int) -> tuple[object, int]:  # type: ignore[override]
        return pixels_of(position, 8 + position // 20), 0


class Labelled(Pictures):
    label: object = None

    def __getitem__(self, position: int) -> object:  # type: ignore[override]
        return super().__getitem__(position)[0], self.label


class Words(Labelled):
    label = "cat"


class Broken(Pictures):
    def __getitem__(self, position: int) -> tuple[object, int]:  # type: ignore[override]
        raise OSError("the disk is gone")


HELD = DatasetConfig("m:f")
READ = DatasetConfig("m:f", in_memory=False)


@pytest.mark.parametrize("config", [HELD, READ])
@pytest.mark.parametrize(
    ("found", "words"),
    [
        (Labelled(0, 9), "must be an image with its label"),
        (Words(0, 9), "whole number from 0 up.*got 'cat'"),
        (Mixed(0, 60), "every image must be|all images must be of one size"),
        (Broken(0, 9), r"train\[0\]: cannot be read \(OSError: the disk is gone\)"),
        (Pictures(0, 0), "gives a Dataset as train that is empty, got 0"),
        ({"train": Pictures(0, 9), "valid": Pictures(0, 9)}, "unknown part, got 'valid'"),
        ({"validation": Pictures(0, 9)}, "gives no train part"),
        ({"train": "photos/"}, "torch Dataset, or a mapping of parts, got 'str as train'"),
        ({"train": Stream(0, 9, -1), "validation": Pictures(0, 9)}, "an IterableDataset as train that has no length"),
        ({"train": DataLoader(Stream(0, 9, -1)), "validation": Pictures(0, 9)}, "a DataLoader as train .* no length"),
        ({"train": Stream(0, 9)}, "gives no validation part, and an IterableDataset cannot be split"),
        (DataLoader(Pictures(0, 9), collate_fn=nested), "no validation part, and a DataLoader cannot be split"),
        ({"train": Stream(0, 0, 5), "validation": Stream(0, 9)}, "an IterableDataset is empty"),
        ({"train": DataLoader(Pictures(0, 3), 5, drop_last=True), "validation": Stream(0, 9)}, "that is empty, got 0"),
        ({"train": Pictures(0, 20), "classes": "ab"}, "classes must be a list of names"),
        ({"train": Pictures(0, 20), "classes": ["a"]}, "names 1 classes, and its labels have, got 2"),
    ],
)
def test_wrong_things_are_one_line(found: object, words: str, config: DatasetConfig) -> None:
    with pytest.raises(DataError, match=words) as caught:
        own_data(found, config)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"in_memory": True}, "dataset.in_memory: .*only map-style datasets can be held"),
        ({"augment": "crop_flip"}, "dataset.augment: .*transforms of their own"),
        ({"image_size": (9, 9)}, "dataset.image_size: a DataLoader gives images of 8x8 that are not resized"),
    ],
)
def test_a_section_that_asks_for_what_a_loader_cannot_have_is_refused(changes: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        load(DatasetConfig(OWN + "loaders", **changes))  # type: ignore[arg-type]


def test_reading_a_sample_leaves_the_programs_chance_alone() -> None:
    torch.manual_seed(5)
    load(DatasetConfig(OWN + "loaders"))
    found = torch.rand(1)
    torch.manual_seed(5)
    assert torch.equal(found, torch.rand(1))


def test_a_dataset_of_torch_is_one_too() -> None:
    dataset = own_data({"train": Floats(), "test": Floats()}, DatasetConfig("x:y"))
    assert isinstance(dataset, ArrayDataset)
    assert len(dataset.test_labels) == len(dataset.train_labels) == 40
