"""The machines that Ray has, and those that its autoscaler may still start."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypedDict, overload

_MANY = 1e6


@dataclass(frozen=True)
class Node:
    """One machine: its CPU cores and GPUs, as Ray counts them. alive: it is there, not merely to be had.

    Infinite amounts: the autoscaler does not say how large the machine is that it would start.
    """

    cpu: float
    gpu: float
    alive: bool = True


@dataclass(frozen=True)
class Nodes(Sequence[Node]):
    """alive: the machines now. startable: what the autoscaler may add to them, at most `more` of these at once."""

    alive: tuple[Node, ...]
    startable: tuple[Node, ...] = ()
    more: int = 0

    def __iter__(self) -> Iterator[Node]:
        yield from (*self.alive, *self.startable)

    def __len__(self) -> int:
        return len(self.alive) + len(self.startable)

    @overload
    def __getitem__(self, index: int) -> Node: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Node]: ...
    def __getitem__(self, index: int | slice) -> Node | Sequence[Node]:
        return (*self.alive, *self.startable)[index]


def this_machine() -> Node:
    """What a Ray that is started here would have; needs no Ray."""
    import torch

    return Node(float(len(os.sched_getaffinity(0))), float(torch.cuda.device_count()))


def fit(cpu: float, gpu: float, node: Node) -> int:
    """How many processes that each take this much fit on a node, a million at most."""
    fits = [_MANY, node.cpu / cpu, *([node.gpu / gpu] if gpu else [])]
    return math.floor(min(fits) + 1e-9)


def room(cpu: float, gpu: float, nodes: Sequence[Node]) -> int:
    """How many fit on all nodes together, when the cluster has grown as far as it may."""
    there = sum(fit(cpu, gpu, node) for node in nodes if node.alive)
    to_come = sorted((fit(cpu, gpu, node) for node in nodes if not node.alive), reverse=True)
    return there + sum(to_come[: nodes.more] if isinstance(nodes, Nodes) else to_come)


UNSIZED = Node(math.inf, math.inf, alive=False)


class NodeType(TypedDict, total=False):
    """What an autoscaler may start of one type."""

    max_workers: int
    resources: Mapping[str, float] | None


class Autoscaler(TypedDict, total=False):
    """What an autoscaler may start, by the names of the cluster's file."""

    available_node_types: Mapping[str, NodeType]
    head_node_type: str
    max_workers: int


def grown(alive: Sequence[Node], config: Autoscaler | None) -> Nodes:
    """The nodes of a cluster with those that its autoscaler may add.

    alive: the head first. config: ``available_node_types``, ``head_node_type`` and ``max_workers`` as in the cluster's
    file; None: it does not autoscale. Node types say their ``CPU`` and ``GPU``; one that says neither (machines reached
    by ssh) is of unknown size until its nodes are alive.
    """
    if config is None:
        return Nodes(tuple(alive))
    workers, types = list(alive[1:]), config["available_node_types"]
    startable: list[Node] = []
    for name, kind in types.items():
        most = kind.get("max_workers", 0 if name == config.get("head_node_type") else config["max_workers"])
        resources = kind.get("resources") or {}
        size = UNSIZED
        if "CPU" in resources or "GPU" in resources:
            size = Node(float(resources.get("CPU", 0)), float(resources.get("GPU", 0)), alive=False)
        like_it = [node for node in workers if size is UNSIZED or (node.cpu, node.gpu) == (size.cpu, size.gpu)]
        startable += [size] * max(0, most - len(like_it))
    return Nodes(tuple(alive), tuple(startable), max(0, config["max_workers"] - len(workers)))
