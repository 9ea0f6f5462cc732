"""Exporters that say much and mean little."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator

_LOGGERS = ("torch.onnx", "torch.export", "torch.fx", "torch._export")


@contextlib.contextmanager
def quietly() -> Iterator[None]:
    """What torch and its exporters warn of, print and log is not shown."""
    for name in _LOGGERS:
        logging.getLogger(name).setLevel(logging.ERROR)
    with (
        warnings.catch_warnings(),
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(io.StringIO()),
    ):
        warnings.simplefilter("ignore")
        yield
