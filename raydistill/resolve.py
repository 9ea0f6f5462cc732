"""A name in a file becomes an object: a menu's short name, or a user's own as ``pkg.mod:attribute``."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

from raydistill.errors import ConfigError, Fault, close_match


def resolve(name: object, menu: Mapping[str, Any], where: str, what: str) -> Any:
    """Look `name` up in `menu`, or import it if it is spelt ``pkg.mod:attribute``.

    where: file and key path for the error. what: the kind of thing ("pruner class", "model").

    Raises:
        ConfigError: the name is not on the menu, or the module or attribute cannot be imported.
    """
    if not isinstance(name, str) or not name:
        raise ConfigError(Fault(where, f"a {what} must be named by a string", name, "give its name"))
    if ":" not in name:
        if name in menu:
            return menu[name]
        way_out = close_match(name, menu)
        raise ConfigError(Fault(where, f"unknown {what}", name, f"{way_out} (your own: 'pkg.mod:name')"))
    module_name, _, attribute = name.partition(":")
    try:
        target: Any = importlib.import_module(module_name)
    except Exception as error:  # a user's module may fail in any way while it is imported
        reason = f"{type(error).__name__}: {error}"
        raise ConfigError(
            Fault(where, f"cannot import {what} ({reason})", name, "check the module name and PYTHONPATH")
        ) from error
    for part in attribute.split("."):
        if not hasattr(target, part):
            public = [entry for entry in vars(target) if not entry.startswith("_")]
            raise ConfigError(
                Fault(where, f"module '{module_name}' has no such {what}", name, close_match(part, public))
            )
        target = getattr(target, part)
    return target
