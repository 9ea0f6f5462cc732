"""Figures of the network as a user would write them: what its weights take to be read; and some that are wrong."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from raydistill.metrics import Metric, NetworkFigure

NJ_A_WEIGHT = 0.64


def of_reading(model: nn.Module, example: tuple[Any, ...]) -> float:
    """64-bit DRAM, 1.28 nJ a word of two weights."""
    return NJ_A_WEIGHT * sum(int(torch.count_nonzero(weight)) for weight in model.parameters() if weight.dim() > 1)


def classes(model: nn.Module, example: tuple[Any, ...]) -> float:
    assert not model.training
    assert not torch.is_grad_enabled()
    for weight in model.parameters():
        weight.data.zero_()  # it is a copy
    return model(*example).shape[1]


ENERGY = NetworkFigure("energy_nj", Metric("min", "nJ", "energy of reading the weights in nJ"), of_reading)
CLASSES = NetworkFigure("classes", Metric("max"), classes)

TAKEN = NetworkFigure("macs", Metric("min"), of_reading)
TAKEN_BY_THE_TASK = NetworkFigure("top1", Metric("min"), of_reading)
SPELT = NetworkFigure("energy in nJ", Metric("min"), of_reading)
DROP = NetworkFigure("energy_drop", Metric("min"), of_reading)
TWIN = NetworkFigure("energy_nj", Metric("min"), classes)
NO_METRIC = NetworkFigure("energy", "min", of_reading)  # type: ignore[arg-type]
FAILS = NetworkFigure("fails", Metric("min"), lambda model, example: 1 / 0)
NO_NUMBER = NetworkFigure("none", Metric("min"), lambda model, example: float("nan"))
