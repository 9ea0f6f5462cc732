"""YAML files of a user's: read safely, with a line for whatever is wrong with them."""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable, Mapping
from pathlib import Path

import yaml

from raydistill.errors import ABSENT, ConfigError, Fault, close_match

_MOST_NODES = 1_000_000
_FLOAT = "tag:yaml.org,2002:float"
# PyYAML follows YAML 1.1, where 1e-1 is text: a number of floating point has to have a dot and a signed exponent.
_NUMBER = re.compile(r"[-+]?(?:\d[\d_]*\.?[\d_]*|\.\d[\d_]*)[eE][-+]?\d+$")
_FIRST = list("-+.0123456789")
_UNNAMEABLE = re.compile("[\0\ud800-\udfff]")

OnTwice = Callable[[str, int, int], None]
"""Told of a key that a mapping has twice: (key, line of the first, line of the last), lines from 1."""


class _Loader(yaml.SafeLoader):
    on_twice: OnTwice | None = None

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, object]:
        seen: dict[Hashable, int] = {}
        for key_node, _ in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":
                continue
            key = self.construct_object(key_node, deep=True)  # type: ignore[no-untyped-call]
            if not isinstance(key, Hashable):
                continue  # the parent class reports it
            line = key_node.start_mark.line + 1
            if key in seen:
                if self.on_twice is None:
                    rule = f"key '{key}' is given twice, in line {seen[key]} too; keep one of the two"
                    raise yaml.constructor.ConstructorError(None, None, rule, key_node.start_mark)
                self.on_twice(str(key), seen[key], line)
            seen[key] = line
        return super().construct_mapping(node, deep)


class _Dumper(yaml.SafeDumper):
    pass


_Loader.add_implicit_resolver(_FLOAT, _NUMBER, _FIRST)
_Dumper.add_implicit_resolver(_FLOAT, _NUMBER, _FIRST)


def read_yaml(path: str | Path, on_twice: OnTwice | None = None) -> dict[str, object]:
    """Read a YAML mapping safely. Numbers may be written as ``1e-1``.

    on_twice: is told of each key that is given twice, and the last counts; None refuses such a file.

    Raises:
        ConfigError: the file is missing, is not UTF-8, is not YAML, gives a key twice, or is not a mapping.
    """
    return parse_yaml(_text(Path(path)), str(path), on_twice)


def parse_yaml(text: str, where: str, on_twice: OnTwice | None = None) -> dict[str, object]:
    """`read_yaml` of a text that is read already; where: what it is, for errors."""
    try:
        data = _parsed(text, where, on_twice)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or str(error)
        raise ConfigError(Fault(f"{where}{line}", f"not valid YAML: {problem}")) from error
    except RecursionError as error:
        raise ConfigError(Fault(where, "is nested too deeply")) from error
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        # PyYAML's constructors of odd tags and keys: !!int x, !!timestamp x, {[a]: b}
        problem = f"{type(error).__name__}: {error}"
        raise ConfigError(Fault(where, f"not valid YAML: a value does not fit its tag ({problem})")) from error
    if not isinstance(data, dict):
        raise ConfigError(
            Fault(
                where,
                "must be a mapping of sections",
                data,
                "write 'key: value' lines; raydistill init writes a sweep file",
            )
        )
    return data


def dump_yaml(mapping: Mapping[str, object]) -> str:
    """YAML text that `read_yaml` reads back to an equal mapping, in its order."""
    return yaml.dump(
        dict(mapping), Dumper=_Dumper, sort_keys=False, default_flow_style=None, width=100, allow_unicode=True
    )


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        near = [entry.name for entry in path.parent.glob("*.y*ml")] if path.parent.is_dir() else []
        way_out = close_match(path.name, near) if near else "check the path"
        raise ConfigError(Fault(str(path), "no such file", ABSENT, way_out)) from error
    except UnicodeDecodeError as error:
        raise ConfigError(Fault(str(path), "is not UTF-8 text", ABSENT, "save it as UTF-8")) from error
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        raise ConfigError(Fault(str(path), f"cannot be read ({getattr(error, 'strerror', None) or error})")) from error


def _parsed(text: str, where: str, on_twice: OnTwice | None) -> object:
    loader = _Loader(text)
    loader.on_twice = on_twice
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        _size(node, where, {})
        return loader.construct_document(node)  # type: ignore[no-untyped-call]
    finally:
        loader.dispose()


def _size(node: yaml.Node, where: str, sizes: dict[int, int]) -> int:
    """Values beneath a node, each of which is looked at; those of an alias wherever it stands: a few lines of aliases
    can stand for billions."""
    if id(node) in sizes:
        if sizes[id(node)] < 0:
            rule = "not valid here: an alias stands inside what it is an alias of"
            raise ConfigError(Fault(f"{where}:{node.start_mark.line + 1}", rule, ABSENT, "write it out"))
        return sizes[id(node)]
    sizes[id(node)] = -1
    below = [entry for pair in node.value for entry in pair] if isinstance(node, yaml.MappingNode) else []
    if isinstance(node, yaml.SequenceNode):
        below = node.value
    if isinstance(node, yaml.ScalarNode) and _UNNAMEABLE.search(node.value):
        rule = "holds a NUL or half of a character (a surrogate), which no file can be named by"
        raise ConfigError(Fault(f"{where}:{node.start_mark.line + 1}", rule, node.value, "write the character itself"))
    size = 1 + sum(_size(entry, where, sizes) for entry in below)
    if size > _MOST_NODES:
        raise ConfigError(Fault(where, f"stands for more than {_MOST_NODES:,} values", ABSENT, "use fewer aliases"))
    sizes[id(node)] = size
    return size
