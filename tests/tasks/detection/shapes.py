"""Images of bright squares and dark bars with COCO annotations, and a detector small enough to learn them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from PIL import Image
from torch import nn
from torchvision.models.detection import FasterRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.ops import MultiScaleRoIAlign

SIDE = 48


def write(root: Path, counts: dict[str, int]) -> Path:
    """A folder in COCO's layout: so many images of each split with a square (id 3), half of them with a bar (id 7)."""
    rng = np.random.default_rng(0)
    (root / "annotations").mkdir(parents=True)
    for split, count in counts.items():
        (root / split).mkdir()
        images, annotations = [], []
        for number in range(count):
            pixels = np.full((SIDE, SIDE, 3), 110, dtype=np.uint8)
            x, y = (int(v) for v in rng.integers(2, 12, 2))
            objects = [(3, x, y, 16, 16, 240)]
            if number % 2:
                objects.append((7, x + 2, 32, 20, 8, 10))
            for category, left, top, width, height, value in objects:
                pixels[top : top + height, left : left + width] = value
                outline = [left, top, left + width, top, left + width, top + height, left, top + height]
                annotations.append({
                    "id": len(annotations), "image_id": number * 10, "category_id": category, "iscrowd": 0,
                    "bbox": [left, top, width, height], "area": width * height, "segmentation": [outline],
                })  # fmt: skip
            Image.fromarray(pixels).save(root / split / f"{number:03}.png")
            images.append({"id": number * 10, "file_name": f"{number:03}.png", "height": SIDE, "width": SIDE})
        categories = [{"id": 7, "name": "bar"}, {"id": 3, "name": "square"}]
        content = {"images": images, "annotations": annotations, "categories": categories}
        (root / "annotations" / f"instances_{split}.json").write_text(json.dumps(content))
    return root


class Backbone(nn.Sequential):
    out_channels = 32


def small(num_classes: int) -> FasterRCNN:
    """Three convs and torchvision's heads, smaller."""
    layers: list[nn.Module] = []
    for before, after in ((3, 16), (16, 32), (32, 32)):
        layers += [nn.Conv2d(before, after, 3, stride=2, padding=1), nn.BatchNorm2d(after), nn.ReLU()]
    return FasterRCNN(
        Backbone(*layers), min_size=SIDE, max_size=SIDE,
        rpn_anchor_generator=AnchorGenerator(((12, 18),), ((0.4, 1.0),)),
        box_roi_pool=MultiScaleRoIAlign(["0"], 5, 2),
        box_head=nn.Sequential(nn.Flatten(), nn.Linear(800, 64), nn.ReLU()), box_predictor=Predictor(num_classes),
        rpn_post_nms_top_n_train=50, rpn_post_nms_top_n_test=50, box_detections_per_img=10,
    )  # fmt: skip


class Predictor(nn.Module):
    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.classes, self.boxes = nn.Linear(64, num_classes), nn.Linear(64, 4 * num_classes)

    def forward(self, features: object) -> tuple[object, object]:
        return self.classes(features), self.boxes(features)
