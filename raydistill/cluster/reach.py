"""Is there a cluster at an address, does it let us in, is it of our versions? Answered in a line within seconds.

Ray itself would try for a minute, say so on stderr every second, and end in a traceback.
"""

from __future__ import annotations

import json
import os
import platform
import socket
from collections.abc import Callable, Mapping
from queue import Empty, Queue
from threading import Thread
from typing import Protocol, TypeVar, cast

import ray
from ray._private import services
from ray.core.generated.gcs_pb2 import GcsNodeInfo

from raydistill.cluster.address import Address
from raydistill.cluster.nodes import Node
from raydistill.cluster.quiet import silent_stderr
from raydistill.errors import ABSENT, Fault, ResourceError

_CONNECT_S = 5.0
_ANSWER_S = 20.0
_SETTINGS = 4
_ALIVE = GcsNodeInfo.ALIVE
_MODE = "RAY_AUTH_MODE"
_Refused = getattr(ray.exceptions, "AuthenticationError", ray.exceptions.RaySystemError)  # older Rays have no tokens
T = TypeVar("T")


class _Head(Protocol):
    """What a cluster's head is asked by."""

    def internal_kv_get(self, key: bytes, *, namespace: bytes, timeout: float) -> bytes | None: ...

    def get_all_node_info(self, *, timeout: float) -> Mapping[object, GcsNodeInfo]: ...


_ELSEWHERE = "check 'ray status' there, or leave --address out"


def reach(address: Address) -> str:
    """The cluster's ``host:port``.

    Raises:
        ResourceError: nothing answers there, what answers is no Ray, refuses our token, or runs another Ray or Python.
    """
    target = _here(address) if address.value == "auto" else address.value
    where = address.where
    if "://" in target:
        way_out = "give HOST:6379 from a machine of the cluster, or submit the command as a Ray job"
        raise ResourceError(Fault(where, "must be host:port, a Ray client's address does not do", ABSENT, way_out))
    host, _, port = target.rpartition(":")
    if not host or not port.isdigit():
        raise ResourceError(Fault(where, "must be host:port", ABSENT, "as 'ray start --head' prints it"))
    try:
        speaks = socket.create_connection((host.strip("[]"), int(port)), timeout=_CONNECT_S)
    except (OSError, OverflowError) as error:
        raise ResourceError(Fault(where, f"nothing answers there ({error})", ABSENT, _way_out(address))) from error
    with speaks:
        if not _speaks_http2(speaks):
            raise ResourceError(_no_head(where))
    _check_same_versions(_cluster_metadata(target, where), where)
    return target


def nodes_there(address: Address) -> tuple[str, list[Node]]:
    """The cluster's ``host:port`` and its machines as they are now; nothing is started there, and it is not joined.

    What an autoscaler may add to them only a process on the head would know.

    Raises:
        ResourceError: as `reach`.
    """
    target = reach(address)
    try:
        with silent_stderr():
            return target, _ask(target, _sizes)
    except (ray.exceptions.RayError, RuntimeError, TimeoutError) as error:
        raise ResourceError(_no_head(address.where)) from error


def _speaks_http2(there: socket.socket) -> bool:
    """Whether the first frame that comes back is one of settings (RFC 9113, section 3.4), as from any gRPC server.

    Ray's own client must not be shown anything else: it waits for good, on a thread that brings the process down at
    its end.
    """
    if os.environ.get("RAY_USE_TLS", "0") not in ("", "0"):
        return True  # it would have to be asked in TLS
    there.settimeout(_ANSWER_S)
    header = b""
    try:
        there.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, _SETTINGS, 0, 0, 0, 0, 0]))
        while len(header) < 9 and (more := there.recv(9 - len(header))):
            header += more
    except OSError:
        return False
    return len(header) == 9 and header[3] == _SETTINGS


def _no_head(where: str) -> Fault:
    rule = "what answers there is not a Ray cluster's head"
    return Fault(where, rule, ABSENT, "give its address as 'ray start --head' prints it")


def _here(address: Address) -> str:
    try:
        with silent_stderr():
            return str(services.canonicalize_bootstrap_address_or_die("auto"))
    except (ConnectionError, ValueError) as error:
        way_out = "start one with 'ray start --head', or leave --address out for a Ray of this command's own"
        raise ResourceError(Fault(address.where, "no Ray runs on this machine", ABSENT, way_out)) from error


def _way_out(address: Address) -> str:
    return _ELSEWHERE if address.source == "--address" else f"unset {address.source}, or give --address local"


def _cluster_metadata(target: str, where: str) -> dict[str, str]:
    """What the cluster's head has written down about itself.

    A cluster with token authentication lets nobody in without its token. One without must not be sent any: its actors
    would die at once, as Ray's own processes could not talk back to a driver that wants one.
    """
    try:
        with silent_stderr():
            try:
                content = _ask(target, _metadata)
            except _Refused:
                loader = ray._raylet.AuthenticationTokenLoader.instance()
                if not loader.has_token(ignore_auth_mode=True) or os.environ.setdefault(_MODE, "token") != "token":
                    raise  # there is none, or the user has said that none is to be sent
                ray._raylet.Config.initialize("")  # Ray has read the variable when it was imported
                content = _ask(target, _metadata)
    except _Refused as error:
        rule = "the cluster wants a token, and does not accept this machine's"
        way_out = "copy ~/.ray/auth_token from its head to this machine, or set RAY_AUTH_TOKEN"
        raise ResourceError(Fault(where, rule, ABSENT, way_out)) from error
    except (ray.exceptions.RayError, RuntimeError, TimeoutError) as error:
        raise ResourceError(_no_head(where)) from error
    return dict(json.loads(content)) if content else {}


def _metadata(client: _Head) -> bytes | None:
    found: bytes | None = client.internal_kv_get(b"CLUSTER_METADATA", namespace=b"cluster", timeout=_CONNECT_S)
    return found


def _sizes(client: _Head) -> list[Node]:
    nodes = client.get_all_node_info(timeout=_CONNECT_S).values()
    totals = [dict(node.resources_total) for node in nodes if node.state == _ALIVE]
    return [Node(float(total.get("CPU", 0)), float(total.get("GPU", 0))) for total in totals]


def _ask(target: str, question: Callable[[_Head], T]) -> T:
    """Raises TimeoutError where what answers says nothing that Ray understands; by itself Ray would try on and on."""
    said: Queue[tuple[T | None, BaseException | None]] = Queue()

    def ask() -> None:
        try:
            said.put((question(ray._raylet.GcsClient(address=target)), None))
        except BaseException as error:
            said.put((None, error))

    Thread(target=ask, daemon=True).start()
    try:
        answer, error = said.get(timeout=_ANSWER_S)
    except Empty as empty:
        raise TimeoutError from empty
    if error is not None:
        raise error
    return cast(T, answer)


def _check_same_versions(cluster: dict[str, str], where: str) -> None:
    """Ray as a whole, Python to the minor version: what is sent between processes is pickled."""
    here = {"Ray": ray.__version__, "Python": platform.python_version()}
    there = {"Ray": cluster.get("ray_version", here["Ray"]), "Python": cluster.get("python_version", here["Python"])}
    parts = {"Ray": None, "Python": 2}  # how much of each version has to be the same
    differ = [name for name, n in parts.items() if here[name].split(".")[:n] != there[name].split(".")[:n]]
    if differ:
        ours, theirs = (", ".join(f"{name} {found[name]}" for name in differ) for found in (here, there))
        way_out = f"install {theirs} here, or the cluster's nodes as this machine"
        raise ResourceError(Fault(where, f"the cluster runs {theirs}, this machine {ours}", ABSENT, way_out))
