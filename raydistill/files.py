"""Writing files so that a reader sees the old content or the new one, never half of either."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import secrets
from pathlib import Path

from raydistill.errors import ABSENT, Fault, StorageError

_URI = re.compile(r"(^|/)[a-z][a-z0-9]+:/")
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


def write_atomically(path: str | Path, content: bytes | str) -> None:
    """Replace `path` by `content` at once: a temporary file beside it, synced to disk, then renamed over it.

    Raises:
        StorageError: the disk is full, the folder cannot be written; nothing of the new content is left.
    """
    path = Path(path)
    data = content.encode() if isinstance(content, str) else content
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise unwritable(path, error) from error


def unwritable(path: str | Path, error: OSError) -> StorageError:
    """What a failed write to `path` is to the user."""
    reason = (error.strerror or str(error)).lower()
    way_out = "free some space or choose another folder, then resume; what was there is unharmed"
    return StorageError(Fault(str(path), f"cannot be written ({reason})", ABSENT, way_out))


def unreadable(path: str | Path, error: OSError) -> StorageError:
    """What a failed read of `path` is to the user."""
    return StorageError(Fault(str(path), f"cannot be read ({error.strerror or error})"))


def missing(path: str | Path, way_out: str = "") -> str:
    """The way out where there is no file `path`, which may have been meant as a URI."""
    return "copy it to this machine first, a URI is not read here" if _URI.search(str(path)) else way_out


def full_disk(error: BaseException | None) -> OSError | None:
    """The error, or what lies beneath it, that says that a disk, a quota or a file size limit is used up."""
    while error is not None and not (isinstance(error, OSError) and error.errno in _FULL):
        error = error.__cause__ or error.__context__
    return error


def clear_temporaries(*folders: str | Path) -> None:
    """Remove what a process that was killed in `write_atomically` left; nobody else may be writing there."""
    for folder in folders:
        for path in Path(folder).glob(".*.tmp"):
            with contextlib.suppress(OSError):
                path.unlink()
