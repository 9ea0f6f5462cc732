"""Quantized networks that compute with floats for a while: for whoever asks what a network is made of."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar

_floats: ContextVar[bool] = ContextVar("floats", default=False)


@contextlib.contextmanager
def as_floats() -> Iterator[None]:
    """While it lasts nothing is rounded, in any network."""
    token = _floats.set(True)
    try:
        yield
    finally:
        _floats.reset(token)


def rounds_nothing() -> bool:
    """Whether `as_floats` is in force."""
    return _floats.get()
