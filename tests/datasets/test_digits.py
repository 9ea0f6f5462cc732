"""``digits`` against scikit-learn's own images."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from raydistill.datasets import ArrayDataset, DatasetConfig, load
from raydistill.errors import ConfigError


@pytest.fixture(scope="module")
def dataset() -> ArrayDataset:
    loaded = load(DatasetConfig("digits"))
    assert isinstance(loaded, ArrayDataset)
    return loaded


@pytest.mark.slow
def test_all_1797_images_are_there_once_as_3x32x32(dataset: ArrayDataset) -> None:
    from sklearn.datasets import load_digits

    assert dataset.image_shape == (3, 32, 32)
    assert dataset.classes == tuple("0123456789")
    assert dataset.augment == "crop"
    images = np.concatenate([dataset.train_images, dataset.test_images])
    labels = np.concatenate([dataset.train_labels, dataset.test_labels])
    assert (images[..., 0] == images[..., 1]).all()
    assert (images[..., 0] == images[..., 2]).all()
    # upscaled a second time by torch: each image is within rounding of exactly one of scikit-learn's
    bunch = load_digits()
    grey = torch.from_numpy(bunch.images * 255 / 16).float()[:, None]
    upscaled = torch.nn.functional.interpolate(grey, (32, 32), mode="bilinear").reshape(-1, 1024)
    distance, nearest = torch.cdist(torch.from_numpy(images[..., 0]).reshape(-1, 1024).float(), upscaled).min(dim=1)
    assert distance.max() < 32  # one level a pixel
    assert sorted(nearest.tolist()) == list(range(1797))
    assert (bunch.target[nearest.numpy()] == labels).all()


def test_the_test_split_is_a_fifth_and_the_same_for_every_split_seed(dataset: ArrayDataset) -> None:
    assert len(dataset.test_images) == pytest.approx(1797 / 5, abs=5)
    assert set(dataset.test_labels) == set(range(10))
    other = load(DatasetConfig("digits", split_seed=5))
    assert isinstance(other, ArrayDataset)
    assert (other.test_images == dataset.test_images).all()
    assert (other.validation_index != dataset.validation_index).any()


@pytest.mark.slow
def test_another_size_and_a_folder_it_cannot_read() -> None:
    assert load(DatasetConfig("digits", image_size=(16, 20))).image_shape == (3, 16, 20)
    with pytest.raises(ConfigError, match=r"dataset\.data_dir: 'digits' is built in"):
        load(DatasetConfig("digits", data_dir="somewhere"))
