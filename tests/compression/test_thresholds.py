"""Regimes, and the groups above their strength."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from raydistill.compression.thresholds import checked_regims, group_threshold_mask
from raydistill.errors import ConfigError

WEIGHT = np.random.default_rng(1).normal(size=(4, 3, 2, 2)).astype(np.float32)


@pytest.mark.parametrize(("group_type", "axes"), [("Filters", (1, 2, 3)), ("Channels", (0, 2, 3))])
@pytest.mark.parametrize(("criterion", "reduce"), [("Mean_Abs", np.mean), ("Max", np.max)])
def test_a_groups_level_is_numpys(group_type: str, axes: tuple[int, ...], criterion: str, reduce) -> None:
    level = reduce(np.abs(WEIGHT), axis=axes, keepdims=True)
    strength = float(np.mean(level))
    regim = checked_regims({"w": [strength, group_type]})["w"]
    expected = np.broadcast_to(level > strength, WEIGHT.shape)
    assert np.array_equal(group_threshold_mask(torch.tensor(WEIGHT), regim, criterion).numpy(), expected)
    assert 0 < expected.sum() < expected.size


def test_of_a_sum_of_structures_an_element_stays_where_each_of_its_groups_does() -> None:
    weight = torch.tensor([[3.0, 1.0], [1.0, 0.0]])  # rows: 3, 1; columns: 3, 1
    regim = checked_regims({"w": [1, "Rows+Cols"]})["w"]
    assert group_threshold_mask(weight, regim, "Max").tolist() == [[1, 0], [0, 0]]


def test_all_faults_are_said_together() -> None:
    regims = {"a": [0.1], "b": [-1, "Filters"], "c": [0.1, "Element"], "d": [0.1, "Rows+Nothing"], "e": [1, "Rows"]}
    with pytest.raises(ConfigError) as caught:
        checked_regims(regims)
    assert [str(fault).partition(":")[0] for fault in caught.value.faults] == [f"reg_regims.{name}" for name in "abcd"]
    for nothing in ({}, None, [1]):
        with pytest.raises(ConfigError, match="reg_regims: must map weight names"):
            checked_regims(nothing)
