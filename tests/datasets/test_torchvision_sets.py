"""torchvision's datasets on small files of their formats: found, given, downloaded, damaged, absent."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import io
import pickle
import struct
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import scipy.io
from torchvision import datasets as theirs

from raydistill import tasks
from raydistill.datasets import TORCHVISION, ArrayDataset, DatasetConfig, DatasetUnavailable, facts, load
from raydistill.errors import DataError
from raydistill.tasks import TaskConfig
from tests.serving import files, served

Written = tuple[Path, np.ndarray, np.ndarray]
"""The files' folder, train images (N, H, W, C), train labels."""
MNISTS = {"mnist": theirs.MNIST, "fashion_mnist": theirs.FashionMNIST, "kmnist": theirs.KMNIST, "emnist": theirs.EMNIST}


def idx(values: np.ndarray) -> bytes:
    """LeCun's format: two zeros, the type (8: bytes), the dimensions, then the values."""
    return struct.pack(f">HBB{values.ndim}I", 0, 8, values.ndim, *values.shape) + values.tobytes()


def some(name: str, count: int) -> tuple[np.ndarray, np.ndarray]:
    classes, channels, side = TORCHVISION[name]
    rng = np.random.default_rng(len(name) + count)
    return rng.integers(0, 256, (count, side, side, channels), dtype=np.uint8), np.arange(count) % classes


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Written]:
    """A small copy of a dataset's files; torchvision's md5 lists are of these."""

    def written(name: str) -> Written:
        count = 2 * TORCHVISION[name][0]
        (images, labels), (test_images, test_labels) = some(name, count), some(name, TORCHVISION[name][0])
        folder = tmp_path / "store" / {**dict.fromkeys(MNISTS, "raw"), "cifar100": "cifar-100-python"}.get(name, name)
        folder.mkdir(parents=True)

        def put(file: str, content: bytes) -> list[str]:
            (folder / file).write_bytes(content)
            return [file, hashlib.md5(content).hexdigest()]

        if name in MNISTS:
            prefixes = ("emnist-balanced-train", "emnist-balanced-test") if name == "emnist" else ("train", "t10k")
            for prefix, pixels, numbers in zip(prefixes, (images, test_images), (labels, test_labels), strict=True):
                put(f"{prefix}-images-idx3-ubyte", idx(pixels[..., 0]))
                put(f"{prefix}-labels-idx1-ubyte", idx(numbers.astype(np.uint8)))
        elif name == "cifar100":
            parts = []
            for file, pixels, numbers in (("train", images, labels), ("test", test_images, test_labels)):
                data = pixels.transpose(0, 3, 1, 2).reshape(len(pixels), -1)
                parts.append(put(file, pickle.dumps({"data": data, "fine_labels": numbers.tolist()})))
            meta = put("meta", pickle.dumps({"fine_label_names": [f"kind {i}" for i in range(100)]}))
            monkeypatch.setattr(theirs.CIFAR100, "train_list", parts[:1])
            monkeypatch.setattr(theirs.CIFAR100, "test_list", parts[1:])
            monkeypatch.setattr(
                theirs.CIFAR100, "meta", {"filename": "meta", "key": "fine_label_names", "md5": meta[1]}
            )
        elif name == "svhn":
            sums = {}
            for split, pixels, numbers in (("train", images, labels), ("test", test_images, test_labels)):
                stream = io.BytesIO()
                content = {"X": pixels.transpose(1, 2, 3, 0), "y": np.where(numbers == 0, 10, numbers)[:, None]}
                scipy.io.savemat(stream, content)
                sums[split] = ["http://127.0.0.1:1/x", *put(f"{split}_32x32.mat", stream.getvalue())]
            monkeypatch.setattr(theirs.SVHN, "split_list", sums)
        elif name == "stl10":
            lists = [
                [
                    put(f"{split}_X.bin", pixels.transpose(0, 3, 2, 1).tobytes()),
                    put(f"{split}_y.bin", (numbers + 1).astype(np.uint8).tobytes()),
                ]
                for split, pixels, numbers in (("train", images, labels), ("test", test_images, test_labels))
            ]
            put("class_names.txt", b"\n".join(b"thing %d" % i for i in range(10)))
            monkeypatch.setattr(theirs.STL10, "train_list", [*lists[0], ["unlabeled_X.bin", "0"]])
            monkeypatch.setattr(theirs.STL10, "test_list", lists[1])
        else:
            for file, pixels, numbers in (("usps.bz2", images, labels), ("usps.t.bz2", test_images, test_labels)):
                lines = [
                    " ".join([str(n + 1), *(f"{i + 1}:{(v + 0.5) / 255 * 2 - 1:.6f}" for i, v in enumerate(p.flat))])
                    for p, n in zip(pixels, numbers, strict=True)
                ]
                put(file, bz2.compress("\n".join(lines).encode()))
        return folder, images, labels

    return written


@pytest.mark.parametrize("name", sorted(TORCHVISION))
def test_every_pixel_and_label_is_that_of_the_file(name: str, write: Callable[[str], Written]) -> None:
    folder, images, labels = write(name)
    classes, channels, side = TORCHVISION[name]
    dataset = load(DatasetConfig(name, data_dir=str(folder), channels="grey" if channels == 1 else "rgb"))
    assert isinstance(dataset, ArrayDataset)
    assert (dataset.name, dataset.num_classes, dataset.image_shape) == (name, classes, (channels, side, side))
    assert (dataset.train_images == images).all()
    assert (dataset.train_labels == labels).all()
    assert (dataset.test_images == some(name, classes)[0]).all()
    assert dataset.augment == ("crop_flip" if name in ("fashion_mnist", "cifar100", "stl10") else "crop")
    assert facts(DatasetConfig(name)) == (classes, (3, side, side))


def test_names_of_classes_are_torchvisions_or_the_files(write: Callable[[str], Written]) -> None:
    assert load(DatasetConfig("cifar100", data_dir=str(write("cifar100")[0]))).classes[99] == "kind 99"
    assert load(DatasetConfig("stl10", data_dir=str(write("stl10")[0]))).classes[3] == "thing 3"
    assert load(DatasetConfig("fashion_mnist", data_dir=str(write("fashion_mnist")[0]))).classes[9] == "Ankle boot"
    assert load(DatasetConfig("svhn", data_dir=str(write("svhn")[0]))).classes == tuple("0123456789")


def test_one_channel_is_repeated_for_rgb_networks_and_images_are_resized(write: Callable[[str], Written]) -> None:
    folder, images, _ = write("mnist")
    dataset = load(DatasetConfig("mnist", data_dir=str(folder)))
    assert isinstance(dataset, ArrayDataset)
    assert (dataset.train_images == images.repeat(3, axis=3)).all()
    larger = DatasetConfig("mnist", data_dir=str(folder), image_size=(32, 32))
    resized = load(larger)
    assert isinstance(resized, ArrayDataset)
    assert resized.image_shape == (3, 32, 32)
    assert abs(resized.train_images.mean() - images.mean()) < 2
    known = tasks.foreseen(TaskConfig(), larger)
    assert known is not None
    assert known.example_input()[0].shape == (1, 3, 32, 32)


@pytest.mark.parametrize("name", ["mnist", "cifar100"])
def test_the_folder_those_around_it_and_where_it_is_looked_for(
    name: str, write: Callable[[str], Written], tmp_path: Path
) -> None:
    folder, _, labels = write(name)
    if name == "mnist":
        (tmp_path / "MNIST").mkdir()
        folder = folder.rename(tmp_path / "MNIST" / "raw")
    for root in (folder, folder.parent, *([tmp_path] if name == "mnist" else [])):
        assert (load(DatasetConfig(name, data_dir=str(root)), [], tmp_path / "no").train_labels == labels).all()
    root = tmp_path if name == "mnist" else folder.parent
    assert (load(DatasetConfig(name, download=False), [root], tmp_path / "no").train_labels == labels).all()


@pytest.mark.parametrize("name", sorted(TORCHVISION))
@pytest.mark.parametrize("fault", ["cut off", "missing"])
def test_a_damaged_file_is_one_line(name: str, fault: str, write: Callable[[str], Written]) -> None:
    folder = write(name)[0]
    file = sorted(
        path for path in folder.iterdir() if "test" in path.name or ".t." in path.name or "t10k" in path.name
    )[0]
    if fault == "missing":
        file.unlink()
    else:
        file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(DataError, match=rf"dataset.data_dir: .*incomplete or damaged as {name}") as caught:
        load(DatasetConfig(name, data_dir=str(folder)))
    assert "\n" not in str(caught.value)


def test_a_pickle_that_is_not_the_published_one_is_never_loaded(
    write: Callable[[str], Written], tmp_path: Path
) -> None:
    class Evil:
        def __reduce__(self) -> tuple[object, ...]:
            return Path.touch, (tmp_path / "ran",)

    folder = write("cifar100")[0]
    (folder / "train").write_bytes(pickle.dumps(Evil()))
    with pytest.raises(DataError, match="incomplete or damaged"):
        load(DatasetConfig("cifar100", data_dir=str(folder)))
    assert not (tmp_path / "ran").exists()


def test_a_wrong_folder_or_none_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="the data folder does not exist"):
        load(DatasetConfig("mnist", data_dir=str(tmp_path / "no")))
    (tmp_path / "train-images-idx3-ubyte.gz").touch()
    with pytest.raises(DataError, match=r"must hold MNIST/raw/train-images-idx3-ubyte.*gz.*; unpack the files"):
        load(DatasetConfig("mnist", data_dir=str(tmp_path)))
    with pytest.raises(DatasetUnavailable, match=r"mnist is not on disk .*download is off; --data-dir DIR"):
        load(DatasetConfig("mnist", download=False), [], tmp_path / "cache")
    digits = load(DatasetConfig("mnist", download=False, fallback="digits"), [], tmp_path / "cache")
    assert (digits.name, digits.used_fallback) == ("digits", True)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mnist", "emnist", "cifar100"])
def test_a_download_is_unpacked_whole_and_used_again(
    name: str, write: Callable[[str], Written], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, _, labels = write(name)
    web = tmp_path / "web"
    web.mkdir()
    if name == "cifar100":
        with tarfile.open(web / "cifar-100-python.tar.gz", "w:gz") as opened:
            opened.add(folder, arcname="cifar-100-python")
    elif name == "emnist":
        with zipfile.ZipFile(web / "gzip.zip", "w") as opened_zip:
            for file in folder.iterdir():
                opened_zip.writestr(f"gzip/{file.name}.gz", gzip.compress(file.read_bytes()))
    else:
        for file in folder.iterdir():
            (web / f"{file.name}.gz").write_bytes(gzip.compress(file.read_bytes()))
    sums = {file.name: hashlib.md5(file.read_bytes()).hexdigest() for file in web.iterdir()}
    with served(files(web)) as port:
        url = f"http://127.0.0.1:{port}/"
        if name == "mnist":
            monkeypatch.setattr(theirs.MNIST, "mirrors", [url])
            monkeypatch.setattr(theirs.MNIST, "resources", sorted(sums.items()))
        else:
            kind, key = (theirs.CIFAR100, "tgz_md5") if name == "cifar100" else (theirs.EMNIST, "md5")
            monkeypatch.setattr(kind, "url", url + next(iter(sums)))
            monkeypatch.setattr(kind, key, next(iter(sums.values())))
        cache = tmp_path / "cache"
        assert (load(DatasetConfig(name), [], cache).train_labels == labels).all()
    assert len(list(cache.iterdir())) == 1
    assert (load(DatasetConfig(name), [], cache).train_labels == labels).all()
    with pytest.raises(DatasetUnavailable, match=rf"{name} is neither on disk .* nor downloadable"):
        load(DatasetConfig(name), [], tmp_path / "other cache")
