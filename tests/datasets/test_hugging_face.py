"""A folder that the library ``datasets`` wrote, or one of Parquet files."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from raydistill.datasets import ArrayDataset, BatchedDataset, DatasetConfig, load
from raydistill.errors import ConfigError, DataError
from raydistill.tasks import Loading, Weights
from raydistill.tasks.classification import Classification
from tests.datasets.own_sources import pixels_of

hf = pytest.importorskip("datasets")
NAMES = ["green", "red"]


def table(first: int, count: int) -> object:
    """Rows of an image and its class."""
    numbers = range(first, first + count)
    images = [Image.fromarray(pixels_of(number)) for number in numbers]
    features = {"id": hf.Value("int64"), "img": hf.Image(), "fine": hf.ClassLabel(names=NAMES)}
    content = {"id": list(numbers), "img": images, "fine": [number % 2 for number in numbers]}
    return hf.Dataset.from_dict(content, features=hf.Features(features))


def config(root: Path, **changes: object) -> DatasetConfig:
    return DatasetConfig("hugging_face", data_dir=str(root), **{"workers": 0, **changes})  # type: ignore[arg-type]


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    splits = {"train": table(0, 40), "validation": table(40, 6), "test": table(46, 8), "unsupervised": table(54, 2)}
    hf.DatasetDict(splits).save_to_disk(str(tmp_path / "saved"))
    return tmp_path / "saved"


@pytest.fixture
def parquet(tmp_path: Path) -> Path:
    root = tmp_path / "parquet"
    (root / "data").mkdir(parents=True)
    table(0, 20).to_parquet(str(root / "data" / "train-00000-of-00002.parquet"))  # type: ignore[attr-defined]
    table(20, 20).to_parquet(str(root / "data" / "train-00001-of-00002.parquet"))  # type: ignore[attr-defined]
    table(46, 8).to_parquet(str(root / "data" / "test.parquet"))  # type: ignore[attr-defined]
    return root


def numbers(images: np.ndarray) -> list[int]:
    return (images.max(axis=(1, 2, 3)).astype(int) - 100).tolist()


@pytest.mark.slow
def test_what_save_to_disk_wrote_is_held_in_memory(saved: Path, tmp_path: Path) -> None:
    dataset = load(config(saved), cache_dir=tmp_path / "cache")
    assert isinstance(dataset, ArrayDataset)
    assert numbers(dataset.train_images) == list(range(46))
    assert all((image == pixels_of(n)).all() for n, image in enumerate(dataset.train_images))
    assert dataset.train_labels.tolist() == [n % 2 for n in range(46)]
    assert numbers(dataset.test_images) == list(range(46, 54))
    assert (dataset.validation_index.tolist(), dataset.classes) == (list(range(40, 46)), ("green", "red"))
    assert dataset.warning == ""


@pytest.mark.slow
def test_parquet_files_are_split_by_their_names(parquet: Path, tmp_path: Path) -> None:
    dataset = load(config(parquet, validation=0.25), cache_dir=tmp_path / "cache")
    assert isinstance(dataset, ArrayDataset)
    assert numbers(dataset.train_images) == list(range(40))
    assert (len(dataset.validation_index), numbers(dataset.test_images)) == (10, list(range(46, 54)))
    assert {entry.name for entry in parquet.iterdir()} == {"data"}


@pytest.mark.slow
def test_one_table_alone_is_split_three_ways(tmp_path: Path) -> None:
    table(0, 50).save_to_disk(str(tmp_path / "one"))  # type: ignore[attr-defined]
    dataset = load(config(tmp_path / "one", channels="grey", image_size=(4, 4)), cache_dir=tmp_path / "cache")
    assert isinstance(dataset, ArrayDataset)
    assert (len(dataset.train_labels), len(dataset.test_labels), dataset.image_shape) == (40, 10, (1, 4, 4))


@pytest.mark.slow
def test_it_can_be_read_as_training_goes_on(saved: Path, tmp_path: Path) -> None:
    data = config(saved, in_memory=False)
    task = Classification.load(data, Weights("x:y"))
    assert isinstance(task.dataset, BatchedDataset)
    batches = list(task.feed("train", Loading(torch.device("cpu"), 16)).epoch(0))
    assert [len(labels) for _, labels in batches] == [16, 16, 8]
    assert sum(int(labels.sum()) for _, labels in batches) == 20


@pytest.mark.slow
def test_columns_of_plain_parquet_are_told_by_their_names_or_by_the_user(tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")

    def png(number: int) -> bytes:
        stream = io.BytesIO()
        Image.fromarray(pixels_of(number)).save(stream, "PNG")
        return stream.getvalue()

    rows = {"image": [{"bytes": png(n)} for n in range(30)], "label": [n % 2 for n in range(30)]}
    pandas.DataFrame({**rows, "age": [n % 3 for n in range(30)]}).to_parquet(tmp_path / "all.parquet")
    named = load(config(tmp_path), cache_dir=tmp_path / "cache")
    assert (named.num_classes, named.classes) == (2, ("0", "1"))
    asked = load(config(tmp_path, args={"image": "image", "label": "age"}), cache_dir=tmp_path / "cache")
    assert isinstance(asked, ArrayDataset)
    assert asked.num_classes == 3
    assert sorted(numbers(asked.train_images) + numbers(asked.test_images)) == list(range(30))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["classes", "vectors"])
def test_several_labels_an_image(kind: str, tmp_path: Path) -> None:
    of_label = hf.ClassLabel(names=["a", "b", "c"]) if kind == "classes" else hf.Value("int8")
    labels = [[n for n in range(3) if i >> n & 1] for i in range(30)]
    if kind == "vectors":
        labels = [[int(n in own) for n in range(3)] for own in labels]
    features = hf.Features({"image": hf.Image(), "labels": hf.Sequence(of_label)})
    images = [Image.fromarray(pixels_of(number)) for number in range(30)]
    hf.Dataset.from_dict({"image": images, "labels": labels}, features=features).save_to_disk(str(tmp_path / "x"))
    dataset = load(config(tmp_path / "x"), cache_dir=tmp_path / "cache")
    assert isinstance(dataset, ArrayDataset)
    assert dataset.multi_label
    for image, label in zip(dataset.train_images, dataset.train_labels, strict=True):
        number = int(image.max()) - 100
        assert label.tolist() == [number >> n & 1 for n in range(3)]


def test_images_are_decoded_by_formats_that_read_pixels_only(tmp_path: Path) -> None:
    postscript = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\n"
    features = hf.Features({"image": hf.Image(), "label": hf.Value("int64")})
    rows = {"image": [{"bytes": postscript, "path": None}] * 4, "label": [0, 1] * 2}
    hf.Dataset.from_dict(rows, features=features).save_to_disk(str(tmp_path / "x"))
    with pytest.raises(DataError, match=r"train\[0\].*cannot be decoded as an image \(it is none of"):
        load(config(tmp_path / "x"), cache_dir=tmp_path / "cache")


@pytest.mark.slow
def test_wrong_things_are_one_line(saved: Path, parquet: Path, tmp_path: Path) -> None:
    empty, damaged, words = tmp_path / "empty", tmp_path / "damaged", tmp_path / "words"
    for folder in (empty, damaged):
        folder.mkdir()
    (empty / "readme.md").touch()
    (damaged / "train.parquet").write_bytes(b"PAR1 and nothing else")
    (parquet / "data" / "training.parquet").write_bytes((parquet / "data" / "test.parquet").read_bytes())
    said = hf.Features({"text": hf.Value("string"), "n": hf.Value("int64")})
    hf.Dataset.from_dict({"text": ["a"], "n": [1]}, features=said).save_to_disk(str(words))
    next((saved / "test").glob("*.arrow")).write_bytes(b"no arrow")
    hf.DatasetDict({"test": table(0, 4)}).save_to_disk(str(tmp_path / "tested"))
    for wrong, rule in (
        (DatasetConfig("hugging_face"), "dataset.data_dir: 'hugging_face' needs a folder"),
        (config(tmp_path / "no"), "the data folder does not exist"),
        (config(empty), "must be a folder of save_to_disk, or hold Parquet files, got 'readme.md'"),
        (config(damaged), "damaged or cannot be read"),
        (config(parquet), r"two splits for train, got \['test', 'train', 'training'\]"),
        (config(words), r"dataset.args.image: no column is said to be the image, got \['n', 'text'\]"),
        (config(words, args={"image": "texd"}), "dataset.args.image: no such column, .*did you mean 'text'"),
        (config(words, args={"column": "text"}), "dataset.args.column: unknown key"),
        (config(saved), "damaged or cannot be read"),
        (config(tmp_path / "tested"), r"must hold a train split, got \['test'\]"),
    ):
        with pytest.raises((ConfigError, DataError), match=rule) as caught:
            load(wrong, cache_dir=tmp_path / "cache")
        assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_without_the_package_it_says_what_to_install(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(
        ConfigError, match=r"needs the package datasets; pip install 'raydistill\[hugging-face-datasets\]'"
    ):
        load(config(saved))
