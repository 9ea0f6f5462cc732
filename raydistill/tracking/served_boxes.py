"""What MLflow serves of a detector: raw images in, boxes out.

The source of this module lies in the model's own folder, behind those of `raydistill.image_file` and `tracking.served`:
whoever loads it needs MLflow, onnxruntime, NumPy and Pillow. What a request may hold is what a classifier's may.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from raydistill.tracking.served import ABOUT, COLUMN, BadImages, _each, _read

NETWORK = "model.onnx"
LEAST = "score"
"""The parameter's name: boxes of a lower score are left out."""

Found = tuple[np.ndarray, np.ndarray, np.ndarray]


class ServedBoxes:
    """network: an image, (3, H, W) float32 in [0, 1], to boxes (n, 4), labels (n,) and scores (n,). about: ``classes``,
    the background first."""

    def __init__(self, network: Callable[[np.ndarray], Found], about: Mapping[str, Any]) -> None:
        self._network, self._classes = network, about.get("classes")

    def predict(self, data: Any, params: Mapping[str, Any] | None = None) -> list[list[dict[str, object]]]:
        """data: a DataFrame with the column `COLUMN`, see `served.ServedImages.predict`.

        Of each image what was found, the surest first: ``box`` (left, top, right, bottom in pixels of the image that
        was sent), ``class`` and ``score``; with the parameter ``score`` only what has so much.
        """
        if COLUMN not in data:
            raise BadImages(f'images are wanted as {{"inputs": [IMAGE, ...]}} or in a column "{COLUMN}"')
        images = [_read(value, f"image {i}") for i, value in enumerate(_each(data[COLUMN]))]
        if not images:
            raise BadImages("there is no image in the request")
        least = (params or {}).get(LEAST, 0.0)
        return [self._named(np.asarray(image, dtype=np.float32), least) for image in images]

    def _named(self, pixels: np.ndarray, least: float) -> list[dict[str, object]]:
        boxes, labels, scores = self._network(np.ascontiguousarray((pixels / 255).transpose(2, 0, 1)))
        order = [int(index) for index in np.argsort(-scores, kind="stable") if scores[index] >= least]
        return [
            {"box": boxes[i].tolist(), "class": self._name(int(labels[i])), "score": float(scores[i])} for i in order
        ]

    def _name(self, label: int) -> object:
        return self._classes[label] if self._classes else label


def _load_pyfunc(path: str, model_config: dict[str, Any] | None = None) -> ServedBoxes:
    """What MLflow calls. path: of the network and `ABOUT`."""
    import onnxruntime  # type: ignore[import-not-found,import-untyped,unused-ignore]

    session = onnxruntime.InferenceSession(str(Path(path) / NETWORK), providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name

    def network(image: np.ndarray) -> Found:
        boxes, labels, scores = session.run(None, {name: image})[:3]
        return boxes, labels, scores

    return ServedBoxes(network, json.loads((Path(path) / ABOUT).read_text(encoding="utf-8")))
