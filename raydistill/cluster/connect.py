"""A local Ray, started quietly, or a cluster that is there."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Callable, Iterable, Iterator

import ray
from ray.job_config import JobConfig

from raydistill.cluster.address import OPTION, Address
from raydistill.cluster.modules import runtime_env
from raydistill.cluster.nodes import Nodes
from raydistill.cluster.quiet import quieten
from raydistill.cluster.reach import reach
from raydistill.cluster.signals import own_signals
from raydistill.cluster.survey import check_versions, nodes_of, survey
from raydistill.cluster.watch import RayGone, watched
from raydistill.errors import ABSENT, Fault, RayLostError, ResourceError

_OBJECT_STORE_FLOOR = 512 * 1024**2


def _ignore(_: object) -> None:
    pass


@contextlib.contextmanager
def connected(
    address: Address | str | None,
    dataset_bytes: int,
    modules: Iterable[str] = (),
    warn: Callable[[str], None] = _ignore,
    on_lost: Callable[[RayLostError], None] = _ignore,
) -> Iterator[Nodes]:
    """Ray while the block runs; gives the nodes. A local object store is made to hold the dataset twice over.

    modules: the user's own, by top-level name; a cluster's nodes are sent them. warn: takes a line about something that
    will do, but should be known. on_lost: called, on another thread, when Ray has gone (see `watch.watched`).

    Raises:
        ResourceError: no cluster at `address`, one whose versions do not fit, or Ray cannot start here.
        ConfigError: a module is too large to be sent.
    """
    address = Address(address, OPTION) if isinstance(address, str) else address
    with joined(address, dataset_bytes, modules, on_lost):
        reports = survey() if address is not None else []
        check_versions(reports, warn)
        yield nodes_of(reports)


@contextlib.contextmanager
def joined(
    address: Address | None,
    dataset_bytes: int = 0,
    modules: Iterable[str] = (),
    on_lost: Callable[[RayLostError], None] = _ignore,
) -> Iterator[None]:
    """As `connected`, whatever the nodes are like.

    Raises:
        RayLostError: Ray has gone while the block ran, which saw a `RayGone`.
    """
    quieten()
    if address is None:
        _start(dataset_bytes)
    else:
        _join(address, modules)
    try:
        with watched("Ray" if address is None else address.where, on_lost):
            yield
    except RayGone as gone:
        raise gone.error from None  # no shutdown: it would wait for what has gone
    except BaseException:
        _shut_down()
        raise
    _shut_down()


def _shut_down() -> None:
    with own_signals():  # it leaves SIGTERM to the operating system
        try:
            ray.shutdown()
        except KeyboardInterrupt:  # half of it would end this process by itself, with an exit code of its own
            ray.shutdown()
            raise


def put(value: object, size_bytes: int) -> ray.ObjectRef:
    """A reference to a dataset in Ray's object store, where all of a cluster's processes can read it.

    Raises:
        ResourceError: neither the store nor the disk behind it has room for its `size_bytes`.
    """
    try:
        return ray.put(value)
    except (ray.exceptions.ObjectStoreFullError, ray.exceptions.OutOfDiskError) as error:
        rule = (
            f"Ray's object store has no room for the dataset ({size_bytes / 2**20:.0f} MB), nor has the disk behind it"
        )
        way_out = "free disk space there, or start Ray with a larger --object-store-memory"
        raise ResourceError(Fault("this machine's Ray", rule, ABSENT, way_out)) from error


def _start(dataset_bytes: int) -> None:
    memory = max(_OBJECT_STORE_FLOOR, 2 * dataset_bytes + _OBJECT_STORE_FLOOR // 2)
    try:
        with own_signals():
            ray.init(
                address="local",
                job_config=_OwnPath(),
                num_cpus=len(os.sched_getaffinity(0)),
                object_store_memory=memory,
                include_dashboard=False,
                log_to_driver=False,
                logging_level=logging.CRITICAL,
            )
    except Exception as error:  # a plain one where its processes take too long to come up
        raise ResourceError(Fault("Ray", f"cannot start ({_reason(error)})", ABSENT, "free memory or disk")) from error


def _join(address: Address, modules: Iterable[str]) -> None:
    target = reach(address)
    sent = runtime_env(modules, os.environ.get("RAY_JOB_CONFIG_JSON_ENV_VAR"))
    try:
        with own_signals():
            ray.init(
                address=target,
                job_config=_OwnPath(),
                runtime_env=sent,
                log_to_driver=False,
                logging_level=logging.CRITICAL,
            )
    except Exception as error:
        way_out = "check 'ray status' there, or leave --address out"
        raise ResourceError(Fault(address.where, f"cannot be joined ({_reason(error)})", ABSENT, way_out)) from error


def _reason(error: BaseException) -> str:
    """The first line of the innermost cause: what lies above it only says that something went wrong."""
    while error.__cause__ is not None:
        error = error.__cause__
    return str(error).strip().partition("\n")[0]


class _OwnPath(JobConfig):
    """Ray puts the driver's working folder first on its processes' import path, where a file of any library's name
    hides that library. `resolve` finds the user's modules there as well, last.
    """

    def _runtime_env_has_working_dir(self) -> bool:
        return True
