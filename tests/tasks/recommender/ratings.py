"""Ratings in MovieLens' forms, of users with a taste: each mostly takes up items of one of four kinds."""

from __future__ import annotations

from pathlib import Path

import numpy as np

KINDS = 4


def rows(users: int = 120, items: int = 160, each: int = 14, seed: int = 0) -> np.ndarray:
    """int64 (N, 4) of user, item, rating, time; ids from 1 with gaps. Item k is of kind k % 4, as user k is."""
    draw = np.random.default_rng(seed)
    found = []
    for user in range(users):
        fits = np.arange(items) % KINDS == user % KINDS
        chosen = draw.choice(items, size=each, replace=False, p=np.where(fits, 0.92, 0.08 / 3) / (items / KINDS))
        times = draw.permutation(each) + 1000 * user
        found += [
            (3 * user + 1, 2 * item + 1, draw.integers(1, 6), time) for item, time in zip(chosen, times, strict=True)
        ]
    return np.array(found, dtype=np.int64)[draw.permutation(len(found))]


def write(folder: Path, name: str = "u.data", table: np.ndarray | None = None) -> Path:
    table = rows() if table is None else table
    separator = {"u.data": "\t", "ratings.dat": "::", "ratings.csv": ","}[name]
    lines = ["userId,movieId,rating,timestamp"] if name == "ratings.csv" else []
    lines += [separator.join(map(str, row)) for row in table.tolist()]
    (folder / name).write_text("\n".join(lines) + "\n")
    return folder / name
