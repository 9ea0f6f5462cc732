"""The cache of decoded folders: arrays that the next start maps instead of decoding again."""

from __future__ import annotations

import errno
import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from raydistill.errors import Fault, StorageError


def read_cache(folder: Path) -> tuple[np.ndarray, np.ndarray, dict[str, Any]] | None:
    """(train images, test images, facts), memory-mapped and read-only; None where there is no whole cache."""
    try:
        facts = json.loads((folder / "facts.json").read_text())
        # ndarray, not memmap: pickling and slicing a plain view costs less and means the same
        train, test = (
            np.load(folder / f"{split}.npy", mmap_mode="r", allow_pickle=False).view(np.ndarray)
            for split in ("train", "test")
        )
    except (OSError, ValueError):
        return None
    return train, test, facts


def write_cache(folder: Path, train: np.ndarray, test: np.ndarray, facts: dict[str, Any]) -> None:
    """Write all of a cache under a temporary name, then rename the folder: it is there whole or not at all.

    Raises:
        StorageError: it could not be written; nothing is left behind.
    """
    temporary = None
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
        for split, images in (("train", train), ("test", test)):
            with open(temporary / f"{split}.npy", "wb") as file:
                np.save(file, images)
                file.flush()
                os.fsync(file.fileno())
        (temporary / "facts.json").write_text(json.dumps(facts))
        if folder.exists() and read_cache(folder) is None:  # damaged; it would stand in the way for ever
            shutil.rmtree(folder)
        try:
            os.replace(temporary, folder)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
            shutil.rmtree(temporary, ignore_errors=True)  # another process wrote the same cache first
    except OSError as error:
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)
        reason = error.strerror or str(error)
        raise StorageError(Fault(str(folder), f"cannot keep the decoded images ({reason})")) from error
