"""Networks in formats that others run."""

from raydistill.export.onnx import write_onnx

__all__ = ["write_onnx"]
