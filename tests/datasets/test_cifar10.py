"""``cifar10`` on a small copy of its file format: found, given, downloaded, damaged, absent."""

from __future__ import annotations

import hashlib
import pickle
import socket
import tarfile
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from torchvision.datasets import CIFAR10

from raydistill.datasets import ArrayDataset, DatasetConfig, DatasetUnavailable, load
from raydistill.errors import ConfigError, DataError
from tests.serving import files, served

NAMES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]


@pytest.fixture
def batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, np.ndarray, np.ndarray]:
    """(cifar-10-batches-py folder, train pixels (100, 3, 32, 32), train labels); torchvision's md5 list is of these."""
    rng = np.random.default_rng(0)
    folder = tmp_path / "store" / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    pixels = rng.integers(0, 256, (120, 3, 32, 32), dtype=np.uint8)
    labels = np.arange(120) % 10

    def write(name: str, content: dict) -> list[str]:
        data = pickle.dumps(content)
        (folder / name).write_bytes(data)
        return [name, hashlib.md5(data).hexdigest()]

    def part(start: int, stop: int) -> dict:
        return {"data": pixels[start:stop].reshape(-1, 3072), "labels": labels[start:stop].tolist()}

    monkeypatch.setattr(
        CIFAR10, "train_list", [write(f"data_batch_{i + 1}", part(20 * i, 20 * i + 20)) for i in range(5)]
    )
    monkeypatch.setattr(CIFAR10, "test_list", [write("test_batch", part(100, 120))])
    meta = write("batches.meta", {"label_names": NAMES})
    monkeypatch.setattr(CIFAR10, "meta", {"filename": meta[0], "key": "label_names", "md5": meta[1]})
    return folder, pixels[:100], labels[:100]


@pytest.fixture
def refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """The download's address refuses the connection, as where there is no network."""
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        port = server.getsockname()[1]
    monkeypatch.setattr(CIFAR10, "url", f"http://127.0.0.1:{port}/cifar-10-python.tar.gz")


@pytest.fixture
def published(batches: tuple, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The download's address serves the small copy as an archive."""
    folder = batches[0]
    (tmp_path / "web").mkdir()
    archive = tmp_path / "web" / CIFAR10.filename
    with tarfile.open(archive, "w:gz") as opened:
        opened.add(folder, arcname=CIFAR10.base_folder)
    monkeypatch.setattr(CIFAR10, "tgz_md5", hashlib.md5(archive.read_bytes()).hexdigest())

    with served(files(archive.parent)) as port:
        monkeypatch.setattr(CIFAR10, "url", f"http://127.0.0.1:{port}/{CIFAR10.filename}")
        yield


def check_pixels(dataset: object, pixels: np.ndarray, labels: np.ndarray) -> None:
    assert isinstance(dataset, ArrayDataset)
    assert (dataset.train_images == pixels.transpose(0, 2, 3, 1)).all()
    assert (dataset.train_labels == labels).all()
    assert dataset.classes == tuple(NAMES)
    assert (dataset.name, dataset.augment, dataset.used_fallback) == ("cifar10", "crop_flip", False)


@pytest.mark.parametrize("given", ["folder", "parent", "renamed"])
def test_the_folder_its_parent_or_a_renamed_copy(batches: tuple, given: str, tmp_path: Path) -> None:
    folder, pixels, labels = batches
    if given == "renamed":
        folder = folder.rename(tmp_path / "my images")
    root = folder.parent if given == "parent" else folder
    dataset = load(DatasetConfig(data_dir=str(root)), cache_dir=tmp_path / "cache")
    check_pixels(dataset, pixels, labels)
    assert len(dataset.validation_index) == 10


def test_it_is_found_where_it_is_looked_for(batches: tuple, refused: None, tmp_path: Path) -> None:
    folder, pixels, labels = batches
    check_pixels(load(DatasetConfig(), [tmp_path / "nothing", folder.parent], tmp_path / "cache"), pixels, labels)
    check_pixels(load(DatasetConfig(download=False), [], folder.parent), pixels, labels)


def test_a_tree_of_images_keeps_the_name(make_tree: Callable, tmp_path: Path) -> None:
    root, images = make_tree()
    dataset = load(DatasetConfig(data_dir=str(root), fallback="digits"), cache_dir=tmp_path / "cache")
    assert isinstance(dataset, ArrayDataset)
    assert (dataset.name, dataset.used_fallback) == ("cifar10", False)
    assert (dataset.train_images[0] == images["train/ant/000.png"]).all()


@pytest.mark.slow
def test_a_download_is_unpacked_whole_and_used_again(
    batches: tuple, published: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, pixels, labels = batches
    cache = tmp_path / "cache"
    check_pixels(load(DatasetConfig(fallback="digits"), [], cache), pixels, labels)
    assert [entry.name for entry in cache.iterdir()] == [CIFAR10.base_folder]
    monkeypatch.setattr(CIFAR10, "url", "http://127.0.0.1:1/gone")
    check_pixels(load(DatasetConfig(fallback="digits"), [], cache), pixels, labels)


def test_without_network_the_fallback_says_so_in_one_sentence(refused: None, tmp_path: Path) -> None:
    dataset = load(DatasetConfig(fallback="digits"), [tmp_path / "nothing"], tmp_path / "cache")
    assert (dataset.name, dataset.used_fallback) == ("digits", True)
    assert dataset.augment == "crop"
    for words in ("training on digits INSTEAD OF cifar10", str(tmp_path / "nothing"), "refused", "--data-dir"):
        assert words in dataset.warning
    assert "\n" not in dataset.warning


@pytest.mark.parametrize("download", [True, False])
def test_without_fallback_it_is_an_error(refused: None, tmp_path: Path, download: bool) -> None:
    with pytest.raises(DatasetUnavailable) as caught:
        load(DatasetConfig(download=download), [], tmp_path / "cache")
    assert "--data-dir" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("fault", ["gone", "a file", "empty", "cut off", "one missing", "renamed meta"])
def test_a_wrong_folder_is_an_error_and_never_a_fallback(batches: tuple, tmp_path: Path, fault: str) -> None:
    folder = batches[0]
    root = folder
    if fault == "gone":
        root = tmp_path / "no such folder"
    elif fault == "a file":
        root = folder / "data_batch_1"
    elif fault == "empty":
        root = tmp_path / "empty"
        root.mkdir()
    elif fault == "cut off":
        (folder / "data_batch_3").write_bytes(b"half")
    elif fault == "one missing":
        (folder / "test_batch").unlink()
    else:
        (folder / "batches.meta").unlink()
    for data_dir, search in ((str(root), []), (None, [folder.parent])):
        if data_dir is None and fault in ("gone", "a file", "empty"):
            continue
        with pytest.raises(DataError) as caught:
            load(DatasetConfig(data_dir=data_dir, fallback="digits"), search, tmp_path / "cache")
        assert not isinstance(caught.value, DatasetUnavailable)
        assert str(root) in str(caught.value)
        assert "\n" not in str(caught.value)


def test_another_image_size_is_refused(batches: tuple) -> None:
    with pytest.raises(ConfigError, match="batches hold images of 32x32"):
        load(DatasetConfig(data_dir=str(batches[0]), image_size=(64, 64)))
