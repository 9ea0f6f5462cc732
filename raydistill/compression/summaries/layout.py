"""Where the boxes of a network stand: rows from top to bottom, its longest path as one straight column.

Networks are chains with short detours, so there is no need for a general graph layout: each detour that holds boxes is
a chain in a *track* to the right of the main column, each connection that skips rows a *lane* to its left.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

Neighbours = Sequence[Sequence[int]]
"""For each box, the boxes it reads, or the boxes that read it."""


@dataclass(frozen=True)
class Layout:
    """row, track: of each box; track 0 is the main column. tracks: how many there are. edges: every connection."""

    row: tuple[int, ...]
    track: tuple[int, ...]
    tracks: int
    lanes: int
    edges: tuple[Edge, ...]


@dataclass(frozen=True)
class Edge:
    """source, target: boxes. lane: None if it runs down a track (`track`), else the lane's number from the left."""

    source: int
    target: int
    track: int
    lane: int | None


def layout(inputs: Neighbours) -> Layout:
    """inputs: for each box the boxes it reads, all of them before it."""
    row: list[int] = []
    for above in inputs:
        row.append(1 + max((row[i] for i in above), default=-1))
    readers: list[list[int]] = [[] for _ in inputs]
    for target, above in enumerate(inputs):
        for source in above:
            readers[source].append(target)
    chains = _chains(inputs, readers, row)
    chain_of = {box: chain for chain, members in enumerate(chains) for box in members}
    track_of_chain, tracks = _tracks(chains, inputs, readers, row)
    track = tuple(track_of_chain[chain_of[box]] for box in range(len(inputs)))
    direct: dict[tuple[int, int], int] = {}
    for chain, members in enumerate(chains):
        for pair in pairwise(members):
            direct[pair] = track_of_chain[chain]
        entry, leave = _ends(members, inputs, readers, row)
        if chain and entry is not None:
            direct.setdefault((entry, members[0]), track_of_chain[chain])
        if chain and leave is not None:
            direct.setdefault((members[-1], leave), track_of_chain[chain])
    pairs = [(source, target) for target, above in enumerate(inputs) for source in above]
    for source, target in pairs:
        if row[target] == row[source] + 1:
            direct.setdefault((source, target), track[target])
    lane_of, lanes = _lanes([pair for pair in pairs if pair not in direct], row)
    edges = tuple(Edge(s, t, direct.get((s, t), 0), lane_of[s] if (s, t) not in direct else None) for s, t in pairs)
    return Layout(tuple(row), track, tracks, lanes, edges)


def _chains(inputs: Neighbours, readers: Neighbours, row: Sequence[int]) -> list[list[int]]:
    """The longest path first; every other box in one more chain, each as long as it gets."""
    box = max(range(len(row)), key=lambda i: (row[i], -i))
    spine = [box]
    while inputs[box]:
        box = max(inputs[box], key=lambda i: (row[i], -i))
        spine.append(box)
    taken = set(spine)
    chains = [spine[::-1]]
    for first in range(len(row)):
        if first in taken:
            continue
        chain = [first]
        while True:
            taken.add(chain[-1])
            following = [i for i in readers[chain[-1]] if i not in taken]
            if not following:
                break
            chain.append(min(following, key=lambda i: (row[i], i)))
        chains.append(chain)
    return chains


def _ends(
    members: Sequence[int], inputs: Neighbours, readers: Neighbours, row: Sequence[int]
) -> tuple[int | None, int | None]:
    """The box from which a chain is entered and the one it leads to: the nearest ones."""
    entry = max(inputs[members[0]], key=lambda i: row[i], default=None)
    leave = min(readers[members[-1]], key=lambda i: row[i], default=None)
    return entry, leave


def _tracks(
    chains: Sequence[Sequence[int]],
    inputs: Neighbours,
    readers: Neighbours,
    row: Sequence[int],
) -> tuple[list[int], int]:
    """The track of each chain: the nearest to the main column that is free over all of its rows."""
    taken: list[list[tuple[int, int]]] = [[]]
    tracks = [0]
    for members in chains[1:]:
        entry, leave = _ends(members, inputs, readers, row)
        first = row[members[0]] if entry is None else row[entry] + 1
        last = row[members[-1]] if leave is None else row[leave] - 1
        tracks.append(1 + _free(taken[1:], first, last))
        if tracks[-1] == len(taken):
            taken.append([])
        taken[tracks[-1]].append((first, last))
    return tracks, len(taken)


def _lanes(pairs: Sequence[tuple[int, int]], row: Sequence[int]) -> tuple[dict[int, int], int]:
    """One lane a source, shared by all that read it; short ones next to the boxes."""
    reach: dict[int, int] = {}
    for source, target in pairs:
        reach[source] = max(reach.get(source, 0), row[target] - 1)
    taken: list[list[tuple[int, int]]] = []
    lanes: dict[int, int] = {}
    for source in sorted(reach, key=lambda i: (reach[i] - row[i], i)):
        lanes[source] = _free(taken, row[source] + 1, reach[source])
        if lanes[source] == len(taken):
            taken.append([])
        taken[lanes[source]].append((row[source] + 1, reach[source]))
    return lanes, len(taken)


def _free(taken: Sequence[Sequence[tuple[int, int]]], first: int, last: int) -> int:
    """The first place whose intervals all leave first..last free; len(taken) if there is none."""
    for place, intervals in enumerate(taken):
        if all(last < start or first > stop for start, stop in intervals):
            return place
    return len(taken)
