"""Which bits, and which way of clipping, each layer gets: greedy searches by what the network is worth with them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Overrides = Mapping[str, Mapping[str, Any]]
"""By the name of a layer, what it is given in place of the defaults."""
Cost = Callable[[Overrides], float]
"""What a network that is quantized so costs: the lower, the better (a loss, or a metric's negative)."""

CLIPS = ("NONE", "AVG", "GAUSS", "LAPLACE")


def greedy_choice(
    layers: Sequence[str], candidates: Callable[[str], Sequence[Mapping[str, object]]], cost: Cost
) -> Iterator[tuple[str, Mapping[str, object], float]]:
    """Layer by layer, in this order, the candidate with the least cost, those before being as they were chosen.

    Yields (layer, what it is given, cost). Distiller's greedy search, whose candidates are ways of clipping; of equal
    costs the first counts.
    """
    chosen: dict[str, Mapping[str, object]] = {}
    for layer in layers:
        offered = candidates(layer)
        if not offered:
            continue
        costs = [cost({**chosen, layer: said}) for said in offered]
        at = min(range(len(costs)), key=costs.__getitem__)
        chosen[layer] = offered[at]
        yield layer, offered[at], costs[at]


@dataclass(frozen=True)
class Step:
    """One layer was given fewer bits. bits: of each layer's weights. cost: of the network then. size_bits: of all."""

    layer: str
    bits: Mapping[str, int]
    cost: float
    size_bits: int


def fewer_bits(
    counts: Mapping[str, int], choices: Sequence[int], cost: Cost, most: float, key: str = "bits_weights"
) -> Iterator[Step]:
    """From the most bits down, one layer at a time: the one whose cost rises least for each bit that is saved.

    counts: the weights of each layer. choices: of bits. most: what the network may cost; the search ends where every
    step would cost more. Each step asks the cost once for each layer that can go down.
    """
    ladder = sorted(set(choices), reverse=True)
    level = dict.fromkeys(counts, 0)

    def said(levels: Mapping[str, int]) -> dict[str, dict[str, int]]:
        return {name: {key: ladder[at]} for name, at in levels.items()}

    present = cost(said(level))
    while True:
        offers = []
        for name, at in level.items():
            if at + 1 == len(ladder):
                continue
            then = cost(said({**level, name: at + 1}))
            saved = counts[name] * (ladder[at] - ladder[at + 1])
            if then <= most:
                offers.append(((then - present) / max(saved, 1), -saved, name, then))
        if not offers:
            return
        _, _, name, present = min(offers)
        level[name] += 1
        bits = {layer: ladder[at] for layer, at in level.items()}
        yield Step(name, bits, present, sum(counts[layer] * held for layer, held in bits.items()))
