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
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

from raydistill import image_file
from raydistill.tracking.importing import import_mlflow

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
    with tempfile.TemporaryDirectory() as work:
        module = _module(Path(work), served)
        mlflow.pyfunc.save_model(
            str(folder), loader_module=module.stem, data_path=str(data), code_paths=[str(module)], signature=signature,
            input_example=pandas.DataFrame({served.COLUMN: [_png(example, about["preprocessing"])]}),
            pip_requirements=list(requirements), metadata=dict(about),
        )  # fmt: skip
    whole = Model.load(str(folder))
    place = whole.flavors["python_function"]["data"]
    whole.flavors["pytorch"] = {**kept.flavors["pytorch"], "model_data": place}
    whole.save(str(folder / "MLmodel"))


def serve_boxes(network: bytes, folder: Path, example: np.ndarray, about: Mapping[str, Any]) -> None:
    """Write `folder`. network: a detector's ONNX file, of one image of any size. example: (3, H, W) float32 in [0, 1].
    about: metadata, ``classes`` among them.

    Raises:
        OSError: it cannot be written.
    """
    import importlib.metadata

    import_mlflow()
    import mlflow.pyfunc
    import pandas
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec
    from mlflow.types import Schema as MlflowSchema
    from mlflow.types.schema import AnyType

    from raydistill.tracking import served, served_boxes

    any_of = MlflowSchema([ColSpec(AnyType(), served.COLUMN, required=False)])
    params = ParamSchema([ParamSpec(served_boxes.LEAST, DataType.double, 0.0)])
    needed = [f"onnxruntime=={importlib.metadata.version('onnxruntime')}", "numpy", "pillow"]
    with tempfile.TemporaryDirectory() as work:
        data = Path(work) / "network"
        data.mkdir()
        (data / served_boxes.NETWORK).write_bytes(network)
        (data / served.ABOUT).write_text(json.dumps({"classes": about.get("classes")}), encoding="utf-8")
        module = _module(Path(work), served, served_boxes)
        mlflow.pyfunc.save_model(
            str(folder), loader_module=module.stem, data_path=str(data), code_paths=[str(module)],
            signature=ModelSignature(any_of, None, params),
            input_example=pandas.DataFrame({served.COLUMN: [_png(example, {"mean": 0.0, "std": 1.0})]}),
            pip_requirements=needed, metadata=dict(about),
        )  # fmt: skip


def _module(folder: Path, *parts: ModuleType) -> Path:
    """A module of `image_file` and these: what stands in a model's folder can import none of them. Two models in one
    process may be of two versions of raydistill: each finds its own."""
    source = _source(*parts)
    path = folder / f"raydistill_served_{hashlib.sha256(source.encode()).hexdigest()[:8]}.py"
    path.write_text(source, encoding="utf-8")
    return path


def _source(*parts: ModuleType) -> str:
    source = inspect.getsource(image_file)
    for part in parts:
        lines = inspect.getsource(part).splitlines(keepends=True)
        source += "\n\n" + "".join(
            line for line in lines if not line.startswith(("from raydistill.", "from __future__"))
        )
    return source


def _png(image: np.ndarray, seen: Mapping[str, object]) -> str:
    """A prepared image, (C, H, W), as a file in base64: what a request may hold."""
    pixels = image.transpose(1, 2, 0) * np.array(seen["std"]) + np.array(seen["mean"])
    pixels = np.rint(255 * pixels).clip(0, 255).astype(np.uint8)
    if seen.get("channels") == "bgr":
        pixels = pixels[..., ::-1]
    content = io.BytesIO()
    image_file.picture(pixels).save(content, "PNG")
    return base64.b64encode(content.getvalue()).decode()
