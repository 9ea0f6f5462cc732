"""How long a trial waits for who trains in its folder: for a process on a machine that is there, and for no other."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from raydistill.cluster.connect import connected
from raydistill.locks import LOCK
from raydistill.sweep.trial.orphans import patience_s


@pytest.mark.ray
@pytest.mark.slow
def test_it_waits_for_machines_that_ray_has(tmp_path: Path) -> None:
    import ray

    with connected(None, 0):
        (host,) = {node["NodeManagerHostname"] for node in ray.nodes()}
        found = {}
        for name in (host, "a-machine-that-is-gone", ""):
            folder = tmp_path / (name or "nobody")
            folder.mkdir()
            if name:
                (folder / LOCK).write_text(f"process {os.getpid()} on {name}\n")
            found[name] = patience_s(folder)
    assert found == {host: 30.0, "a-machine-that-is-gone": 0.0, "": 0.0}
