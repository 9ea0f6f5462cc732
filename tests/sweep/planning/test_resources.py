"""What a trial gets, and what no cluster can give."""

from __future__ import annotations

import pytest

from raydistill.cluster.nodes import UNSIZED, Node, Nodes
from raydistill.errors import ResourceError
from raydistill.sweep.file.spec import ResourcesSection
from raydistill.sweep.planning.resources import Share, baseline_share, concurrent, must_wait, trial_share

CPU_BOX = [Node(2, 0)]
GPU_BOX = [Node(16, 4)]
MIXED = [Node(8, 0), Node(4, 2)]
HEAD = Node(1, 0)
LARGE = Node(16, 4, alive=False)
STARTS_GPUS = Nodes((HEAD,), (LARGE, LARGE, Node(4, 1, alive=False)), more=2)
STARTS_CPUS = Nodes((HEAD,), (Node(8, 0, alive=False),) * 3, more=3)
STARTS_UNKNOWN = Nodes((HEAD,), (UNSIZED, UNSIZED), more=2)


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
        (None, STARTS_GPUS, Share(1, 1), 8),  # the two largest of the three; the head has none
        (ResourcesSection(gpu=1), STARTS_GPUS, Share(1, 1), 8),
        (ResourcesSection(), STARTS_GPUS, Share(1, 0), 33),  # --cpu
        (ResourcesSection(cpu=8), STARTS_CPUS, Share(8, 0), 3),
        (None, STARTS_UNKNOWN, Share(1, 0), 2_000_001),
        (ResourcesSection(gpu=1), STARTS_UNKNOWN, Share(1, 1), 2_000_000),
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
        (ResourcesSection(gpu=1), CPU_BOX, r"f.yaml: r.gpu: asks for gpu: 1, the cluster has none; use --cpu to run "),
        (ResourcesSection(gpu=1), STARTS_CPUS, r"f.yaml: r.gpu: asks for gpu: 1, the cluster has none; use --cpu"),
        (ResourcesSection(cpu=9), CPU_BOX, r"f.yaml: r.cpu: asks for cpu: 9, the cluster has 2; lower it"),
        (ResourcesSection(cpu=9), MIXED, r"f.yaml: r.cpu: asks for cpu: 9, the largest node of the cluster has 8; low"),
        (ResourcesSection(gpu=1.5), GPU_BOX, r"f.yaml: r.gpu: above one GPU must be a whole number, got 1.5"),
        (
            ResourcesSection(gpu=2, cpu=8),
            MIXED,
            r"f.yaml: r: no node of the cluster has 2 GPU and 8 CPU together; its nodes have 4 CPU \+ 2 GPU, 8 CPU",
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


def test_the_baseline_waits_for_a_machine_only_where_it_must() -> None:
    assert baseline_share(Share(1, 0), STARTS_CPUS) == Share(1, 0)
    assert baseline_share(Share(2, 0), STARTS_CPUS) == Share(8, 0)
    assert baseline_share(Share(2, 0), STARTS_UNKNOWN) == Share(2, 0)
    assert baseline_share(Share(1, 0.25), STARTS_GPUS) == Share(1, 1)
    assert (must_wait(Share(1, 0), STARTS_CPUS), must_wait(Share(2, 0), STARTS_CPUS)) == (False, True)
