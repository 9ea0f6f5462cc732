"""Processes that train a trial though their driver, or the machine they run on, has been given up."""

from __future__ import annotations

from pathlib import Path

import ray

from raydistill.locks import LOCK, holder_of

_WAIT_S = 30.0
"""How long a trial waits for a process of a killed driver that still trains in its folder: Ray is about to end that."""


def patience_s(folder: Path) -> float:
    """How long to wait for whoever trains in this folder: not at all on a machine that Ray has lost.

    A machine that was cut off trains on for minutes; nobody can end that process, and nothing it does counts.
    """
    alive = {node["NodeManagerHostname"] for node in ray.nodes() if node["Alive"]}
    return _WAIT_S if holder_of(folder / LOCK) in alive else 0.0
