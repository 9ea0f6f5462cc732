"""What a trial gets, and what no cluster can give."""

from __future__ import annotations

import pytest

from raydistill.cluster.nodes import Node
from raydistill.errors import ResourceError
from raydistill.sweep.resources import Share, baseline_share, concurrent, trial_share
from raydistill.sweep.spec import ResourcesSection

CPU_BOX = [Node(2, 0)]
GPU_BOX = [Node(16, 4)]
MIXED = [Node(8, 0), Node(4, 2)]


@pytest.mark.parametrize(
    ("asked", "nodes", "expected", "at_once"),
    [
        (None, CPU_BOX, Share(1, 0), 2),
        (None, GPU_BOX, Share(1, 1), 4),
        (None, MIXED, Share(1, 1), 2),
        (ResourcesSection(gpu=0.25), GPU_BOX, Share(1, 0.25), 16),
        (ResourcesSection(gpu=0.1, cpu=0.1), [Node(1, 1)], Share(0.1, 0.1), 10),
        (ResourcesSection(cpu=0.5), CPU_BOX, Share(0.5, 0), 4),
        (ResourcesSection(cpu=2), CPU_BOX, Share(2, 0), 1),
        (ResourcesSection(cpu=3), MIXED, Share(3, 0), 3),
        (ResourcesSection(gpu=2, cpu=8), [Node(16, 4), Node(16, 4)], Share(8, 2), 4),
    ],
)
def test_share_and_concurrency(
    asked: ResourcesSection | None, nodes: list[Node], expected: Share, at_once: int
) -> None:
    share = trial_share(asked, nodes, "f.yaml: resources_per_trial")
    assert share == expected
    assert concurrent(share, nodes) == at_once


@pytest.mark.parametrize(
    ("asked", "nodes", "expected"),
    [
        (
            ResourcesSection(gpu=1),
            CPU_BOX,
            r"f.yaml: r.gpu: asks for more than any node has \(0\), got 1.0; leave it out",
        ),
        (ResourcesSection(cpu=9), CPU_BOX, r"f.yaml: r.cpu: asks for more than any node has \(2\), got 9.0; lower it"),
        (ResourcesSection(gpu=1.5), GPU_BOX, r"f.yaml: r.gpu: above one GPU must be a whole number, got 1.5"),
        (
            ResourcesSection(gpu=2, cpu=8),
            MIXED,
            r"f.yaml: r: no node has 2 GPU and 8 CPU together; the nodes have 8 CPU",
        ),
    ],
)
def test_what_cannot_be_given(asked: ResourcesSection, nodes: list[Node], expected: str) -> None:
    with pytest.raises(ResourceError, match=expected):
        trial_share(asked, nodes, "f.yaml: r")


def test_threads_and_device() -> None:
    assert [Share(cpu, 0).threads for cpu in (0.25, 1, 2, 2.5)] == [1, 1, 2, 2]
    assert (Share(1, 0.5).device, Share(1, 0).device) == ("cuda", "cpu")


def test_the_baseline_has_the_machine_to_itself() -> None:
    assert baseline_share(Share(1, 0), MIXED) == Share(8, 0)
    assert baseline_share(Share(1, 0.25), GPU_BOX) == Share(1, 1)
