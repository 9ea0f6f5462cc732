"""Processes that train a trial though their driver, or the machine they run on, has been given up."""

from __future__ import annotations

from pathlib import Path

import ray

from raydistill.cluster.worker import ORPHAN_WAIT_S
from raydistill.locks import LOCK, holder_of


def patience_s(folder: Path) -> float:
    """How long to wait for whoever trains in this folder: not at all on a machine that Ray has lost.

    A machine that was cut off trains on for minutes; nobody can end that process, and nothing it does counts.
    """
    alive = {node["NodeManagerHostname"] for node in ray.nodes() if node["Alive"]}
    return ORPHAN_WAIT_S if holder_of(folder / LOCK) in alive else 0.0
