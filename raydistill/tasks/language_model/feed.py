"""A text in columns that are read side by side, a stretch of all of them a batch.

Shapes: B columns (sequences), T tokens a stretch; tokens and targets int64 (B, T), or (T, B) where the network wants
that. A column goes on in the next batch where it ended in the one before, so that a network's state may be carried.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from raydistill.datasets.split import raw_stream
from raydistill.errors import ConfigError, DataError, Fault
from raydistill.tasks.base import TRAIN, Loading
from raydistill.tasks.feeds import own_rows, row_counts, share


@dataclass
class Carried:
    """A network's state behind the last batch of an epoch so far; each epoch has one of its own."""

    state: Any = None


@dataclass(frozen=True)
class Stretch:
    """A batch. targets: the token behind each. begins: it is an epoch's first, so that no state goes before it.

    bytes_a_token: of its text, on average.
    """

    tokens: Tensor
    targets: Tensor
    begins: bool
    bytes_a_token: float
    carried: Carried = field(default_factory=Carried)


@dataclass(frozen=True)
class Text:
    """A part of the data. tokens: uint8 or int32 (N,). where: its file, for errors."""

    tokens: np.ndarray
    bytes_a_token: float
    where: str


class TextFeed:
    """One part in stretches of `bptt` tokens; rows and samples are counted in tokens.

    columns: of all ranks together, each has its share; as many as the part is long enough for, `bptt` tokens each,
    where it is not the train split. Of a fraction of it the others take the beginning, train another piece each epoch.

    Raises:
        ConfigError, DataError: the part is too short for so many columns, or the fraction is none.
    """

    def __init__(
        self, text: Text, split: str, loading: Loading, columns: int, bptt: int, batch_first: bool = True
    ) -> None:
        self._text, self._loading, self._bptt, self._batch_first = text, loading, bptt, batch_first
        self._whole = len(text.tokens)
        self._used = share(self._whole, loading.fraction, f"training.effective_{split}_size")
        self._moves = split == TRAIN and self._used < self._whole
        if split != TRAIN:
            columns = min(columns, max(1, (self._used - 1) // bptt))
        self._columns, self._length = columns, (self._used - 1) // columns
        if self._length < 1:
            rule = f"has {self._used:,} tokens in use, too few for {columns} sequences"
            way_out = "lower training.batch_size, or give a longer text"
            kind = DataError if columns == 1 else ConfigError
            raise kind(Fault(text.where, rule, split, way_out))
        self._bounds = [(start, min(start + bptt, self._length)) for start in range(0, self._length, bptt)]
        self.batches = len(self._bounds)
        own = row_counts(0, columns, loading.ranks)[0]
        self.samples = self._length * (columns if split == TRAIN else own)
        self._tokens = torch.from_numpy(text.tokens).to(loading.device)

    def rows(self, index: int) -> tuple[int, int]:
        start, stop = self._bounds[index]
        own, of_all = row_counts(0, self._columns, self._loading.ranks)
        return own * (stop - start), of_all * (stop - start)

    def epoch(self, epoch: int) -> Iterator[Stretch]:
        offset = 0
        if self._moves:
            offset = int(raw_stream(1, self._loading.seed, epoch)[0] % np.uint64(self._whole - self._used + 1))
        inputs, targets = (self._side_by_side(offset + ahead) for ahead in (0, 1))
        carried = Carried()
        for start, stop in self._bounds:
            yield Stretch(
                self._cut(inputs, start, stop), self._cut(targets, start, stop), not start,
                self._text.bytes_a_token, carried,
            )  # fmt: skip

    def _side_by_side(self, offset: int) -> Tensor:
        """This rank's columns, a view (columns, length)."""
        taken = self._tokens[offset : offset + self._columns * self._length]
        return taken.view(self._columns, self._length)[own_rows(0, self._columns, self._loading.ranks)]

    def _cut(self, columns: Tensor, start: int, stop: int) -> Tensor:
        piece = columns[:, start:stop].long()
        return piece if self._batch_first else piece.T.contiguous()
