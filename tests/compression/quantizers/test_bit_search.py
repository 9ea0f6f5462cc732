"""Greedy searches, on costs that are written down."""

from __future__ import annotations

from typing import Any

from raydistill.compression.quantizers.bit_search import fewer_bits, greedy_choice


def test_each_layer_takes_its_best_given_those_before() -> None:
    asked: list[dict[str, Any]] = []

    def cost(said: Any) -> float:
        asked.append(dict(said))
        clips = {name: value["clip_acts"] for name, value in said.items()}
        if clips.get("b") is None:
            return {"NONE": 2.0, "AVG": 1.0}[clips["a"]]
        return 0.5 if clips == {"a": "AVG", "b": "NONE"} else 0.7

    offered = [{"clip_acts": "NONE"}, {"clip_acts": "AVG"}]
    found = list(greedy_choice(["a", "b", "c"], lambda layer: [] if layer == "c" else offered, cost))
    assert found == [("a", {"clip_acts": "AVG"}, 1.0), ("b", {"clip_acts": "NONE"}, 0.5)]
    assert len(asked) == 4


def test_the_bits_that_cost_least_go_first_and_the_limit_holds() -> None:
    harm = {"large": {8: 0.0, 4: 0.1, 2: 5.0}, "small": {8: 0.0, 4: 0.05, 2: 0.3}}

    def cost(said: Any) -> float:
        return sum(harm[name][value["bits_weights"]] for name, value in said.items())

    steps = list(fewer_bits({"large": 100, "small": 10}, [2, 4, 8], cost, most=0.5))
    # for each bit: large 0.1 / 400, small 0.05 / 40; then small 0.05 / 40; then small 0.25 / 20; then 4.9 is too much
    assert [(step.layer, step.bits[step.layer]) for step in steps] == [("large", 4), ("small", 4), ("small", 2)]
    assert steps[-1].size_bits == 100 * 4 + 10 * 2
    assert steps[-1].cost <= 0.5


def test_nothing_is_done_where_nothing_is_allowed() -> None:
    assert list(fewer_bits({"a": 1}, [4, 8], lambda said: 1.0, most=0.5)) == []
