"""Models that Python does not copy are pruned, thinned, measured and trained like all others."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.utils import prune

from raydistill.compression.copying import copy_of
from raydistill.compression.deployment import deploy
from raydistill.compression.summaries import total_macs
from raydistill.training.precision import _shortest_steps


def layers() -> list[nn.Module]:
    torch.manual_seed(0)
    return [
        nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 6, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(6, 4),
    ]  # fmt: skip


def plain() -> nn.Module:
    return nn.Sequential(*layers())


def old_weight_norm() -> nn.Module:
    built = layers()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        built[2] = nn.utils.weight_norm(built[2])
    model = nn.Sequential(*built)
    model(torch.zeros(1, 3, 8, 8))  # weight is then computed from two parameters, no leaf
    return model


def torchs_own_prune() -> nn.Module:
    model = plain()
    prune.l1_unstructured(model[2], "weight", amount=0.5)
    return model


class Holding(nn.Sequential):
    def __init__(self, held: Any) -> None:
        super().__init__(*layers())
        self.held = {"deep": [held]}
        self.direct = held

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        assert self.direct is self.held["deep"][0]
        return super().forward(images)


MODELS: dict[str, Callable[[], nn.Module]] = {
    "plain": plain,
    "old weight_norm": old_weight_norm,
    "torch.nn.utils.prune": torchs_own_prune,
    "a lock": lambda: Holding(threading.Lock()),
    "a generator": lambda: Holding(x for x in range(3)),
    "an open file": lambda: Holding(Path(__file__).open()),  # noqa: SIM115
    "a random generator": lambda: Holding(torch.Generator()),
}


@pytest.fixture(params=MODELS)
def model(request: pytest.FixtureRequest) -> nn.Module:
    return MODELS[request.param]()


def test_a_copy_is_one(model: nn.Module) -> None:
    images = torch.randn(2, 3, 8, 8)
    expected = model(images).detach()
    other = copy_of(model)
    assert torch.equal(other(images), expected)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.fill_(3.0)
    assert torch.equal(model(images), expected)
    assert not torch.equal(other(images), expected)


@pytest.mark.slow
def test_thinning_measures_it(model: nn.Module) -> None:
    with torch.no_grad():
        model[0].weight[:4] = 0
        model[0].bias[:4] = 0
    image = torch.zeros(1, 3, 8, 8)
    small = copy_of(model.eval())
    deploy(small, (image,))
    macs = total_macs(small, image)
    if isinstance(dict(model[2].named_parameters()).get("weight"), nn.Parameter):
        assert macs == 6 * 6 * 4 * 27 + 4 * 4 * 6 * 4 * 9 + 24
    else:  # a weight that is computed is left as it is, and what it reads too
        assert macs == total_macs(model, image)


@pytest.mark.slow
def test_precision_is_measured_on_it(model: nn.Module) -> None:
    state = {name: value.clone() for name, value in model.state_dict().items()}
    assert _shortest_steps(("fp32",), model, torch.device("cpu"), (torch.zeros(2, 3, 8, 8),))["fp32"] > 0
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
