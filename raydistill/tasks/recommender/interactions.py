"""Who took up what, and when: MovieLens' ``u.data``, ``ratings.dat`` and ``ratings.csv``; any rating counts.

Leave one out (He et al. 2017, section 4.1): of each user's items, in the order of time, the last is for the test, the
one before for validation, the others are trained on. Users of fewer than three items are trained on only.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from raydistill.errors import ABSENT, ConfigError, DataError, Fault
from raydistill.tasks.base import TEST, VALIDATION
from raydistill.tasks.files import content_of

NAMES = ("u.data", "ratings.dat", "ratings.csv")
_FEWEST = 3


@dataclass(frozen=True)
class Interactions:
    """users, items: the files' own numbers int64, ascending; all others here count from 0 in their order.

    train: (N, 2) int64 of user and item. held_out: by split (U, 2), one row a user who has one. seen: user * items +
    item of all there are, ascending.
    """

    users: np.ndarray
    items: np.ndarray
    train: np.ndarray
    held_out: Mapping[str, np.ndarray]
    seen: np.ndarray

    @property
    def trained(self) -> np.ndarray:
        """As `seen`, of the train part."""
        return np.sort(self.train[:, 0] * len(self.items) + self.train[:, 1])


def read_interactions(data_dir: str | None) -> tuple[Interactions, Path]:
    """From a file, or from the one in a folder that is called as MovieLens calls it.

    Raises:
        ConfigError, DataError: there is none, or it has another form.
    """
    if data_dir is None:
        way_out = f"give a file, or a folder with {', '.join(NAMES)} (--data-dir)"
        raise ConfigError(Fault("dataset.data_dir", "must be given: where the ratings are", ABSENT, way_out))
    place = Path(data_dir).expanduser()
    if not place.exists():
        raise DataError(Fault("dataset.data_dir", "no such file or folder", data_dir, "mend it or give --data-dir"))
    found = [place] if place.is_file() else [place / name for name in NAMES if (place / name).is_file()]
    if len(found) != 1:
        rule = f"must hold one of {', '.join(NAMES)}"
        raise ConfigError(Fault(f"dataset.data_dir {place}", rule, [path.name for path in found], "or name the file"))
    return interactions(_rows(content_of(found[0]), str(found[0])), str(found[0])), found[0]


def interactions(rows: np.ndarray, where: str) -> Interactions:
    """rows: int64 (N, 3) of user, item and time, any numbers. Of a pair that comes again the last one counts.

    Raises:
        DataError: no user has enough items to hold some out.
    """
    rows = rows[np.argsort(rows[:, 2], kind="stable")]  # those of one time stay in the file's order
    users, user = np.unique(rows[:, 0], return_inverse=True)
    items, item = np.unique(rows[:, 1], return_inverse=True)
    pairs = np.stack([user.reshape(-1), item.reshape(-1)], axis=1).astype(np.int64)
    keys = pairs[:, 0] * len(items) + pairs[:, 1]
    _, last = np.unique(keys[::-1], return_index=True)
    kept = np.sort(len(keys) - 1 - last)
    pairs = pairs[kept]
    pairs = pairs[np.argsort(pairs[:, 0], kind="stable")]
    counts = np.bincount(pairs[:, 0], minlength=len(users))
    ends = np.cumsum(counts)[counts >= _FEWEST]
    if not len(ends):
        rule = f"has no user of {_FEWEST} items or more, so that none can be held out"
        raise DataError(Fault(where, rule, int(counts.max(initial=0)), "give more ratings"))
    trained = np.ones(len(pairs), dtype=bool)
    trained[ends - 1] = trained[ends - 2] = False
    held_out = {TEST: pairs[ends - 1], VALIDATION: pairs[ends - 2]}
    return Interactions(users, items, pairs[trained], held_out, np.sort(keys[kept]))


def _rows(content: bytes, where: str) -> np.ndarray:
    """(N, 3) of user, item and time, by the separator of the first line."""
    import pandas

    first = content[: content.find(b"\n") + 1 or None]
    if b"::" in first:
        content, separator, header = content.replace(b"::", b"\t"), "\t", None
    elif b"\t" in first:
        separator, header = "\t", None
    else:
        separator, header = ",", 0
    try:
        table = pandas.read_csv(io.BytesIO(content), sep=separator, header=header)
    except Exception as error:  # pandas raises what it likes
        raise DataError(_fault(where, f"cannot be read ({type(error).__name__}: {error})")) from error
    if table.shape[1] < 4 or not len(table):
        raise DataError(_fault(where, f"has {len(table)} rows of {table.shape[1]} columns"))
    picked = table.iloc[:, [0, 1, 3]]
    if not all(pandas.api.types.is_integer_dtype(kind) for kind in picked.dtypes):
        raise DataError(_fault(where, "must have whole numbers for users, items and times"))
    values: np.ndarray = picked.to_numpy(dtype=np.int64)
    return values


def _fault(where: str, rule: str) -> Fault:
    way_out = "give user, item, rating, time: tabs (u.data), :: (ratings.dat), or commas below a line of names"
    return Fault(where, rule, ABSENT, way_out)
