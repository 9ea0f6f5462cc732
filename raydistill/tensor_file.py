"""Files of ``torch.save``, whoever wrote them: the only place that reads one. Nothing in it runs."""

from __future__ import annotations

import pickletools
import re
import warnings
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

import torch
from torch import Tensor

from raydistill.errors import ABSENT, CheckpointError, Fault
from raydistill.files import missing

_SLACK = 1 << 26
_SHARED = 16
_LEGACY_PICKLES = 4  # magic number, version, byte order, and then what was saved


def read_tensors(path: str | Path, way_out: str, stand_ins: Iterable[type] = ()) -> object:
    """What ``torch.save`` wrote, on the CPU: tensors and plain values, no larger than the file explains.

    stand_ins: classes that take the place of those of their names. way_out: what the user can do about a bad file.

    Raises:
        CheckpointError: no such file, damaged, or it cannot be loaded without running code.
    """
    _openable(path, way_out)
    _check_listing(path, way_out)
    try:
        with warnings.catch_warnings(), torch.serialization.safe_globals(list(stand_ins)):
            warnings.simplefilter("ignore")  # torch wonders about the protocol of what is no pickle
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # damage shows in any way, as an OSError too
        refused = re.search(r"GLOBAL ([\w.]+)", str(error))
        rule = "is damaged, or no checkpoint that can be loaded without running code from it"
        if refused:
            rule = f"names '{refused[1]}', which may run code and which no checkpoint needs"
        raise CheckpointError(Fault(str(path), rule, ABSENT, way_out)) from error
    most = _SLACK + _SHARED * Path(path).stat().st_size
    if sum(tensor.numel() * tensor.element_size() for tensor in _tensors(content, set())) > most:
        rule = "is no checkpoint: its tensors are many times larger than the file"
        raise CheckpointError(Fault(str(path), rule, ABSENT, way_out))
    return content


class StandIn:
    """An object of a class that is not here: its arguments and its state, and nothing that runs."""

    args: tuple[object, ...]
    state: object

    def __new__(cls, *args: object, **kwargs: object) -> StandIn:
        self = object.__new__(cls)
        self.args, self.state = args, None
        return self

    def __init__(self, *args: object, **kwargs: object) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        self.state = state


def stand_ins(names: Iterable[tuple[str, str]]) -> list[type]:
    """Classes that take the place of those of these (module, name)."""
    return [type(name, (StandIn,), {"__module__": module, "__qualname__": name}) for module, name in sorted(names)]


def look_through(path: str | Path) -> tuple[set[tuple[str, str]], set[str]]:
    """(module, name) of the classes and functions that the file names, and its strings, without loading it; both are
    empty for what ``torch.save`` did not write.
    """
    names: set[tuple[str, str]] = set()
    strings: set[str] = set()
    try:
        with open(path, "rb") as file:
            for opcode, argument in _opcodes(file):
                if opcode == "GLOBAL":
                    module, _, name = str(argument).partition(" ")
                    names.add((module, name))
                elif isinstance(argument, str):
                    strings.add(argument)
    except Exception:  # not a pickle, or a damaged one: loading it says so
        return names, strings
    return names, strings


def _openable(path: str | Path, way_out: str) -> None:
    try:
        with open(path, "rb") as file:
            file.read(1)
    except FileNotFoundError as error:
        raise CheckpointError(Fault(str(path), "no such checkpoint", ABSENT, missing(path, way_out))) from error
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        reason = getattr(error, "strerror", None) or error
        raise CheckpointError(Fault(str(path), f"cannot be read ({reason})")) from error


def _check_listing(path: str | Path, way_out: str) -> None:
    """``torch.save`` stores its records as they are: one that unpacks to more than its size is none of its.

    What allocates by a number in the pickle is refused too.
    """
    names, _ = look_through(path)
    rule = ""
    if any(name == "bytearray" for _, name in names):
        rule = "names 'bytearray', which no checkpoint needs"
    try:
        with zipfile.ZipFile(path) as archive:
            unpacked = sum(record.file_size for record in archive.infolist())
        if unpacked > Path(path).stat().st_size:
            rule = f"is packed and would unpack to {unpacked:,} bytes, which torch.save never writes"
    except (zipfile.BadZipFile, ValueError, NotImplementedError, OSError):
        pass  # of before torch 1.6, or damaged: loading it says so
    if rule:
        raise CheckpointError(Fault(str(path), rule, ABSENT, way_out))


def _opcodes(file: BinaryIO) -> Iterator[tuple[str, object]]:
    if not zipfile.is_zipfile(file):
        file.seek(0)
        for _ in range(_LEGACY_PICKLES):
            yield from ((opcode.name, argument) for opcode, argument, _ in pickletools.genops(file))
        return
    with zipfile.ZipFile(file) as archive:
        record = next(record for record in archive.infolist() if record.filename.endswith("data.pkl"))
        if record.file_size > Path(file.name).stat().st_size:
            return  # `_check_listing` refuses it
        with archive.open(record) as stream:
            yield from ((opcode.name, argument) for opcode, argument, _ in pickletools.genops(stream))


def _tensors(value: object, seen: set[int]) -> Iterator[Tensor]:
    """Every tensor in a nest of mappings and sequences, each object once."""
    waiting = [value]
    while waiting:
        value = waiting.pop()
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, (dict, list, tuple, set)) and id(value) not in seen:
            seen.add(id(value))
            waiting.extend([*value, *value.values()] if isinstance(value, dict) else value)
