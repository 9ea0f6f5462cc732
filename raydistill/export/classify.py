"""``classify.py``: what an artifact folder with an ONNX file of an image classifier holds to try it at once.

It needs onnxruntime, NumPy and Pillow, and prepares an image as the network was trained (see `raydistill.image_file`).
"""

from __future__ import annotations

import inspect

from raydistill import image_file

FILE_NAME = "classify.py"

_HEAD = '''"""python classify.py IMAGE [IMAGE ...]: what the network sees, by onnxruntime, NumPy and Pillow alone."""

'''

_MAIN = '''

import json
import sys
from pathlib import Path

import onnxruntime
from PIL import ImageOps

HERE = Path(__file__).resolve().parent
MANIFEST = json.loads((HERE / "manifest.json").read_text())


def classify(images):
    """Logits, (N, classes), of Pillow images."""
    session = onnxruntime.InferenceSession(HERE / "model.onnx")
    name = session.get_inputs()[0].name
    wanted = MANIFEST["preprocessing"]
    return np.concatenate([session.run(None, {name: prepared(in_rgb(image), wanted)[None]})[0] for image in images])


def main(paths):
    if not paths:
        sys.exit(__doc__)
    for path in paths:
        try:
            with opened(path) as image:
                (logits,) = classify([ImageOps.exif_transpose(image)])
        except (OSError, Unclear) as error:
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

SOURCE = _HEAD + inspect.getsource(image_file).partition('"""\n\n')[2] + _MAIN
