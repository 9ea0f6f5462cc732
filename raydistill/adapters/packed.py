"""A trainer's own checkpoint, a file or a folder, inside a trial's: one file is written, or none."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from raydistill.errors import CheckpointError, Fault


def packed(place: Path) -> Tensor:
    """A file or a folder as bytes, uint8 (n,)."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for file in sorted(place.rglob("*")) if place.is_dir() else [place]:
            if file.is_file():
                archive.write(file, file.relative_to(place if place.is_dir() else place.parent).as_posix())
    return torch.from_numpy(np.frombuffer(buffer.getvalue(), np.uint8).copy())


def unpacked(content: Tensor, folder: Path) -> Path:
    """Put back what `packed` took, into a folder; returns the one file, or the folder.

    Raises:
        CheckpointError: it is not what `packed` gave.
    """
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with zipfile.ZipFile(io.BytesIO(content.numpy().tobytes())) as archive:
            names = archive.namelist()
            if any(Path(name).is_absolute() or ".." in Path(name).parts for name in names):
                raise ValueError("it names a place outside")
            archive.extractall(folder)
    except (zipfile.BadZipFile, ValueError, AttributeError, TypeError) as error:
        raise CheckpointError(Fault(str(folder), f"cannot be made of what the checkpoint holds ({error})")) from error
    return folder / names[0] if len(names) == 1 else folder
