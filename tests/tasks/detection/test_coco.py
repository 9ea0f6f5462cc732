from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from raydistill.errors import DataError
from raydistill.tasks.detection.coco import masks_of, read_split
from tests.tasks.detection.shapes import write


def test_boxes_labels_and_masks_are_those_of_the_file(tmp_path: Path) -> None:
    found = read_split(write(tmp_path / "x", {"train": 4}), "train")
    assert found is not None
    assert found.classes == ("square", "bar")
    assert [image.labels.tolist() for image in found.images] == [[1], [1, 2], [1], [1, 2]]
    image = found.images[1]
    (left, top, right, bottom), bar = image.boxes.astype(int).tolist()
    assert (right - left, bottom - top) == (16, 16)
    assert bar == [left + 2, 32, left + 22, 40]
    masks = masks_of(image)
    assert masks.shape == (2, 48, 48)
    assert masks.sum(axis=(1, 2)).tolist() == [256, 160]
    assert masks[0, top:bottom, left:right].all()
    assert read_split(tmp_path / "x", "val") is None


def test_boxes_without_area_are_left_out_and_others_cut_to_the_image(tmp_path: Path) -> None:
    root = write(tmp_path / "x", {"train": 2})
    file = root / "annotations" / "instances_train.json"
    content = json.loads(file.read_text())
    content["annotations"][0]["bbox"] = [-4, 40, 20, 20]
    content["annotations"][1]["bbox"] = [5, 5, 0, 7]
    content["annotations"][2]["iscrowd"] = 1
    file.write_text(json.dumps(content))
    found = read_split(root, "train")
    assert found is not None
    assert found.images[0].boxes.tolist() == [[0, 40, 16, 48]]
    assert (found.images[1].labels.tolist(), found.images[1].crowd.tolist()) == ([2], [True])


def change(key: str, value: object) -> Callable[[Path], None]:
    def changed(root: Path) -> None:
        file = root / "annotations" / "instances_train.json"
        content = json.loads(file.read_text())
        content[key] = value
        file.write_text(json.dumps(content))

    return changed


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (
            lambda root: (root / "annotations" / "instances_train.json").write_text("{"),
            "cannot be read as COCO's instances",
        ),
        (change("images", [{"id": 1}]), "cannot be read as COCO's"),
        (change("annotations", [{"image_id": 5}]), "KeyError: 5"),
        (change("categories", []), "cannot be read as COCO's"),
        (change("annotations", None), "cannot be read as COCO's"),
        (lambda root: (root / "train" / "001.png").unlink(), "names an image that is not there, got '.*001.png'"),
        (lambda root: (root / "train").rename(root / "other"), "must hold the images of train"),
    ],
)
def test_what_is_wrong_is_one_line(damage: Callable[[Path], None], words: str, tmp_path: Path) -> None:
    root = write(tmp_path / "x", {"train": 3})
    damage(root)
    with pytest.raises(DataError, match=words) as caught:
        read_split(root, "train")
    assert "\n" not in str(caught.value)
