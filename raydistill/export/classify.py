"""``classify.py``: what an artifact folder with an ONNX file of an image classifier holds to try it at once.

It needs onnxruntime, NumPy and Pillow, and prepares an image as the network was trained (see `datasets.decode`).
"""

from __future__ import annotations

FILE_NAME = "classify.py"

SOURCE = '''"""python classify.py IMAGE [IMAGE ...]: what the network sees, by onnxruntime, NumPy and Pillow alone."""

import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime
from PIL import Image, ImageOps

HERE = Path(__file__).resolve().parent
MANIFEST = json.loads((HERE / "manifest.json").read_text())
WANTED = MANIFEST["preprocessing"]
RESAMPLING = {name: Image.Resampling[name.upper()] for name in ("bilinear", "bicubic", "nearest")}


def prepared(image):
    """A Pillow image as the network wants it: (1, C, H, W) float32."""
    image = image.convert("RGB")
    height, width = WANTED["image_size"]
    resampling = RESAMPLING[WANTED.get("interpolation", "bilinear")]
    shorter = WANTED.get("resize")
    if shorter is None:
        if image.size != (width, height):
            image = image.resize((width, height), resampling)
    else:
        size = tuple(int(shorter * side / min(image.size)) for side in image.size)
        if size != image.size:
            image = image.resize(size, resampling)
        left, top = round((image.size[0] - width) / 2), round((image.size[1] - height) / 2)
        image = image.crop((left, top, left + width, top + height))
    channels = WANTED.get("channels", "rgb")
    pixels = np.asarray(image.convert("L") if channels == "grey" else image, dtype=np.float32) / 255
    pixels = pixels.reshape(height, width, -1)
    if channels == "bgr":
        pixels = pixels[..., ::-1]
    pixels = (pixels - np.array(WANTED["mean"], dtype=np.float32)) / np.array(WANTED["std"], dtype=np.float32)
    return np.ascontiguousarray(pixels.transpose(2, 0, 1)[None], dtype=np.float32)


def classify(images):
    """Logits, (N, classes), of Pillow images."""
    session = onnxruntime.InferenceSession(HERE / "model.onnx")
    name = session.get_inputs()[0].name
    return np.concatenate([session.run(None, {name: prepared(image)})[0] for image in images])


def main(paths):
    if not paths:
        sys.exit(__doc__)
    for path in paths:
        try:
            with Image.open(path, formats=("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")) as image:
                (logits,) = classify([ImageOps.exif_transpose(image)])
        except OSError as error:
            sys.exit(f"error: {path}: {error}")
        if MANIFEST["task"].get("multi_label"):
            shares = 1 / (1 + np.exp(-logits))
        else:
            shares = np.exp(logits - logits.max())
            shares /= shares.sum()
        best = np.argsort(-shares)[:5]
        print(path + ": " + ", ".join(f"{MANIFEST['classes'][i]} {100 * shares[i]:.1f} %" for i in best))


if __name__ == "__main__":
    main(sys.argv[1:])
'''
