"""Chance of a user's own data: of a seed alone, apart from that of whoever reads them."""

from __future__ import annotations

import random

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

_States = tuple[Tensor, object, object]


class Chance:
    """The generators of torch (on the CPU), numpy and Python as the source has them while the block runs."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        own = random.Random(seed)  # nosec B311 - images, not secrets
        numpy_state = np.random.RandomState(np.random.MT19937(seed)).get_state()
        self._own: _States = (torch.Generator().manual_seed(seed).get_state(), numpy_state, own.getstate())
        self._others = self._now()

    def __enter__(self) -> None:
        self._others = self._now()
        self._set(self._own)

    def __exit__(self, *of_error: object) -> None:
        self._own = self._now()
        self._set(self._others)

    @staticmethod
    def _now() -> _States:
        return torch.get_rng_state(), np.random.get_state(), random.getstate()

    @staticmethod
    def _set(state: _States) -> None:
        torch.set_rng_state(state[0])
        np.random.set_state(state[1])  # type: ignore[arg-type]
        random.setstate(state[2])  # type: ignore[arg-type]


def begin(loader: DataLoader[object], epoch: int, seed: int) -> None:
    """A loader's generators are set, and who has a `set_epoch` is told."""
    inner = (loader, loader.sampler, loader.batch_sampler, getattr(loader.batch_sampler, "sampler", None))
    for owner in inner:
        generator = getattr(owner, "generator", None)
        if isinstance(generator, torch.Generator):
            generator.manual_seed(seed)
    for owner in (*inner[1:], loader.dataset):
        tell(owner, epoch)


def tell(owner: object, epoch: int) -> None:
    """Which epoch it is, if it has a `set_epoch`."""
    set_epoch = getattr(owner, "set_epoch", None)
    if callable(set_epoch):
        set_epoch(epoch)
