"""A user's own modules, ``pkg.mod:factory`` in a file, sent to the nodes of a cluster: what they need and no more."""

from __future__ import annotations

import ast
import importlib.util
import json
import os
import re
import sys
import sysconfig
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from raydistill.errors import ABSENT, ConfigError, Fault

MOST_BYTES = 100 * 1024**2
"""Ray keeps what is sent in the memory of the head."""

_NAMED = re.compile(r"([A-Za-z_]\w*)(\.\w+)*:[A-Za-z_][\w.]*")
_LEFT_OUT = ("__pycache__", ".git", ".venv", "venv", ".ipynb_checkpoints")


def named_in(said: object) -> set[str]:
    """The top-level modules that ``pkg.mod:name`` names anywhere in a file's content: values, keys, words of a text."""
    if isinstance(said, Mapping):
        return set().union(*map(named_in, (*said, *said.values())))
    if isinstance(said, list | tuple):
        return set().union(*map(named_in, said))
    words = said.split() if isinstance(said, str) else ()
    return {match[1] for word in words if (match := _NAMED.fullmatch(word))}


def runtime_env(names: Iterable[str], job_config: str | None = None) -> dict[str, object] | None:
    """Ray's runtime environment that brings these top-level modules, and those they import, to every node.

    What is installed (in site-packages) has to be there already. job_config: what Ray tells a submitted job about
    itself; the files that such a job was submitted with are on the nodes as well. None: nothing has to be sent.

    Raises:
        ConfigError: a module is too large to be sent.
    """
    brought = (json.loads(job_config).get("runtime_env") or {}) if job_config else {}
    if "py_modules" in brought:
        return None  # Ray takes them from one place only
    paths = [path for path in _closure(names) if not ("working_dir" in brought and path.is_relative_to(Path.cwd()))]
    for path in paths:
        _check_size(path)
    if not paths:
        return None
    return {"py_modules": [str(path) for path in paths], "excludes": brought.get("excludes") or list(_LEFT_OUT)}


def _closure(names: Iterable[str]) -> list[Path]:
    """Files and folders of these top-level modules and of all that they import, also inside functions."""
    found: dict[str, list[Path]] = {}
    left = sorted(names)
    while left:
        name = left.pop()
        if name in found:
            continue
        found[name] = _places(name)
        for place in found[name]:
            for file in [place] if place.is_file() else (f for f in _files(place) if f.suffix == ".py"):
                left += _imports(file) - set(found)
    return sorted({place for places in found.values() for place in places})


def _places(name: str) -> list[Path]:
    """Where a top-level module lies, if it is the user's own and not installed."""
    if name in sys.stdlib_module_names or name == "raydistill":
        return []
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, ValueError, AttributeError):
        return []
    if spec is None:
        return []
    if spec.submodule_search_locations is not None:
        places = [Path(place).resolve() for place in spec.submodule_search_locations]
    else:
        places = [Path(spec.origin).resolve()] if spec.origin and spec.origin.endswith(".py") else []
    return [place for place in places if place.exists() and not _installed(place)]


def _installed(place: Path) -> bool:
    library = Path(sysconfig.get_paths()["stdlib"]).resolve()
    return place.is_relative_to(library) or bool({"site-packages", "dist-packages"} & set(place.parts))


def _imports(file: Path) -> set[str]:
    """The top-level names that a file imports anywhere; what cannot be parsed imports nothing."""
    try:
        tree = ast.parse(file.read_bytes())
    except (OSError, SyntaxError, ValueError):
        return set()
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names.update(alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names.add(node.module.partition(".")[0])
    return names


def _files(folder: Path) -> Iterator[Path]:
    for where, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if name not in _LEFT_OUT]
        yield from (Path(where) / name for name in files)


def _check_size(place: Path) -> None:
    sizes: dict[str, int] = {}
    for file in [place] if place.is_file() else _files(place):
        part = file.relative_to(place).parts[0] if file != place else file.name
        sizes[part] = sizes.get(part, 0) + (file.stat().st_size if file.exists() else 0)
    total = sum(sizes.values())
    if total > MOST_BYTES:
        rule = f"is sent to the nodes of the cluster and may have {MOST_BYTES // 2**20} MB, it has {total // 2**20} MB"
        largest = max(sizes, key=lambda part: sizes[part])
        way_out = f"move '{largest}' out of it, or install the package on every node"
        raise ConfigError(Fault(str(place), rule, ABSENT, way_out))
