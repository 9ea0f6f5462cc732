"""What nodes say, and whether they fit this machine."""

from __future__ import annotations

import pytest

from raydistill.cluster import probe
from raydistill.cluster.nodes import Node
from raydistill.cluster.survey import RayNode, Report, check_versions, is_head, last_line, nodes_of, size_of
from raydistill.errors import ResourceError

HERE = probe.versions()
SIZE = Node(4, 1)


def node(**resources: float) -> RayNode:
    return {"NodeID": "ab", "NodeManagerAddress": "10.0.0.1", "NodeManagerHostname": "box", "Alive": True,
            "Resources": resources}  # fmt: skip


def report(host: str, why: str = "", **versions: str) -> Report:
    return Report(
        "ab", host, SIZE, False, {} if why == "silent" else {**HERE, **versions}, None, "" if why == "silent" else why
    )


def test_a_node_as_ray_has_it() -> None:
    head = node(CPU=4, GPU=1, **{"node:__internal_head__": 1.0})
    assert (is_head(head), size_of(head)) == (True, SIZE)
    assert (is_head(node(CPU=2)), size_of(node(CPU=2))) == (False, Node(2, 0))
    assert size_of(node()) == Node(0, 0)


def test_the_heads_autoscaler_may_add_nodes() -> None:
    types = {"h": {"resources": {"CPU": 4}}, "w": {"resources": {"CPU": 8}, "max_workers": 2}}
    config = {"available_node_types": types, "head_node_type": "h", "max_workers": 2}
    head = Report("ab", "head", SIZE, True, HERE, config)  # type: ignore[arg-type]
    assert list(nodes_of([head, report("other")]))[:2] == [SIZE, SIZE]
    assert nodes_of([head]).more == 2
    assert nodes_of([report("alone")]).more == 0


def test_every_node_that_differs_is_a_line_and_another_torch_only_a_warning() -> None:
    said: list[str] = []
    check_versions([report("same"), report("torchy", torch="9.9"), report("quiet", "silent")], said.append)
    assert ["quiet" in line or "torchy" in line for line in said] == [True] * len(said)
    assert any("node quiet did not answer" in line for line in said)
    with pytest.raises(ResourceError) as caught:
        check_versions(
            [report("old", raydistill="0.0.1"), report("bare", raydistill=""), report("full", "no space")], said.append
        )
    ours = HERE["raydistill"]
    assert [str(fault) for fault in caught.value.faults] == [
        f"node old: has raydistill 0.0.1, this machine {ours}; install raydistill {ours} there",
        f"node bare: has no raydistill; install raydistill {ours} there",
        "node full: cannot run anything (no space); mend it and start Ray there again, or stop it there",
    ]


def test_what_lies_at_the_bottom_of_an_account() -> None:
    assert last_line(ValueError("above\n\n  the reason  \n")) == "the reason"
    assert len(last_line(ValueError("x" * 999))) == 200
