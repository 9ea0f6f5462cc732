"""Processes that train a trial though their driver, or the machine they run on, has been given up."""

from __future__ import annotations

from pathlib import Path

import ray

from raydistill.sweep.locks import holder_of

ORPHAN_WAIT_S = 30.0
"""How long a trial waits for a process of a killed driver that still trains it: Ray is about to end that."""


def patience_s(lock: Path) -> float:
    """How long to wait for whoever has this lock: not at all on a machine that Ray has lost.

    A machine that was cut off trains on for minutes; nobody can end that process, and nothing it does counts.
    """
    alive = {node["NodeManagerHostname"] for node in ray.nodes() if node["Alive"]}
    return ORPHAN_WAIT_S if holder_of(lock) in alive else 0.0
