"""How far a cluster may grow, from what its autoscaler was started with."""

from __future__ import annotations

from typing import Any

from raydistill.cluster.nodes import UNSIZED, Node, grown

HEAD, SMALL, GPU = Node(2, 0), Node(4, 0), Node(8, 1)


def config(max_workers: int, **types: dict[str, Any]) -> dict[str, Any]:
    return {
        "head_node_type": "head",
        "max_workers": max_workers,
        "available_node_types": {"head": {"resources": {"CPU": 2}, "max_workers": 0}, **types},
    }


def sizes(*nodes: Node) -> list[tuple[float, float]]:
    return [(node.cpu, node.gpu) for node in nodes]


def test_a_cluster_that_does_not_grow() -> None:
    nodes = grown([HEAD, SMALL], None)
    assert list(nodes) == [HEAD, SMALL]
    assert (len(nodes), nodes[1], nodes.more) == (2, SMALL, 0)
    assert list(grown([HEAD], {"available_node_types": {}, "max_workers": 0})) == [HEAD]


def test_workers_from_zero() -> None:
    types = {"spot": {"resources": {"CPU": 8, "GPU": 1}, "max_workers": 2}, "cpu": {"resources": {"CPU": 4}}}
    nodes = grown([HEAD], config(3, **types))
    assert nodes.alive == (HEAD,)
    assert sizes(*nodes.startable) == [(8, 1)] * 2 + [(4, 0)] * 3  # a type without a limit has the cluster's
    assert nodes.more == 3
    assert not any(node.alive for node in nodes.startable)


def test_workers_that_are_there_are_not_counted_twice() -> None:
    types = {"gpu": {"resources": {"CPU": 8, "GPU": 1}, "max_workers": 2}, "cpu": {"resources": {"CPU": 4}}}
    nodes = grown([HEAD, GPU, GPU], config(3, **types))
    assert sizes(*nodes.startable) == [(4, 0)] * 3
    assert nodes.more == 1
    full = grown([HEAD, GPU, GPU, SMALL, SMALL], config(3, **types))
    assert full.more == 0


def test_machines_reached_by_ssh_have_no_size_until_they_are_alive() -> None:
    local = {
        "head_node_type": "local.cluster.node",
        "max_workers": 2,
        "available_node_types": {"local.cluster.node": {"resources": {}, "max_workers": 2}},
    }
    assert list(grown([SMALL], local)) == [SMALL, UNSIZED, UNSIZED]
    assert list(grown([SMALL, GPU], local)) == [SMALL, GPU, UNSIZED]
    assert list(grown([SMALL, GPU, GPU], local)) == [SMALL, GPU, GPU]
