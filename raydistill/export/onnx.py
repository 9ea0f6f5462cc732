"""A network as an ONNX file with a free batch size."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import tempfile
import warnings
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from raydistill.errors import ABSENT, ConfigError, Fault
from raydistill.files import write_atomically


def write_onnx(
    model: nn.Module, example: Tensor, path: Path, properties: Mapping[str, object] | None = None, where: str = "onnx"
) -> int:
    """Write it; returns the size in bytes.

    example: one sample, (1, ...). properties: plain values, kept as JSON in the file's metadata. where: for errors.

    Raises:
        ConfigError: the packages are missing, or the model cannot be exported.
        StorageError: the file cannot be written.
    """
    try:
        import onnx  # type: ignore[import-not-found,import-untyped,unused-ignore]
        import onnxscript  # type: ignore[import-not-found,import-untyped,unused-ignore] # noqa: F401
    except ImportError as error:
        way_out = "pip install 'raydistill[onnx]'"
        raise ConfigError(Fault(where, f"needs the package {error.name}", ABSENT, way_out)) from error
    batch = example.repeat(2, *[1] * (example.dim() - 1))  # of two samples: of one the exporter fixes the size
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with (
        warnings.catch_warnings(),
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(io.StringIO()),
    ):
        warnings.simplefilter("ignore")
        try:
            program = torch.onnx.export(
                model, (batch,), dynamo=True, dynamic_shapes=({0: torch.export.Dim("batch", min=1)},), verbose=False
            )
        except Exception as error:  # the exporter refuses models in many ways
            reason = _innermost(error)
            raise ConfigError(Fault(where, f"the network cannot be exported ({reason})")) from error
    assert program is not None
    with tempfile.TemporaryDirectory() as folder:
        whole = Path(folder) / "model.onnx"
        program.save(str(whole))
        written = onnx.load(whole)
    if properties:
        onnx.helper.set_model_props(written, {key: json.dumps(value) for key, value in properties.items()})
    content: bytes = written.SerializeToString()
    write_atomically(path, content)
    return len(content)


def _innermost(error: BaseException) -> str:
    """The first line of what began it: around that stand pages on how to report it."""
    while (error.__cause__ or error.__context__) is not None:
        error = error.__cause__ or error.__context__  # type: ignore[assignment]
    first = next((line.strip() for line in str(error).splitlines() if line.strip()), "no reason is given")
    return f"{type(error).__name__}: {first}"
