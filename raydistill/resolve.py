"""A name in a file becomes an object: a menu's short name, or a user's own as ``pkg.mod:attribute``."""

from __future__ import annotations

import contextlib
import functools
import importlib
import inspect
import os
import sys
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any, TypeVar

from raydistill.errors import ABSENT, ConfigError, Fault, close_match

T = TypeVar("T")

FOLDER = "RAYDISTILL_FOLDER"
"""Environment variable: where the user's own modules and files are, the folder the command was given in."""


def share_folder(folder: str) -> None:
    """Find a user's own modules in `folder` too, here and in the processes that are started from now on."""
    os.environ[FOLDER] = folder
    _look_in_folder()


@contextlib.contextmanager
def in_folder() -> Iterator[None]:
    """The working folder is the user's while the block runs: what a factory of theirs reads by a relative path lies
    there, wherever the process works. Nothing changes on a machine that does not have that folder.
    """
    folder = os.environ.get(FOLDER)
    if not folder or not os.path.isdir(folder):
        yield
        return
    before = os.getcwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


def _look_in_folder() -> None:
    """The user's folder stands last on the path, so that a file there hides no library."""
    folder = os.environ.get(FOLDER)
    if folder and folder not in sys.path:
        sys.path.append(folder)


def resolve(name: object, menu: Mapping[str, object], where: str, what: str) -> Any:
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
    _look_in_folder()
    try:
        target: object = importlib.import_module(module_name)
    except (Exception, SystemExit) as error:  # a user's module may fail in any way while it is imported
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


@functools.lru_cache(maxsize=64)
def _parameters(made: Callable[..., object]) -> tuple[inspect.Parameter, ...]:
    """Kept: a schedule of one pruner a weight asks it of one class a hundred times over."""
    return tuple(inspect.signature(made).parameters.values())


def takes(made: Callable[..., object], argument: str) -> bool:
    """Whether a class or function takes an argument of this name."""
    return any(p.name == argument or p.kind is p.VAR_KEYWORD for p in _parameters(made))


def _a(kind: type) -> str:
    return f"{'an' if kind.__name__[0] in 'AEIOU' else 'a'} {kind.__name__}"


def _way_out(key: str, names: Collection[str], beside: Collection[str]) -> str:
    near = [close_match(key, known) for known in (names, beside) if known]
    return next((text for text in near if text.startswith("did")), near[0] if names else close_match(key, names))


def argument_faults(
    made: Callable[..., object],
    args: Mapping[str, object],
    where: str,
    given: int = 0,
    named: Collection[str] = (),
    beside: Collection[str] = (),
) -> list[Fault]:
    """What of `args` a class or function does not take, and what it wants and lacks; nothing is called.

    where: the key path of `args`. given: how many positional arguments it gets before them, named: by keyword.
    beside: names that may stand among them in a file, and are taken out before.
    """
    parameters = _parameters(made)
    open_ended = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters)
    keywords = [p for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)][given:]
    names = [parameter.name for parameter in keywords if parameter.name not in named]
    faults = [
        Fault(f"{where}.{key}", "unknown argument", ABSENT, _way_out(key, names, beside))
        for key in args
        if key not in names and (key in named or not open_ended)
    ]
    for parameter in keywords:
        if parameter.default is parameter.empty and parameter.name not in args and parameter.name not in named:
            faults.append(Fault(f"{where}.{parameter.name}", "is missing", ABSENT, f"add '{parameter.name}:'"))
    return faults


def resolve_object(name: object, menu: Mapping[str, object], base: type[T], where: str, what: str) -> T:
    """As `resolve`, for an object of class `base`, made in its module; nothing is called.

    Raises:
        ConfigError: as `resolve`, or what was found is something else.
    """
    found = resolve(name, menu, where, what)
    if not isinstance(found, base):
        known = f"it is a class: name an object that is made from {base.__name__}"
        way_out = known if isinstance(found, type) else f"name an object of class {base.__name__}"
        raise ConfigError(Fault(where, f"is not {_a(base)}", name, way_out))
    return found


def resolve_class(name: object, menu: Mapping[str, object], base: type[T], where: str, what: str) -> type[T]:
    """As `resolve`, for a class derived from `base` that can be built; nothing is called.

    A menu's entry may be spelt ``pkg.mod:Class`` itself: a class whose module is imported only where a file names it.

    Raises:
        ConfigError: as `resolve`, or what was found is something else.
    """
    found = resolve(name, menu, where, what)
    if isinstance(found, str) and name in menu:
        found = resolve(found, {}, where, what)
    if not (isinstance(found, type) and issubclass(found, base)):
        way_out = f"name a class that is derived from {base.__name__}"
        raise ConfigError(Fault(where, f"is not {_a(base)}", name, way_out))
    if inspect.isabstract(found):
        lacks = ", ".join(sorted(getattr(found, "__abstractmethods__", ())))
        raise ConfigError(Fault(where, f"is abstract, it lacks {lacks}", name, "name a class that has them"))
    return found


_look_in_folder()  # a process that was sent an object of a user's class must find its module before it asks for a name
