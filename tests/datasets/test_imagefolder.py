"""Image-folder trees: pixels, splits, cache, streaming, and every way a tree can be wrong."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from raydistill.datasets import ArrayDataset, DatasetConfig, StreamedDataset, imagefolder, load
from raydistill.errors import ConfigError, DataError


def config(root: Path | str, **changes: object) -> DatasetConfig:
    return DatasetConfig("imagefolder", data_dir=str(root), **changes)  # type: ignore[arg-type]


def test_pixels_labels_and_splits(make_tree: Callable, tmp_path: Path) -> None:
    root, pixels = make_tree(per_class=5)
    dataset = load(config(root, validation=0.2), cache_dir=tmp_path / "cache")
    assert isinstance(dataset, ArrayDataset)
    assert dataset.classes == ("ant", "bee", "cow")
    assert dataset.image_shape == (3, 6, 8)
    assert dataset.augment == "crop_flip"
    by_label = {
        split: {(int(label), image.tobytes()) for image, label in zip(images, labels, strict=True)}
        for split, images, labels in (
            ("train", dataset.train_images, dataset.train_labels),
            ("test", dataset.test_images, dataset.test_labels),
        )
    }
    for path, image in pixels.items():
        split, category, _ = path.split("/")
        assert (["ant", "bee", "cow"].index(category), image.tobytes()) in by_label[split]
    assert len(dataset.train_index) == 12
    assert sorted(dataset.train_labels[dataset.validation_index]) == [0, 1, 2]


def test_val_serves_as_test_where_there_is_no_test(make_tree: Callable, tmp_path: Path) -> None:
    root, pixels = make_tree(splits=("train", "val"))
    dataset = load(config(root), cache_dir=tmp_path / "cache")
    assert isinstance(dataset, ArrayDataset)
    assert (dataset.test_images[0] == pixels["val/ant/000.png"]).all()


def test_the_second_start_decodes_nothing_until_a_file_changes(
    make_tree: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, pixels = make_tree()
    decoded: list[int] = []
    real = imagefolder.decode_files
    monkeypatch.setattr(
        imagefolder, "decode_files", lambda paths, *rest: decoded.append(len(paths)) or real(paths, *rest)
    )
    first = load(config(root), cache_dir=tmp_path / "cache")
    second = load(config(root), cache_dir=tmp_path / "cache")
    assert decoded == [30]
    assert isinstance(first, ArrayDataset)
    assert isinstance(second, ArrayDataset)
    assert (first.train_images == second.train_images).all()
    assert (first.mean, first.std) == (second.mean, second.std)
    Image.fromarray(255 - pixels["train/ant/000.png"]).save(root / "train/ant/000.png")
    third = load(config(root), cache_dir=tmp_path / "cache")
    assert decoded == [30, 30]
    assert isinstance(third, ArrayDataset)
    assert (third.train_images[0] == 255 - pixels["train/ant/000.png"]).all()
    load(config(root, image_size=(4, 4)), cache_dir=tmp_path / "cache")
    assert decoded == [30, 30, 30]


def test_a_cache_that_cannot_be_written_costs_a_warning_only(make_tree: Callable, tmp_path: Path) -> None:
    root, pixels = make_tree()
    (tmp_path / "file").write_text("in the way")
    dataset = load(config(root), cache_dir=tmp_path / "file")
    assert isinstance(dataset, ArrayDataset)
    assert "cannot keep the decoded images" in dataset.warning
    assert not dataset.used_fallback
    assert (dataset.train_images[0] == pixels["train/ant/000.png"]).all()


def test_what_does_not_fit_in_memory_is_streamed(
    make_tree: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, _ = make_tree()
    size = 30 * 6 * 8 * 3
    monkeypatch.setattr(imagefolder, "available_memory", lambda: size * 4 - 1)
    streamed = load(config(root), cache_dir=tmp_path / "cache")
    assert isinstance(streamed, StreamedDataset)
    assert streamed.nbytes == size
    assert isinstance(load(config(root, in_memory=True), cache_dir=tmp_path / "cache"), ArrayDataset)
    monkeypatch.setattr(imagefolder, "available_memory", lambda: size * 4)
    arrays = load(config(root), cache_dir=tmp_path / "cache")
    assert isinstance(arrays, ArrayDataset)
    assert isinstance(load(config(root, in_memory=False), cache_dir=tmp_path / "cache"), StreamedDataset)
    assert (streamed.classes, streamed.mean, streamed.std) == (arrays.classes, arrays.mean, arrays.std)
    assert streamed.image_shape == arrays.image_shape
    assert (streamed.validation_index == arrays.validation_index).all()


@pytest.mark.slow
def test_images_of_several_sizes_are_cut_as_imagenets_are_or_resized(make_tree: Callable, tmp_path: Path) -> None:
    root, _ = make_tree()
    Image.new("RGB", (9, 7), (1, 2, 3)).save(root / "train/bee/zzz.png")
    for made_for, size, shorter in ((None, (224, 224), 256), ((32, 32), (32, 32), 37), ((299, 299), (299, 299), 342)):
        cut = load(config(root), cache_dir=tmp_path / "cache", made_for=made_for)
        assert isinstance(cut, StreamedDataset)
        assert (cut.image_size, cut.shorter_side, cut.augment) == (size, shorter, "resized_crop")
        assert "images are of several sizes" in cut.warning
    assert not (tmp_path / "cache").exists()
    with pytest.raises(ConfigError, match=r"dataset.in_memory: images of mixed sizes.*set dataset.image_size"):
        load(config(root, in_memory=True), cache_dir=tmp_path / "cache")
    dataset = load(config(root, image_size=[5, 4]), cache_dir=tmp_path / "cache")
    assert isinstance(dataset, ArrayDataset)
    assert dataset.image_shape == (3, 5, 4)
    last_bee = np.flatnonzero(dataset.train_labels == 1)[-1]
    assert (dataset.train_images[last_bee] == [1, 2, 3]).all()


def test_files_that_are_no_images_and_hidden_folders_are_passed_over(make_tree: Callable, tmp_path: Path) -> None:
    root, _ = make_tree()
    (root / "train/ant/notes.txt").write_text("no image")
    (root / "train/.checkpoints").mkdir()
    dataset = load(config(root), cache_dir=tmp_path / "cache")
    assert isinstance(dataset, ArrayDataset)
    assert len(dataset.train_images) == 15


def wrong_tree(root: Path, fault: str) -> None:
    if fault == "no train":
        shutil.rmtree(root / "train")
    elif fault == "no test":
        shutil.rmtree(root / "test")
    elif fault == "gone":
        shutil.rmtree(root)
    elif fault == "empty":
        shutil.rmtree(root)
        root.mkdir()
    elif fault == "no classes":
        shutil.rmtree(root / "train")
        (root / "train").mkdir()
    elif fault == "empty class":
        (root / "train/dog").mkdir()
    elif fault == "unknown class":
        os.rename(root / "test/bee", root / "test/wasp")
    elif fault == "class lacks in test":
        shutil.rmtree(root / "test/bee")
    elif fault == "one image":
        for number in range(1, 5):
            (root / f"train/cow/{number:03}.png").unlink()
    elif fault == "damaged":
        (root / "train/cow/002.png").write_bytes(b"no image")


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("gone", ["dataset.data_dir", "does not exist", "tree"]),
        ("empty", ["must hold train/ and test/", "nothing"]),
        ("no train", ["must hold train/ and test/", "got 'test'"]),
        ("no test", ["must hold train/ and test/", "got 'train'"]),
        ("no classes", ["must hold one folder a class"]),
        ("empty class", ["class 'dog' has no image", ".jpg"]),
        ("unknown class", ["must be in train/ too", "wasp"]),
        ("class lacks in test", ["class 'bee' has no image", "test"]),
        ("one image", ["class 'cow' needs at least 2"]),
        ("damaged", ["cow/002.png: cannot be decoded"]),
    ],
)
def test_a_wrong_tree_is_one_line(make_tree: Callable, tmp_path: Path, fault: str, words: list[str]) -> None:
    root, _ = make_tree()
    wrong_tree(root, fault)
    with pytest.raises(DataError) as caught:
        load(config(root), cache_dir=tmp_path / "cache")
    text = str(caught.value)
    assert "\n" not in text
    for word in words:
        assert word in text
    assert not list(tmp_path.glob("cache/decoded/*"))


def test_it_needs_a_folder() -> None:
    with pytest.raises(ConfigError, match="needs a folder with train/"):
        load(DatasetConfig("imagefolder"))


@pytest.mark.parametrize("target", ["..", ".", "../../..", "../bee"])
def test_links_that_lead_to_folders_met_already_are_refused(make_tree: Callable, tmp_path: Path, target: str) -> None:
    root, _ = make_tree()
    (root / "train" / "ant" / "link").symlink_to(target)
    with pytest.raises(DataError, match=r"is the same folder as .*, so its images would count twice; remove the link"):
        load(config(root), cache_dir=tmp_path / "cache")


def test_links_to_images_and_folders_elsewhere_are_followed(make_tree: Callable, tmp_path: Path) -> None:
    root, _ = make_tree()
    more = tmp_path / "more"
    shutil.copytree(root / "train" / "bee", more)
    (root / "train" / "bee" / "more").symlink_to(more)
    (root / "train" / "cow" / "one.png").symlink_to(more / "000.png")
    dataset = load(config(root), cache_dir=tmp_path / "cache")
    assert np.bincount(dataset.train_labels).tolist() == [5, 10, 6]


def test_a_link_that_leads_nowhere_is_one_line(make_tree: Callable, tmp_path: Path) -> None:
    root, _ = make_tree()
    (root / "train" / "bee" / "gone.png").symlink_to("nowhere.png")
    for in_memory in (True, False):
        with pytest.raises(DataError, match=r"gone\.png.* \(.*No such file"):
            load(config(root, in_memory=in_memory), cache_dir=tmp_path / "cache")


@pytest.mark.parametrize("in_memory", [True, False])
def test_hidden_files_and_folders_do_not_count(make_tree: Callable, tmp_path: Path, in_memory: bool) -> None:
    root, _ = make_tree()
    ant = root / "train" / "ant"
    for place in (".ipynb_checkpoints/000-checkpoint.png", ".hidden/x.png", "._000.png", "deep/.git/y.png"):
        (ant / place).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ant / "000.png", ant / place)
    dataset = load(config(root, in_memory=in_memory), cache_dir=tmp_path / "cache")
    assert np.bincount(dataset.train_labels).tolist() == [5, 5, 5]
    assert dataset.warning == ""


@pytest.mark.parametrize("in_memory", [True, False])
def test_gif_counts_and_other_files_are_said(make_tree: Callable, tmp_path: Path, in_memory: bool) -> None:
    root, _ = make_tree()
    Image.fromarray(np.full((6, 8), 77, dtype=np.uint8)).save(root / "train" / "ant" / "zz.GIF")
    for name in ("a.heic", "b.HEIC", "notes"):
        (root / "test" / "cow" / name).write_bytes(b"")
    dataset = load(config(root, in_memory=in_memory), cache_dir=tmp_path / "cache")
    assert np.bincount(dataset.train_labels).tolist() == [6, 5, 5]
    assert "3 files of the tree are left out" in dataset.warning
    assert "(2 .heic, 1 no ending)" in dataset.warning


def test_a_class_name_that_is_no_utf8_can_be_printed(make_tree: Callable, tmp_path: Path) -> None:
    root, _ = make_tree()
    for split in ("train", "test"):
        os.rename(root / split / "ant", os.path.join(os.fsencode(root), split.encode(), b"\xe9t\xe9"))
    for in_memory in (True, False):
        dataset = load(config(root, in_memory=in_memory), cache_dir=tmp_path / "cache")
        assert "\\xe9t\\xe9" in dataset.classes
        "".join(dataset.classes).encode()


def test_a_size_that_one_test_image_has_is_still_an_error(make_tree: Callable, tmp_path: Path) -> None:
    root, _ = make_tree()
    Image.new("RGB", (9, 7), (1, 2, 3)).save(root / "test/bee/zzz.png")
    with pytest.raises(DataError, match=r"zzz\.png.*6x8.*got '7x9'; set dataset.image_size \(--image-size 6x8\)"):
        load(config(root), cache_dir=tmp_path / "cache")


@pytest.mark.parametrize("in_memory", [True, False])
def test_grey_has_one_channel_and_its_own_statistics(make_tree: Callable, tmp_path: Path, in_memory: bool) -> None:
    root, _ = make_tree()
    dataset = load(config(root, channels="grey", in_memory=in_memory), cache_dir=tmp_path / "cache")
    assert dataset.image_shape == (1, 6, 8)
    expected = np.stack([np.asarray(Image.open(path).convert("L")) for path in sorted(root.glob("train/*/*.png"))])
    assert dataset.mean == pytest.approx([expected.mean() / 255])
    if isinstance(dataset, ArrayDataset):
        assert (dataset.train_images[..., 0] == expected).all()
    assert dataset.preprocessing.channels == "grey"
