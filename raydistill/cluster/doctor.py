"""What is here, machine by machine, and what has to be mended before a sweep can run on it."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, cast

import ray

from raydistill.cluster import probe
from raydistill.cluster.address import Address
from raydistill.cluster.connect import joined
from raydistill.cluster.probe import MachineFacts
from raydistill.cluster.storage import Ask, check_storage
from raydistill.cluster.survey import RayNode, alive, is_head, last_line, on, size_of, version_faults
from raydistill.errors import ABSENT, Fault, RayLostError, ResourceError

if TYPE_CHECKING:
    from ray.actor import ActorHandle

ANSWER_S = 360.0
"""A process has to be started on the node, and another one that imports torch."""

_PINGS = 9
_SKEW_MS = 1000.0
_RAY_DISK_FULL = 0.95
"""Share of its disk above which Ray makes no more objects on a node."""


@dataclass(frozen=True)
class Machine:
    """One node. name: unique among them. cores, gpus: what the machine has; ray_gpus: what Ray gives to trials.

    memory_bytes, disk_bytes: its memory, and what is free where the storage is. skew_ms: its clock's lead over this
    machine's, and skew_error_ms, by how much that may be wrong; None for this machine alone. storage: "yes" or "no".
    """

    name: str
    head: bool
    versions: Mapping[str, str] = field(default_factory=dict)
    cores: int = 0
    memory_bytes: int = 0
    gpus: tuple[str, ...] = ()
    driver: str = ""
    ray_gpus: float = 0.0
    skew_ms: float | None = None
    skew_error_ms: float = 0.0
    disk_bytes: int | None = None
    storage: str = ""

    @property
    def answered(self) -> bool:
        return bool(self.versions)


@dataclass(frozen=True)
class Findings:
    """machines: the head first. here: this machine's versions. mend: what keeps a sweep from running. notes: what does
    not, but may surprise. ray: whether Ray could be joined or started."""

    machines: tuple[Machine, ...]
    here: Mapping[str, str]
    mend: tuple[Fault, ...]
    notes: tuple[str, ...]
    ray: bool


def examine(address: Address | None, storage: str, step: Callable[[str], None]) -> Findings:
    """Look at every node of the cluster at `address`, or at this machine with a Ray that is started for it.

    storage: an absolute folder, or a bucket's URI. step: told what comes next.
    """
    here = probe.versions()
    try:
        with joined(address):
            step("asking the nodes" if address is not None else "looking at this machine")
            return _cluster(here, storage)
    except RayLostError:
        raise
    except ResourceError as error:
        step("looking at this machine only")
        faults = [fault if isinstance(fault, Fault) else Fault("Ray", fault) for fault in error.faults]
        return _alone(here, storage, faults)


def _alone(here: Mapping[str, str], storage: str, faults: list[Fault]) -> Findings:
    """Without a Ray."""
    at = probe.Probe()
    found = at.machine()
    machine = _machine(str(found["host"]), False, found, 0.0)
    broken = check_storage(storage, {machine.name: lambda method, *given: getattr(at, method)(*given)})
    machine = replace(machine, disk_bytes=at.free(storage), storage="no" if broken else "yes")
    mend = [*faults, *_faults(machine, found, here, None), *broken.values()]
    return Findings((machine,), here, tuple(mend), (), False)


def _cluster(here: Mapping[str, str], storage: str) -> Findings:
    ray.cloudpickle.register_pickle_by_value(probe)
    nodes = alive()
    actor = ray.remote(num_cpus=0)(probe.Probe)
    probes = {node["NodeID"]: actor.options(scheduling_strategy=on(node["NodeID"])).remote() for node in nodes}
    looks = {probes[node["NodeID"]].machine.remote(): node for node in nodes}
    ray.wait(list(looks), num_returns=len(looks), timeout=ANSWER_S)
    machines: list[Machine] = []
    mend: list[Fault] = []
    notes: list[str] = []
    asks: dict[str, Ask] = {}
    names = _names(nodes)
    mine = ray.get_runtime_context().get_node_id()
    for look, node in looks.items():
        name = names[node["NodeID"]]
        found, why = _answer(look)
        if found is None:
            machines.append(Machine(name, is_head(node)))
            mend.append(Fault(f"node {name}", why, ABSENT, "look at 'ray status' and at its logs, or take it out"))
            continue
        machine = _machine(name, is_head(node), found, size_of(node).gpu)
        ask = _asking(probes[node["NodeID"]], name)
        skew, error = _skew(ask)
        machine = replace(machine, skew_ms=skew, skew_error_ms=error)
        machines.append(machine)
        mend += _faults(machine, found, here, size_of(node).gpu)
        notes += _notes(machine, here)
        asks = {name: ask, **asks} if node["NodeID"] == mine else {**asks, name: ask}
    broken = check_storage(storage, asks) if asks else {}
    machines = [
        replace(m, disk_bytes=asks[m.name]("free", storage), storage="no" if m.name in broken else "yes")
        if m.name in asks
        else m
        for m in machines
    ]
    return Findings(tuple(machines), here, (*mend, *broken.values()), tuple(notes), True)


def _machine(name: str, head: bool, found: MachineFacts, ray_gpus: float) -> Machine:
    return Machine(
        name=name,
        head=head,
        versions=found["versions"],
        cores=int(found["cores"] or 0),
        memory_bytes=found["memory"],
        gpus=tuple(gpu["name"] for gpu in found["gpus"]),
        driver=", ".join(sorted({gpu["driver"] for gpu in found["gpus"]})),
        ray_gpus=ray_gpus,
    )


def _faults(machine: Machine, found: MachineFacts, here: Mapping[str, str], ray_gpus: float | None) -> list[Fault]:
    """What is wrong with one machine by itself; ray_gpus: how many Ray has there, None without a Ray."""
    where = f"node {machine.name}"
    faults = version_faults(machine.name, machine.versions, here)
    torch, gpus = found["torch"], len(machine.gpus)
    if torch["error"] and machine.versions["torch"]:
        faults.append(Fault(where, f"torch does not start ({torch['error']})", ABSENT, "install it again"))
    elif torch["gpus"] < max(gpus, ray_gpus or 0):
        has = f"has {gpus} GPUs" if gpus else f"has {ray_gpus:g} GPUs by Ray's count, none by nvidia-smi's"
        built = f"a build for CUDA {torch['cuda']}" if torch["cuda"] else "a build without CUDA"
        way_out = "install a torch that fits its driver" if gpus else "mend its driver, or start Ray with --num-gpus=0"
        faults.append(Fault(where, f"{has}, torch ({built}) can use {torch['gpus']}", ABSENT, way_out))
    if ray_gpus is not None and ray_gpus < gpus:
        rule = f"has {gpus} GPUs, Ray gives {ray_gpus:g} of them to trials"
        faults.append(Fault(where, rule, ABSENT, "start Ray there without --num-gpus, or with all of them"))
    if machine.skew_ms is not None and abs(machine.skew_ms) - machine.skew_error_ms > _SKEW_MS:
        rule = f"its clock is {machine.skew_ms:+.0f} ms off this machine's"
        faults.append(Fault(where, rule, ABSENT, "run chrony or another NTP service on both"))
    disk = found["ray_disk"]
    if disk is not None and disk[0] < (1 - _RAY_DISK_FULL) * disk[1]:
        rule = f"the disk of Ray's own files is full to {100 * (1 - disk[0] / disk[1]):.0f} %"
        faults.append(Fault(where, rule, ABSENT, "free some space there: above 95 % Ray makes no objects"))
    return faults


def _notes(machine: Machine, here: Mapping[str, str]) -> list[str]:
    there = machine.versions["torch"]
    if not there or there == here["torch"]:
        return []
    return [f"node {machine.name} has torch {there}, this machine {here['torch']}: results may differ"]


def _names(nodes: list[RayNode]) -> dict[str, str]:
    """Host names, with the beginning of Ray's id behind those that several nodes share."""
    count = Counter(node["NodeManagerHostname"] for node in nodes)
    ids = [node["NodeID"] for node in nodes]
    length = next(n for n in range(4, 57) if n == 56 or len({one[-n:] for one in ids}) == len(ids))
    return {
        node["NodeID"]: node["NodeManagerHostname"]
        + (f"/{node['NodeID'][-length:]}" if count[node["NodeManagerHostname"]] > 1 else "")
        for node in nodes
    }


def _answer(look: ray.ObjectRef) -> tuple[MachineFacts | None, str]:
    """(what a node says, why it does not)."""
    try:
        return cast(MachineFacts, ray.get(look, timeout=0)), ""
    except ray.exceptions.GetTimeoutError:
        return None, f"does not answer within {ANSWER_S:g} s"
    except ray.exceptions.RayError as error:
        return None, f"cannot run anything ({last_line(error)})"


def _asking(actor: ActorHandle, name: str) -> Ask:
    def ask(method: str, *given: object) -> object:
        try:
            return ray.get(getattr(actor, method).remote(*given), timeout=60)
        except ray.exceptions.RayError as error:
            raise ResourceError(Fault(f"node {name}", "was lost while it was looked at")) from error

    return ask


def _skew(ask: Ask) -> tuple[float, float]:
    """(lead of a node's clock over this one's, its uncertainty), milliseconds.

    Of several questions the quickest counts: its answer was given at most half its round trip from its middle.
    """
    best = (0.0, float("inf"))
    for _ in range(_PINGS):
        before = time.time_ns()
        there = ask("clock")
        after = time.time_ns()
        if (after - before) / 2e6 < best[1]:
            best = (there - (before + after) / 2) / 1e6, (after - before) / 2e6
    return best
