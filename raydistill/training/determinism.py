"""Seeds, threads and torch's deterministic mode, put back as they were when a run ends."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

from raydistill.datasets.split import raw_stream

_RANKS = 7
"""Keeps these seeds apart from the orders and crops that are drawn from (seed, epoch)."""


def seed_everything(seed: int) -> None:
    """Seed the global random states of torch, numpy and Python."""
    torch.manual_seed(seed)
    np.random.seed(seed % 2**32)
    random.seed(seed)


def epoch_seed(seed: int, epoch: int, rank: int) -> int:
    """A seed for one rank in one epoch, far from every other one's."""
    return int(raw_stream(1, seed, epoch, rank, _RANKS)[0] >> np.uint64(1))


@contextmanager
def training_environment(threads: int | None, deterministic: bool) -> Iterator[None]:
    """Inside: torch uses `threads` CPU threads (None: as it was) and, if asked, deterministic algorithms only."""
    before = (
        torch.get_num_threads(),
        (torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()),
        torch.backends.cudnn.benchmark,
        torch.backends.cudnn.deterministic,
    )
    if threads is not None:
        torch.set_num_threads(threads)
    if deterministic:
        # cuBLAS reads this when it starts; without it torch refuses deterministic matrix products on a GPU.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        _use_deterministic_algorithms(True, warn_only=False)
        torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.benchmark = not deterministic
    try:
        yield
    finally:
        torch.set_num_threads(before[0])
        _use_deterministic_algorithms(*before[1])
        torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic = before[2], before[3]


def _use_deterministic_algorithms(mode: bool, warn_only: bool) -> None:
    """Only where it changes something: torch imports its compiler for this, which takes a new process seconds."""
    now = (torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled())
    if now != (mode, warn_only):
        torch.use_deterministic_algorithms(mode, warn_only=warn_only)
