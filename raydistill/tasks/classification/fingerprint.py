"""A hash of a loaded dataset of images."""

from __future__ import annotations

import hashlib
from dataclasses import fields

import numpy as np

from raydistill.datasets import BatchedDataset, Dataset

_HOW_IT_IS_READ = ("root", "workers", "used_fallback", "warning")
_ADDED = ("shorter_side", "interpolation", "channels")
"""Fields that count only where they say something, so that older sweeps keep their datasets' hashes."""


def fingerprint_of_dataset(dataset: Dataset) -> str:
    """Content hash of a loaded dataset: the images, the labels, the split; of a `BatchedDataset` what it says."""
    digest = hashlib.blake2b(digest_size=8)
    if isinstance(dataset, BatchedDataset):
        digest.update(dataset.described().encode())
        return digest.hexdigest()
    for field in fields(dataset):
        if field.name in _HOW_IT_IS_READ:
            continue
        value = getattr(dataset, field.name)
        if field.name in _ADDED and value == field.default:
            continue
        digest.update(field.name.encode())
        digest.update(np.ascontiguousarray(value).data if isinstance(value, np.ndarray) else repr(value).encode())
    return digest.hexdigest()
