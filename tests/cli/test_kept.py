"""How an artifact is told: in 80 columns, with the lines that use it."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from raydistill.cli.kept import bounds, format_names, tell_artifact
from raydistill.errors import ConfigError
from raydistill.export import DEFAULT
from raydistill.metrics import Metric
from tests.export.test_manifest import MANIFEST

TIMED = {"median": 1.25, "lower": 1.0, "upper": 1.5, "passes": 20}
ROW = {"runtime": "onnxruntime", "device": "cpu", "threads": 16, "batch": 256, "ms": {"dense": TIMED, "this": TIMED}}


def told(**said: object) -> str:
    console = Console(file=io.StringIO(), width=80)
    full = {"sparsity": 0.5, "macs": 1e9, "parameters": 1e6, "size_bytes": 1e8, "compressed_size_bytes": 1e7}
    manifest = replace(MANIFEST, network=full, dense=full, latency=({**ROW, "speedup": 1.0, "busy": False},))
    tell_artifact(console, replace(manifest, **said), Path("out"))  # type: ignore[arg-type]
    shown: str = console.file.getvalue()  # type: ignore[attr-defined]
    return shown


def test_it_fits_80_columns_and_says_everything() -> None:
    shown = told()
    assert all(len(line) <= 80 for line in shown.splitlines())
    for words in ("sparsity (zeros among the weights)", "50.00 %", "1 G", "1.25 ± 0.25", "1.00 x", "model.onnx"):
        assert words in shown
    assert 'session = onnxruntime.InferenceSession("model.onnx")' in shown
    assert '(logits,) = session.run(None, {"images": images})' in shown
    assert "raydistill verify out" in shown
    assert "left out: why" in shown
    assert "busy" not in shown


def test_without_a_dense_network_beside_it() -> None:
    alone = {**ROW, "ms": {"this": TIMED}, "speedup": None, "busy": True}
    shown = told(dense={}, latency=(alone,))
    assert "dense" not in shown
    assert "* the machine was busy" in shown


def test_names_of_formats() -> None:
    assert format_names(None) == DEFAULT
    assert format_names(["onnx, pt2,"]) == format_names(["onnx", "pt2"]) == ("onnx", "pt2")
    assert format_names([""]) == ()


def test_bounds() -> None:
    metrics = {"top1": Metric("max")}
    assert [str(bound) for bound in bounds(["top1_drop<=0.01", "energy > 3"], metrics, ["energy"])] == [
        "top1_drop <= 0.01",
        "energy > 3",
    ]
    with pytest.raises(ConfigError, match=r"--where\[0\]: unknown figure, got 'top2'"):
        bounds(["top2 <= 1"], metrics, [])
