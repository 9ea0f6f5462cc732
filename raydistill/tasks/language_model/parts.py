"""Which files of a folder are the train, validation and test part of a text, and their content."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from raydistill.datasets.memory import available_memory
from raydistill.errors import ABSENT, ConfigError, DataError, Fault
from raydistill.tasks.base import TEST, TRAIN, VALIDATION

PARTS = (TRAIN, VALIDATION, TEST)
_IN_NAMES = {TRAIN: "train", VALIDATION: "valid", TEST: "test"}
_ENDINGS = (".txt", ".tokens")
_SHARES = (0.8, 0.9)
"""Of a text in one file: where validation begins, and where test does."""
_MEMORY_A_BYTE = 8
"""What a byte of a file takes at most while it is read: itself, decoded, and its tokens."""


def find_parts(data_dir: str | None, named: Mapping[str, str]) -> dict[str, Path]:
    """The file of each part; one for all of them where that is to be split.

    named: of some parts the file's name in the folder. The others' are found by their names (``wiki.train.tokens``).

    Raises:
        ConfigError: no data_dir, or a part that cannot be told. DataError: no such file.
    """
    if data_dir is None:
        way_out = "give a text file, or a folder of them (--data-dir)"
        raise ConfigError(Fault("dataset.data_dir", "must be given: where the text is", ABSENT, way_out))
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
    texts = sorted(path for path in place.iterdir() if path.suffix in _ENDINGS and path.is_file())
    if len(texts) == 1 and set(found.values()) <= set(texts):
        return dict.fromkeys(PARTS, texts[0])
    for part in PARTS:
        fitting = [path for path in texts if _IN_NAMES[part] in path.name.lower() and path not in found.values()]
        if part not in found and len(fitting) == 1:
            found[part] = fitting[0]
        elif part not in found:
            rule = f"has {'several files' if fitting else 'no file'} for the {part} part"
            shown = [path.name for path in fitting or texts][:8]
            way_out = f"name one (task.args.{part}), or give one file alone, which is split"
            raise ConfigError(Fault(f"dataset.data_dir {place}", rule, shown, way_out))
    return found


def read_parts(files: Mapping[str, Path]) -> dict[str, bytes]:
    """The content of each part. A file that is all of them is split 80/10/10, behind ends of lines where it has some.

    Raises:
        DataError: a file cannot be read, is empty, or does not fit in memory.
    """
    if len(set(files.values())) > 1:
        return {part: _content(file) for part, file in files.items()}
    content = _content(files[TRAIN])
    first, second = (_behind_line(content, int(share * len(content))) for share in _SHARES)
    pieces = dict(zip(PARTS, (content[:first], content[first:second], content[second:]), strict=True))
    for part, piece in pieces.items():
        if not piece:
            way_out = "give a longer text, or a file for each part"
            raise DataError(
                Fault(str(files[TRAIN]), f"is too short to be split: no {part} part is left", ABSENT, way_out)
            )
    return pieces


def _in_folder(folder: Path, part: str, name: object) -> Path:
    where = f"task.args.{part}"
    if not isinstance(name, str) or not name:
        raise ConfigError(Fault(where, "must name a file in dataset.data_dir", name))
    if not (folder / name).is_file():
        there = ", ".join(sorted(path.name for path in folder.iterdir() if path.is_file())[:8])
        raise DataError(Fault(where, f"no such file in {folder}", name, f"it has {there or 'no files'}"))
    return folder / name


def _content(file: Path) -> bytes:
    try:
        size, free = file.stat().st_size, available_memory()
        if size * _MEMORY_A_BYTE > free:
            rule = f"of {size:,} bytes takes up to {_MEMORY_A_BYTE} times that in memory, {free:,} are free"
            raise DataError(Fault(str(file), rule, ABSENT, "give a part of it"))
        content = file.read_bytes()
    except OSError as error:
        raise DataError(Fault(str(file), f"cannot be read ({error.strerror or error})")) from error
    if not content:
        raise DataError(Fault(str(file), "is empty", ABSENT, "give a file with text"))
    return content


def _behind_line(content: bytes, position: int) -> int:
    """The next beginning of a line, within a hundredth of the text; else the position itself."""
    found = content.find(b"\n", position, position + len(content) // 100)
    return position if found < 0 else found + 1
