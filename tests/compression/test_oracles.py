"""What Distiller itself computes: masks exactly, losses to 1e-5. Where it is plainly wrong, the case is listed here."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from raydistill.compression import pruners, regularizers
from raydistill.compression.pruners import Moment
from raydistill.compression.rates import PolicyTime

# The mean of a row's absolute values is taken over the number of rows instead of the row's length (and the other way
# round for columns), so the threshold depends on the wrong dimension: all rows stay or all columns go.
WRONG_MEAN = {214, 216, 260, 262}


@pytest.fixture(scope="module")
def oracles(compat: Path) -> tuple[dict, np.lib.npyio.NpzFile]:
    cases = json.loads((compat / "oracles" / "cases.json").read_text())
    return cases, np.load(compat / "oracles" / "arrays.npz", allow_pickle=False)


@pytest.mark.slow
def test_masks(oracles) -> None:
    cases, arrays = oracles
    assert len(cases["masks"]) == 263
    differ = set()
    for case in cases["masks"]:
        epoch = case.get("epoch", {"current_epoch": 0, "starting_epoch": 0, "ending_epoch": 1, "frequency": 1})
        when = PolicyTime(*(epoch[key] for key in ("current_epoch", "starting_epoch", "ending_epoch", "frequency")))
        pruner = pruners.MENU[case["class"]]("pruner", **case["args"])
        weight = torch.from_numpy(arrays[f"w{case['id']}"])
        assert pruner.fault_of(case["weight"], weight) == ""
        mask = pruner.masks({case["weight"]: weight}, Moment(when))[case["weight"]]
        assert mask.shape == weight.shape
        if not np.array_equal(mask.numpy(), arrays[f"mask{case['id']}"]):
            differ.add(case["id"])
    assert differ == WRONG_MEAN


def test_the_cases_that_differ_are_wrong_in_the_way_that_is_named(oracles) -> None:
    cases, arrays = oracles
    for case in cases["masks"]:
        if case["id"] not in WRONG_MEAN:
            continue
        threshold, group_type = case["args"]["reg_regims"]["layer.weight"]
        weight = np.abs(arrays[f"w{case['id']}"])
        axis = 1 if group_type == "Rows" else 0
        wrong = weight.sum(axis=axis, keepdims=True) / weight.shape[1 - axis] > threshold
        right = weight.mean(axis=axis, keepdims=True) > threshold
        assert np.array_equal(np.broadcast_to(wrong, weight.shape), arrays[f"mask{case['id']}"])
        pruner = pruners.StructureParameterPruner("p", **case["args"])
        ours = pruner.mask("layer.weight", torch.from_numpy(weight), PolicyTime(0, 0, 1, 1))
        assert np.array_equal(np.broadcast_to(right, weight.shape), ours.numpy())


def test_losses(oracles) -> None:
    cases, arrays = oracles
    assert len(cases["losses"]) == 29
    for case in cases["losses"]:
        regularizer = regularizers.MENU[case["class"]]("regularizer", **case["args"])
        weight = torch.from_numpy(arrays[f"w{case['id']}"])
        loss = regularizer.loss({"layer.weight": weight}, torch.tensor(2.0))
        assert float(loss) - 2.0 == pytest.approx(case["loss"], rel=1e-5, abs=2e-7)
