"""Pairs of users and items in batches.

Shapes: pairs int64 (B, 2), labels float32 (B,): 1 where the user took up the item.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from raydistill.datasets.split import seeded_permutation
from raydistill.tasks.base import Loading
from raydistill.tasks.feeds import batch_bounds, own_rows, row_counts, share
from raydistill.tasks.recommender.negatives import train_negatives

Pairs = tuple[Tensor, Tensor]


class TrainFeed:
    """Each pair of the train part and `negatives` others of that user, drawn anew in each epoch, all shuffled.

    train: (N, 2) int64. trained: see `train_negatives`.
    """

    def __init__(self, train: np.ndarray, items: int, trained: np.ndarray, negatives: int, loading: Loading) -> None:
        self._train, self._items, self._trained, self._negatives = train, items, trained, negatives
        self._loading = loading
        self._positives = share(len(train), loading.fraction, "training.effective_train_size")
        self.samples = self._positives * (1 + negatives)
        self._bounds = batch_bounds(self.samples, loading.batch_size)
        self.batches = len(self._bounds)

    def rows(self, index: int) -> tuple[int, int]:
        return row_counts(*self._bounds[index], self._loading.ranks)

    def epoch(self, epoch: int) -> Iterator[Pairs]:
        seed = self._loading.seed
        positives = self._train
        if self._positives < len(self._train):
            positives = self._train[seeded_permutation(len(self._train), seed, epoch, 1)[: self._positives]]
        users = np.repeat(positives[:, 0], self._negatives)
        others = train_negatives(users, self._items, self._trained, seed, epoch, 2)
        pairs = np.concatenate([positives, np.stack([users, others], axis=1)])
        labels = (np.arange(len(pairs)) < len(positives)).astype(np.float32)
        order = seeded_permutation(len(pairs), seed, epoch)
        for start, stop in self._bounds:
            rows = order[own_rows(start, stop, self._loading.ranks)]
            device = self._loading.device
            yield torch.from_numpy(pairs[rows]).to(device), torch.from_numpy(labels[rows]).to(device)


class EvalFeed:
    """All candidates of some users a batch, each user's held-out item first. Rows and samples are users.

    users: (U,). candidates: (U, 1 + negatives).
    """

    def __init__(self, users: np.ndarray, candidates: np.ndarray, split: str, loading: Loading) -> None:
        kept = share(len(users), loading.fraction, f"training.effective_{split}_size")
        places = np.sort(seeded_permutation(len(users), 0)[:kept])
        self._users, self._candidates, self._loading = users[places], candidates[places], loading
        self._bounds = batch_bounds(kept, max(1, loading.batch_size // candidates.shape[1]))
        self.batches = len(self._bounds)
        self.samples = row_counts(0, kept, loading.ranks)[0]

    def rows(self, index: int) -> tuple[int, int]:
        return row_counts(*self._bounds[index], self._loading.ranks)

    def epoch(self, epoch: int) -> Iterator[Pairs]:
        count = self._candidates.shape[1]
        for start, stop in self._bounds:
            rows = own_rows(start, stop, self._loading.ranks)
            items = self._candidates[rows]
            pairs = torch.from_numpy(np.stack([np.repeat(self._users[rows], count), items.reshape(-1)], axis=1))
            labels = torch.zeros(items.shape)
            labels[:, 0] = 1.0
            yield pairs.to(self._loading.device), labels.reshape(-1).to(self._loading.device)
