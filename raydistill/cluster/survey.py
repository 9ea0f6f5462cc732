"""What the nodes of a cluster say about themselves: versions, and what the autoscaler may add to them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypedDict, cast

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from raydistill.cluster import probe
from raydistill.cluster.nodes import Autoscaler, Node, Nodes, grown
from raydistill.cluster.probe import Facts
from raydistill.errors import ABSENT, Fault, ResourceError

_ANSWER_S = 60.0
"""A process has to be started on the node; what it does there takes no time."""


@dataclass(frozen=True)
class Report:
    """One node. node_id: Ray's. host: its name. versions: by package, "" where it is missing; empty: no answer.

    why: what kept it from answering, in Ray's words; "" if it only took too long.
    """

    node_id: str
    host: str
    size: Node
    head: bool
    versions: Mapping[str, str] = field(default_factory=dict)
    autoscaler: Autoscaler | None = None
    why: str = ""


class RayNode(TypedDict):
    """A node in Ray's own account of its cluster, as far as it is read."""

    NodeID: str
    NodeManagerAddress: str
    NodeManagerHostname: str
    Alive: bool
    Resources: dict[str, float]


def survey() -> list[Report]:
    """Ask every node that is alive, the head first. One that does not answer has no versions."""
    port = ray.get_runtime_context().gcs_address.rpartition(":")[2]
    ray.cloudpickle.register_pickle_by_value(probe)
    task = ray.remote(num_cpus=0, max_retries=0)(probe.facts)
    nodes = alive()
    asked = {task.options(scheduling_strategy=on(node["NodeID"])).remote(port): node for node in nodes}
    answered, _ = ray.wait(list(asked), num_returns=len(asked), timeout=_ANSWER_S)
    reports = []
    for reference, node in asked.items():
        found, why = _answer(reference) if reference in answered else ({}, "")
        reports.append(
            Report(
                node["NodeID"],
                found.get("host") or node["NodeManagerHostname"],
                size_of(node),
                is_head(node),
                found.get("versions", {}),
                found.get("autoscaler"),
                why,
            )
        )
    return reports


def cannot_run(address: str) -> str:
    """Why a node at an IP address can start no process; "" if each can, is not there, or does not say in time."""
    task = ray.remote(num_cpus=0, max_retries=0)(_run_something)
    nodes = [node["NodeID"] for node in alive() if node["NodeManagerAddress"] == address]
    runs = [task.options(scheduling_strategy=on(node)).remote() for node in nodes]
    answered, _ = ray.wait(runs, num_returns=len(runs), timeout=_ANSWER_S) if runs else ([], [])
    for run in answered:
        try:
            ray.get(run)
        except (ray.exceptions.WorkerCrashedError, ray.exceptions.RuntimeEnvSetupError) as error:
            return last_line(error)
        except ray.exceptions.RayError:
            continue
    return ""


def _run_something() -> None:
    pass


def alive() -> list[RayNode]:
    """Ray's own account of the nodes that are alive, the head first."""
    return sorted((node for node in ray.nodes() if node["Alive"]), key=lambda node: not is_head(node))


def is_head(node: RayNode) -> bool:
    return "node:__internal_head__" in node["Resources"]


def size_of(node: RayNode) -> Node:
    return Node(float(node["Resources"].get("CPU", 0)), float(node["Resources"].get("GPU", 0)))


def on(node_id: str) -> NodeAffinitySchedulingStrategy:
    """Scheduled there and nowhere else."""
    return NodeAffinitySchedulingStrategy(node_id, soft=False)


def nodes_of(reports: Sequence[Report]) -> Nodes:
    """The nodes, with what the head's autoscaler may add. Without reports (a Ray of our own): those that Ray has."""
    if not reports:
        return Nodes(tuple(size_of(node) for node in alive()))
    return grown([report.size for report in reports], reports[0].autoscaler)


def check_versions(reports: Sequence[Report], warn: Callable[[str], None]) -> None:
    """Each node must have this raydistill and run what it is sent; another torch there is a warning.

    A node that can start nothing (its disk is full) would fail one trial after the other.

    Raises:
        ResourceError: the nodes that cannot, lack it, or have another version; one line each.
    """
    here, faults = probe.versions(), []
    for report in reports:
        if report.why:
            rule = f"cannot run anything ({report.why})"
            faults.append(
                Fault(f"node {report.host}", rule, ABSENT, "mend it and start Ray there again, or stop it there")
            )
            continue
        if not report.versions:
            warn(f"node {report.host} did not answer within {_ANSWER_S:g} s; trials may wait for it")
            continue
        faults += version_faults(report.host, report.versions, here)
        if report.versions["torch"] != here["torch"]:
            there = report.versions["torch"] or "no torch"
            warn(f"node {report.host} has torch {there}, this machine {here['torch']}: results may differ")
    if faults:
        raise ResourceError(*faults)


def version_faults(host: str, versions: Mapping[str, str], here: Mapping[str, str]) -> list[Fault]:
    """What keeps a node from working with this driver: another Python or raydistill than here, or no torch."""
    faults = []
    for name in ("python", "raydistill", "torch"):
        there, mine = versions[name], here[name]
        if name == "python":
            there, mine = (".".join(version.split(".")[:2]) for version in (there, mine))
        if there == mine or (name == "torch" and there):
            continue
        title = name.capitalize() if name == "python" else name
        rule = f"has {title} {there}, this machine {mine}" if there else f"has no {title}"
        faults.append(Fault(f"node {host}", rule, ABSENT, f"install {title} {mine} there"))
    return faults


def _answer(reference: ray.ObjectRef) -> tuple[Facts, str]:
    """(what a node says, why it says nothing). A node that has gone meanwhile is not waited for, and no complaint."""
    try:
        return cast(Facts, ray.get(reference)), ""
    except (ray.exceptions.NodeDiedError, ray.exceptions.TaskUnschedulableError):
        return {}, ""
    except ray.exceptions.RayError as error:
        return {}, last_line(error)


def last_line(error: Exception) -> str:
    """Of Ray's account of an error: what lies at its bottom."""
    return str(error).strip().splitlines()[-1].strip()[:200]
