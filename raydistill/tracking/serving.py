"""An MLflow model's folder that serves raw images: the network as `mlflow.pytorch` keeps it, and `tracking.served` with
what it needs, which MLflow calls in its place."""

from __future__ import annotations

import base64
import hashlib
import inspect
import io
import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from raydistill import image_file

if TYPE_CHECKING:
    from mlflow.types import Schema


def serve_images(
    network: Path,
    folder: Path,
    example: np.ndarray,
    about: Mapping[str, Any],
    outputs: Schema,
    requirements: Sequence[str],
) -> None:
    """Write `folder`. network: an MLflow model of the flavour ``pytorch``. example: (C, H, W) float32, one prepared
    image. about: its metadata, ``preprocessing`` among them. outputs: its signature's."""
    import mlflow.pyfunc
    import pandas
    from mlflow.models import Model, ModelSignature
    from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec
    from mlflow.types import Schema as MlflowSchema
    from mlflow.types.schema import AnyType

    from raydistill.tracking import served

    inputs = MlflowSchema([ColSpec(AnyType(), served.COLUMN, required=False)])  # `served` says what is missing
    signature = ModelSignature(inputs, outputs, ParamSchema([ParamSpec("top", DataType.long, 0)]))
    kept = Model.load(str(network))
    data = network / kept.flavors["pytorch"]["model_data"]
    said = {key: about[key] for key in ("preprocessing", "classes", "multi_label") if key in about}
    (data / served.ABOUT).write_text(json.dumps(said), encoding="utf-8")
    source = _source()
    with tempfile.TemporaryDirectory() as work:
        # Two models in one process may be of two versions of raydistill: each finds its own module.
        name = f"raydistill_served_{hashlib.sha256(source.encode()).hexdigest()[:8]}"
        module = Path(work) / f"{name}.py"
        module.write_text(source, encoding="utf-8")
        mlflow.pyfunc.save_model(
            str(folder), loader_module=name, data_path=str(data), code_paths=[str(module)], signature=signature,
            input_example=pandas.DataFrame({served.COLUMN: [_png(example, about["preprocessing"])]}),
            pip_requirements=list(requirements), metadata=dict(about),
        )  # fmt: skip
    whole = Model.load(str(folder))
    place = whole.flavors["python_function"]["data"]
    whole.flavors["pytorch"] = {**kept.flavors["pytorch"], "model_data": place}
    whole.save(str(folder / "MLmodel"))


def _source() -> str:
    """One module of `image_file` and `served`: what stands in a model's folder can import neither."""
    from raydistill.tracking import served

    lines = inspect.getsource(served).splitlines(keepends=True)
    own = [line for line in lines if not line.startswith(("from raydistill.", "from __future__"))]
    return inspect.getsource(image_file) + "\n\n" + "".join(own)


def _png(image: np.ndarray, seen: Mapping[str, object]) -> str:
    """A prepared image, (C, H, W), as a file in base64: what a request may hold."""
    pixels = image.transpose(1, 2, 0) * np.array(seen["std"]) + np.array(seen["mean"])
    pixels = np.rint(255 * pixels).clip(0, 255).astype(np.uint8)
    if seen.get("channels") == "bgr":
        pixels = pixels[..., ::-1]
    content = io.BytesIO()
    image_file.picture(pixels).save(content, "PNG")
    return base64.b64encode(content.getvalue()).decode()
