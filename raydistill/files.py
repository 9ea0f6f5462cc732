"""Writing files so that a reader sees the old content or the new one, never half of either."""

from __future__ import annotations

import contextlib
import os
import secrets
from pathlib import Path

from raydistill.errors import ABSENT, Fault, StorageError


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
        reason = (error.strerror or str(error)).lower()
        way_out = "free some space or choose another folder, then resume; what was there is unharmed"
        raise StorageError(Fault(str(path), f"cannot be written ({reason})", ABSENT, way_out)) from error
