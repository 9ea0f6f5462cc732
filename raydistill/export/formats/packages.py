"""Packages that only one format needs."""

from __future__ import annotations

import importlib.util

from raydistill.errors import ABSENT, ConfigError, Fault


def need(package: str, where: str) -> None:
    """Raises ConfigError where a package is not installed."""
    if not has(package):
        raise ConfigError(Fault(where, f"needs the package {package}", ABSENT, f"pip install {package}"))


def has(package: str) -> bool:
    """Without importing it."""
    try:
        return importlib.util.find_spec(package) is not None
    except (ImportError, ValueError):  # a module that stands for it says nothing of itself
        return False
