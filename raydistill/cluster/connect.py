"""A local Ray, started quietly, or a cluster that is there."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import sys
from collections.abc import Iterator

import ray

from raydistill.cluster.nodes import Node
from raydistill.cluster.quiet import quieten
from raydistill.errors import ABSENT, Fault, ResourceError

_OBJECT_STORE_FLOOR = 512 * 1024**2
_CONNECT_S = 5.0


@contextlib.contextmanager
def connected(address: str | None, dataset_bytes: int) -> Iterator[list[Node]]:
    """Ray while the block runs; gives the nodes. A local object store is made to hold the dataset twice over.

    Raises:
        ResourceError: no cluster at `address`, or Ray cannot start here.
    """
    quieten()
    _share_import_path()
    try:
        if address is None:
            memory = max(_OBJECT_STORE_FLOOR, 2 * dataset_bytes + _OBJECT_STORE_FLOOR // 2)
            ray.init(
                address="local",
                num_cpus=len(os.sched_getaffinity(0)),
                object_store_memory=memory,
                include_dashboard=False,
                log_to_driver=False,
                logging_level=logging.CRITICAL,
            )
        else:
            _check_answers(address)
            ray.init(address=address, log_to_driver=False, logging_level=logging.CRITICAL)
    except (ConnectionError, RuntimeError, ValueError, OSError) as error:
        reason = str(error).strip().partition("\n")[0]
        where = "Ray" if address is None else f"--address {address}"
        way_out = "free memory or disk space" if address is None else "check 'ray status' there, or leave --address out"
        raise ResourceError(Fault(where, f"cannot be reached ({reason})", ABSENT, way_out)) from error
    try:
        yield [
            Node(float(node["Resources"].get("CPU", 0)), float(node["Resources"].get("GPU", 0)))
            for node in ray.nodes()
            if node["Alive"]
        ]
    finally:
        ray.shutdown()


def _check_answers(address: str) -> None:
    """Ray itself would try for a minute, and say so on stderr every second."""
    if address == "auto":
        return
    where = f"--address {address}"
    if "://" in address:
        way_out = "give HOST:6379 from a machine of the cluster, or submit the command as a Ray job"
        raise ResourceError(Fault(where, "must be host:port, a Ray client's address does not do", ABSENT, way_out))
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit():
        raise ResourceError(Fault(where, "must be host:port", ABSENT, "as 'ray start --head' prints it"))
    try:
        socket.create_connection((host, int(port)), timeout=_CONNECT_S).close()
    except (OSError, OverflowError) as error:
        way_out = "check 'ray status' there, or leave --address out"
        raise ResourceError(Fault(where, f"nothing answers there ({error})", ABSENT, way_out)) from error


def _share_import_path() -> None:
    """A user's ``pkg.mod:factory`` in the working folder must be importable in the trials' processes too."""
    paths = [path for path in (os.environ.get("PYTHONPATH") or "").split(os.pathsep) if path]
    here = os.getcwd()
    if here in sys.path and here not in paths:
        os.environ["PYTHONPATH"] = os.pathsep.join([*paths, here])
