"""Which files of a folder are the train, validation and test part of the data, and their content."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from raydistill.datasets.config import DatasetConfig
from raydistill.datasets.memory import available_memory
from raydistill.errors import ABSENT, ConfigError, DataError, Fault
from raydistill.tasks.base import TEST, TRAIN, VALIDATION

PARTS = (TRAIN, VALIDATION, TEST)
_IN_NAMES = {TRAIN: "train", VALIDATION: "valid", TEST: "test"}
_MEMORY_A_BYTE = 8
"""What a byte of a file takes at most while it is read: itself, decoded, and what is made of it."""


def check_no_images(
    data: DatasetConfig, names: Sequence[str] = (), own: bool = False, why: str = "is for images, and there are none"
) -> None:
    """What a dataset section may not say where no image has a label.

    names: of datasets that the task knows. own: it takes ``pkg.mod:factory``. why: the rule, for errors.

    Raises:
        ConfigError: all faults together.
    """
    usual = DatasetConfig()
    faults = [
        Fault(f"dataset.{key}", why, getattr(data, key), "leave it out")
        for key in ("image_size", "augment", "channels", "fallback")
        if getattr(data, key) != getattr(usual, key)
    ]
    if data.name not in (usual.name, *names) and not (own and ":" in data.name):
        known = [*names, *(["pkg.mod:factory"] if own else [])]
        way_out = f"use {', '.join(known)}, or" if known else "leave it out:"
        fault = Fault("dataset.name", "is not known to this task", data.name, f"{way_out} data_dir says where it is")
        faults.append(fault)
    if data.args and not (own and ":" in data.name):
        faults.append(Fault("dataset.args", "are for a factory of your own", dict(data.args), "leave them out"))
    if faults:
        raise ConfigError(*faults)


def find_parts(
    data_dir: str | None,
    named: Mapping[str, str],
    kind: str,
    endings: Sequence[str],
    needed: Sequence[str] = PARTS,
) -> dict[str, Path]:
    """The file of each part; one for all of them where that is to be split.

    named: of some parts the file's name in the folder. The others' are found by their names (``wiki.train.tokens``).
    kind: of file, for errors (``text``). endings: of their names. needed: parts that must have a file.

    Raises:
        ConfigError: no data_dir, or a part that cannot be told. DataError: no such file.
    """
    if data_dir is None:
        way_out = f"give a {kind} file, or a folder of them (--data-dir)"
        raise ConfigError(Fault("dataset.data_dir", f"must be given: where the {kind} is", ABSENT, way_out))
    place = Path(data_dir).expanduser()
    if place.is_file():
        if named:
            part, name = next(iter(named.items()))
            way_out = "leave it out, or give the folder"
            raise ConfigError(
                Fault(f"task.args.{part}", f"has no use: {place} is one file, which is split", name, way_out)
            )
        return dict.fromkeys(PARTS, place)
    if not place.is_dir():
        raise DataError(Fault("dataset.data_dir", "no such file or folder", data_dir, "mend it or give --data-dir"))
    found = {part: _in_folder(place, part, name) for part, name in named.items()}
    files = sorted(path for path in place.iterdir() if path.suffix.lower() in endings and path.is_file())
    if len(files) == 1 and set(found.values()) <= set(files):
        return dict.fromkeys(PARTS, files[0])
    for part in PARTS:
        fitting = [path for path in files if _IN_NAMES[part] in path.name.lower() and path not in found.values()]
        if part not in found and len(fitting) == 1:
            found[part] = fitting[0]
        elif part not in found and (fitting or part in needed):
            rule = f"has {'several files' if fitting else 'no file'} for the {part} part"
            shown = [path.name for path in fitting or files][:8]
            way_out = f"name one (task.args.{part}), or give one file alone, which is split"
            raise ConfigError(Fault(f"dataset.data_dir {place}", rule, shown, way_out))
    return found


def content_of(file: Path) -> bytes:
    """All of a file.

    Raises:
        DataError: it cannot be read, is empty, or does not fit in memory.
    """
    try:
        size, free = file.stat().st_size, available_memory()
        if size * _MEMORY_A_BYTE > free:
            rule = f"of {size:,} bytes takes up to {_MEMORY_A_BYTE} times that in memory, {free:,} are free"
            raise DataError(Fault(str(file), rule, ABSENT, "give a part of it"))
        content = file.read_bytes()
    except OSError as error:
        raise DataError(Fault(str(file), f"cannot be read ({error.strerror or error})")) from error
    if not content:
        raise DataError(Fault(str(file), "is empty", ABSENT, "give a file with data"))
    return content


def _in_folder(folder: Path, part: str, name: object) -> Path:
    where = f"task.args.{part}"
    if not isinstance(name, str) or not name:
        raise ConfigError(Fault(where, "must name a file in dataset.data_dir", name))
    if not (folder / name).is_file():
        there = ", ".join(sorted(path.name for path in folder.iterdir() if path.is_file())[:8])
        raise DataError(Fault(where, f"no such file in {folder}", name, f"it has {there or 'no files'}"))
    return folder / name
