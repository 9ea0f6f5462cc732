"""Annotations in COCO's format: a file ``instances_SPLIT*.json`` and a folder of images for each split.

A box is (x1, y1, x2, y2) in pixels. Labels count from 1 in the order of the categories' ids; 0 is the background.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from raydistill.errors import ABSENT, ConfigError, DataError, Fault


@dataclass(frozen=True)
class Annotated:
    """One image. file: full path. boxes: float32 (n, 4). labels: int64 (n,). crowd: bool (n,), of boxes that stand for
    many objects: not trained on. outlines: n polygons or run lengths, as the file has them."""

    file: str
    height: int
    width: int
    boxes: np.ndarray
    labels: np.ndarray
    crowd: np.ndarray
    outlines: tuple[object, ...]


@dataclass(frozen=True)
class Instances:
    """images: of one split, in the order of their ids. classes: names, those of labels 1 and on."""

    images: tuple[Annotated, ...]
    classes: tuple[str, ...]


def read_split(root: Path, split: str) -> Instances | None:
    """Of ``root/annotations/instances_SPLIT*.json`` and the images in ``root/SPLIT*`` of the same name (or
    ``root/images``); None where there is no such file.

    Raises:
        DataError: the file or the images are missing, damaged or do not belong together.
    """
    files = sorted((root / "annotations").glob(f"instances_{split}*.json"))
    if not files:
        return None
    if len(files) > 1:
        raise DataError(Fault(str(root), f"must have one instances_{split}*.json", [file.name for file in files]))
    name = files[0].stem.removeprefix("instances_")
    folder = next((place for place in (root / name, root / "images" / name, root / "images") if place.is_dir()), None)
    if folder is None:
        raise DataError(Fault(str(root), f"must hold the images of {split}", ABSENT, f"in {root / name}"))
    return read_instances(files[0], folder)


def read_instances(file: Path, folder: Path) -> Instances:
    """Raises DataError: what is in the file is not COCO's format, or an image is missing."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        images = {int(image["id"]): image for image in content["images"]}
        categories = sorted((int(entry["id"]), str(entry["name"])) for entry in content["categories"])
        number = {identity: label for label, (identity, _) in enumerate(categories, 1)}
        of_image: dict[int, list[Mapping[str, object]]] = {identity: [] for identity in images}
        for annotation in content["annotations"]:
            of_image[int(annotation["image_id"])].append(annotation)
        found = [_annotated(images[key], of_image[key], number, folder) for key in sorted(images)]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise DataError(Fault(str(file), f"cannot be read as COCO's instances ({reason})")) from error
    if not found or not categories:
        raise DataError(Fault(str(file), "must hold images and categories", len(found)))
    missing = next((image.file for image in found if not Path(image.file).is_file()), None)
    if missing is not None:
        raise DataError(Fault(str(file), "names an image that is not there", missing))
    return Instances(tuple(found), tuple(name for _, name in categories))


def _annotated(
    image: Mapping[str, object], annotations: Sequence[Mapping[str, object]], number: Mapping[int, int], folder: Path
) -> Annotated:
    height, width = int(str(image["height"])), int(str(image["width"]))
    boxes: list[list[float]] = []
    labels: list[int] = []
    crowd: list[bool] = []
    outlines: list[object] = []
    for annotation in annotations:
        x, y, w, h = (float(value) for value in annotation["bbox"])  # type: ignore[attr-defined]
        x1, y1, x2, y2 = max(x, 0.0), max(y, 0.0), min(x + w, float(width)), min(y + h, float(height))
        if x2 - x1 <= 0 or y2 - y1 <= 0:  # published files have some without any area
            continue
        boxes.append([x1, y1, x2, y2])
        labels.append(number[int(str(annotation["category_id"]))])
        crowd.append(bool(annotation.get("iscrowd", 0)))
        outlines.append(annotation.get("segmentation"))
    return Annotated(
        str(folder / str(image["file_name"])), height, width, np.array(boxes, dtype=np.float32).reshape(-1, 4),
        np.array(labels, dtype=np.int64), np.array(crowd, dtype=bool), tuple(outlines),
    )  # fmt: skip


def masks_of(image: Annotated) -> np.ndarray:
    """uint8 (n, H, W), 1 inside.

    Raises:
        ConfigError: pycocotools is missing. DataError: an object has no outline, or one that cannot be drawn.
    """
    try:
        from pycocotools import mask
    except ImportError as error:
        way_out = "pip install 'raydistill[detection]'"
        raise ConfigError(Fault("task.args.masks", "needs the package pycocotools", ABSENT, way_out)) from error
    drawn: np.ndarray = np.zeros((len(image.boxes), image.height, image.width), dtype=np.uint8)
    for index, outline in enumerate(image.outlines):
        try:
            runs = mask.frPyObjects(outline, image.height, image.width)
            drawn[index] = mask.decode(mask.merge(runs) if isinstance(runs, list) else runs)
        except Exception as error:  # of C code
            raise DataError(Fault(image.file, f"object {index} has no outline that can be drawn ({error})")) from error
    return drawn
