"""A text's train, validation and test part."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from raydistill.errors import ABSENT, DataError, Fault
from raydistill.tasks import files
from raydistill.tasks.base import TRAIN
from raydistill.tasks.files import PARTS, content_of

_SHARES = (0.8, 0.9)
"""Of a text in one file: where validation begins, and where test does."""


def find_parts(data_dir: str | None, named: Mapping[str, str]) -> dict[str, Path]:
    """`files.find_parts` of texts."""
    return files.find_parts(data_dir, named, "text", (".txt", ".tokens"))


def read_parts(found: Mapping[str, Path]) -> dict[str, bytes]:
    """The content of each part. A file that is all of them is split 80/10/10, behind ends of lines where it has some.

    Raises:
        DataError: a file cannot be read, is empty, or does not fit in memory.
    """
    if len(set(found.values())) > 1:
        return {part: content_of(file) for part, file in found.items()}
    content = content_of(found[TRAIN])
    first, second = (_behind_line(content, int(share * len(content))) for share in _SHARES)
    pieces = dict(zip(PARTS, (content[:first], content[first:second], content[second:]), strict=True))
    for part, piece in pieces.items():
        if not piece:
            rule, way_out = f"is too short to be split: no {part} part is left", "give more, or a file for each part"
            raise DataError(Fault(str(found[TRAIN]), rule, ABSENT, way_out))
    return pieces


def _behind_line(content: bytes, position: int) -> int:
    """The next beginning of a line, within a hundredth of the text; else the position itself."""
    found = content.find(b"\n", position, position + len(content) // 100)
    return position if found < 0 else found + 1
