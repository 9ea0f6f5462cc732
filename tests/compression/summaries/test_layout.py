"""Where boxes stand: hand-worked cases, and what must hold for any graph."""

from __future__ import annotations

import random

import pytest

from raydistill.compression.summaries.layout import layout


def test_a_chain_is_one_column() -> None:
    plan = layout([(), (0,), (1,), (2,)])
    assert (plan.row, plan.track, plan.tracks, plan.lanes) == ((0, 1, 2, 3), (0, 0, 0, 0), 1, 0)
    assert [(edge.source, edge.target, edge.lane) for edge in plan.edges] == [(0, 1, None), (1, 2, None), (2, 3, None)]


def test_a_shortcut_takes_a_lane_and_a_branch_with_boxes_a_track() -> None:
    # input -> conv1 -> conv2 -> add1 (and input); add1 -> conv3 -> conv4 -> add2 (and add1 -> downsample)
    plan = layout([(), (0,), (1,), (2, 0), (3,), (4,), (3,), (5, 6)])
    assert plan.row == (0, 1, 2, 3, 4, 5, 4, 6)
    assert plan.track == (0, 0, 0, 0, 0, 0, 1, 0)
    edges = {(edge.source, edge.target): edge for edge in plan.edges}
    assert [pair for pair, edge in edges.items() if edge.lane is not None] == [(0, 3)]
    assert (edges[3, 6].track, edges[6, 7].track, edges[5, 7].track) == (1, 1, 0)
    assert (plan.tracks, plan.lanes) == (2, 1)


def test_parallel_shortcuts_one_after_another_share_a_lane_and_nested_ones_do_not() -> None:
    one_after_another = layout([(), (0,), (1, 0), (2,), (3, 2)])
    assert one_after_another.lanes == 1
    nested = layout([(), (0,), (1,), (2, 1), (3,), (4, 0)])
    assert nested.lanes == 2
    lanes = {edge.source: edge.lane for edge in nested.edges if edge.lane is not None}
    assert lanes == {1: 0, 0: 1}, "the short one is the nearer one"


@pytest.mark.parametrize("seed", range(60))
def test_no_line_runs_through_a_box_or_along_another(seed: int) -> None:
    rng = random.Random(seed)
    size = rng.randint(2, 40)
    inputs: list[tuple[int, ...]] = [()]
    for box in range(1, size):
        near = range(max(0, box - rng.choice((1, 3, 10))), box)
        inputs.append(tuple(sorted(set(rng.choices(near, k=rng.choice((1, 1, 1, 2, 3)))))))
    plan = layout(inputs)
    pairs = {(source, target) for target, above in enumerate(inputs) for source in above}
    assert {(edge.source, edge.target) for edge in plan.edges} == pairs
    assert len(plan.edges) == len(pairs)
    assert all(plan.row[edge.source] < plan.row[edge.target] for edge in plan.edges)
    boxes = [(plan.track[box], plan.row[box]) for box in range(size)]
    assert len(set(boxes)) == size
    for edge in plan.edges:
        between = range(plan.row[edge.source] + 1, plan.row[edge.target])
        if edge.lane is None:
            assert not {(edge.track, row) for row in between} & set(boxes)
    owners: dict[tuple[int, int], int] = {}
    for edge in plan.edges:
        if edge.lane is not None:
            for row in range(plan.row[edge.source] + 1, plan.row[edge.target]):
                assert owners.setdefault((edge.lane, row), edge.source) == edge.source
    assert max(plan.track) + 1 == plan.tracks
    assert len({edge.lane for edge in plan.edges if edge.lane is not None}) == plan.lanes
