"""Allocations by rule: ERK by hand, thresholds over all weights by masks that prune at one threshold."""

from __future__ import annotations

import pytest
import torch

from raydistill.compression.allocation import TOTALS, by_rules, by_scores, erk, uniform

SHAPES = {"conv.weight": (8, 4, 3, 3), "fc.weight": (100, 50)}


def removed(levels: dict[str, float], shapes: dict[str, tuple[int, ...]]) -> float:
    sizes = {name: torch.Size(shape).numel() for name, shape in shapes.items()}
    return sum(levels[name] * size for name, size in sizes.items()) / sum(sizes.values())


def test_totals_rise_from_a_tenth_to_nearly_all() -> None:
    assert list(TOTALS) == sorted(TOTALS)
    assert (TOTALS[0], TOTALS[-1]) == pytest.approx((0.1, 0.99))


def test_densities_go_with_the_sides_over_their_product_and_a_small_layer_stays_dense() -> None:
    """Evci et al., section 3: (8 + 4 + 3 + 3) / 288 of the one, 150 / 5000 of the other."""
    (sparse,) = erk(SHAPES, [0.97])
    assert (1 - sparse["conv.weight"]) / (1 - sparse["fc.weight"]) == pytest.approx((18 / 288) / (150 / 5000))
    assert removed(sparse, SHAPES) == pytest.approx(0.97)
    (light,) = erk(SHAPES, [0.4])
    assert light["conv.weight"] == 0.0
    assert removed(light, SHAPES) == pytest.approx(0.4)


def test_one_level_for_all() -> None:
    assert uniform(SHAPES, [0.3, 0.5]) == [dict.fromkeys(SHAPES, 0.3), dict.fromkeys(SHAPES, 0.5)]


def test_a_threshold_over_all_scores_leaves_each_layer_what_lies_above_it() -> None:
    torch.manual_seed(0)
    scores = {"a": torch.rand(200), "b": 0.5 * torch.rand(20, 30)}
    (levels,) = by_scores(scores, [0.6])
    pooled = torch.cat([score.flatten() for score in scores.values()]).sort().values
    threshold = pooled[round(0.6 * len(pooled)) - 1]
    assert levels == pytest.approx({name: float((score <= threshold).float().mean()) for name, score in scores.items()})


def test_every_rule_keeps_the_total_and_looks_at_what_it_says() -> None:
    torch.manual_seed(0)
    weights = {
        name: torch.randn(shape) * scale for (name, shape), scale in zip(SHAPES.items(), (0.1, 1.0), strict=True)
    }
    fisher = {"conv.weight": torch.full(SHAPES["conv.weight"], 1e4), "fc.weight": torch.ones(SHAPES["fc.weight"])}
    found = by_rules(weights, fisher)
    assert list(found) == ["lamp", "fisher", "magnitude", "erk", "uniform"]
    for rule, rows in found.items():
        totals = [removed(levels, SHAPES) for levels in rows]
        assert totals == pytest.approx(list(TOTALS), abs=2e-3), rule
    middle = {rule: rows[8]["conv.weight"] for rule, rows in found.items()}
    assert middle["magnitude"] > 0.95 > middle["uniform"] > middle["fisher"]  # small weights, that cost much
    scaled = by_rules(
        {name: 10 * weight if name == "conv.weight" else weight for name, weight in weights.items()}, fisher
    )
    assert scaled["lamp"][8] == pytest.approx(found["lamp"][8], abs=1e-3)  # a layer's scale is nothing to LAMP
    assert "fisher" not in by_rules(weights, None)
