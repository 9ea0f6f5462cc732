"""The machines that Ray has."""

from __future__ import annotations

import os
from dataclasses import dataclass


@dataclass(frozen=True)
class Node:
    """One machine: its CPU cores and GPUs, as Ray counts them."""

    cpu: float
    gpu: float


def this_machine() -> Node:
    """What a Ray that is started here would have; needs no Ray."""
    import torch

    return Node(float(len(os.sched_getaffinity(0))), float(torch.cuda.device_count()))
