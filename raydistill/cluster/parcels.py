"""A run's files on their way between its workers, of which each trains in a folder of its own, and its driver.

No folder has to be shared: the driver keeps the run's own one, on a disk of its machine or wherever it likes, and the
first worker sends it what an epoch has changed. Workers that start again get the last checkpoint from where the first
worker sent it.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from raydistill.errors import StorageError
from raydistill.files import unwritable, write_atomically
from raydistill.locks import LOCK, hold
from raydistill.training.checkpoint import FILE_NAME

Parcel = Mapping[str, tuple[int, bytes]]
"""By the file's name in the folder: the place in the file, and what stands from there on."""

_PREFIX = "raydistill-worker-"
_GROWS = "events.out."
"""Only the new end of such a file travels; one may lie in a folder of the folder."""

_LEFT_S = 60.0
"""Older than any folder whose maker has not yet locked it."""


@contextlib.contextmanager
def private_folder() -> Iterator[Path]:
    """A folder of this process's own, while the block runs. What killed processes have left of theirs is removed.

    Raises:
        StorageError: it cannot be made.
    """
    _clear_killed()
    try:
        folder = Path(tempfile.mkdtemp(prefix=_PREFIX))
    except OSError as error:
        raise unwritable(Path(tempfile.gettempdir()), error) from error
    try:
        with hold(folder / LOCK, "this folder"):
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _clear_killed() -> None:
    for folder in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        with contextlib.suppress(OSError, StorageError):
            found = folder.stat()
            if found.st_uid == os.getuid() and time.time() - found.st_mtime > _LEFT_S:
                with hold(folder / LOCK, "this folder"):
                    shutil.rmtree(folder, ignore_errors=True)


class Outbox:
    """Finds what has changed in a folder since it was last asked; what is there at first has not."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._seen: dict[str, tuple[int, int]] = {}
        self.changed()

    def changed(self) -> Parcel:
        parcel: dict[str, tuple[int, bytes]] = {}
        for path in sorted([*self._folder.iterdir(), *self._folder.glob(f"*/{_GROWS}*")]):
            if path.name == LOCK or path.name.startswith(".") or not path.is_file():
                continue
            name, found = path.relative_to(self._folder).as_posix(), path.stat()
            stamp, before = (found.st_mtime_ns, found.st_size), self._seen.get(name, (0, 0))
            if stamp == before:
                continue
            start = before[1] if path.name.startswith(_GROWS) else 0
            with path.open("rb") as file:
                file.seek(start)
                content = file.read()
            self._seen[name] = (stamp[0], start + len(content))
            parcel[name] = (start, content)
        return parcel


def unpack(parcel: Parcel, folder: Path) -> None:
    """Put the files into a folder, the checkpoint last: whoever sees it finds what belongs to it.

    Raises:
        StorageError: they cannot be written; each file is whole, the old one or the new one.
    """
    for name, (start, content) in sorted(parcel.items(), key=lambda item: item[0] == FILE_NAME):
        if not start:
            if "/" in name:
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
            write_atomically(folder / name, content)
            continue
        try:
            with (folder / name).open("r+b") as file:
                file.seek(start)
                file.write(content)
        except OSError as error:
            raise unwritable(folder / name, error) from error
