"""Seeded orders and the stratified split of train.

Built on the raw 64-bit stream of PCG64 (numpy keeps bit streams stable between versions, which it does not promise of
`Generator.permutation`), so that a split is the same with every numpy.
"""

from __future__ import annotations

import math

import numpy as np

from raydistill.errors import DataError, Fault


def raw_stream(count: int, *key: int) -> np.ndarray:
    """`count` uniform uint64 values that depend on the non-negative integers of `key` only."""
    return np.random.PCG64(np.random.SeedSequence(key)).random_raw(count)


def seeded_permutation(count: int, *key: int) -> np.ndarray:
    """A uniform permutation of 0 .. count - 1 as int64."""
    return np.argsort(raw_stream(count, *key), kind="stable").astype(np.int64, copy=False)


def stratified_split(
    labels: np.ndarray, fraction: float, seed: int, classes: tuple[str, ...] | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """(kept, held out): ascending int64 positions in `labels`, disjoint, together all of it.

    labels: int64 (N,), or (N, L) of images with several labels, which are split as if they were of one class. Of a
    class with n images, floor(n * fraction + 1/2) are held out, but at least one and at most n - 1.

    Raises:
        DataError: a class has fewer than two images, so that it cannot be in both.
    """
    if labels.ndim == 2:
        labels, classes = np.zeros(len(labels), dtype=np.int64), ("all",)
    held_out: list[np.ndarray] = []
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        name = classes[int(label)] if classes is not None else str(int(label))
        if len(members) < 2:
            rule = f"class '{name}' needs at least 2 train images, one to learn from and one to validate on"
            raise DataError(Fault("dataset", rule, len(members), "add images to it or remove the class"))
        count = min(max(math.floor(len(members) * fraction + 0.5), 1), len(members) - 1)
        held_out.append(members[seeded_permutation(len(members), seed, int(label))[:count]])
    held = np.sort(np.concatenate(held_out)).astype(np.int64, copy=False)
    kept = np.setdiff1d(np.arange(len(labels), dtype=np.int64), held, assume_unique=True)
    return kept, held
