"""An extension is bound once, and is a policy that a schedule names."""

from __future__ import annotations

import torch
from torch import nn
from torch.optim import Optimizer

from raydistill.compression import build
from raydistill.compression.masks import MaskSet
from raydistill.compression.policies.extension import Extension
from raydistill.compression.rates import PolicyTime
from raydistill.schedule import parse_schedule


class Seen(Extension):
    made: list[object] = []  # noqa: RUF012

    def __init__(self, name: str, factor: float) -> None:
        self.name, self.factor = name, factor
        self.told: list[object] = []
        Seen.made.append(self)

    def bind(self, model: nn.Module, optimizer: Optimizer, masks: MaskSet, example_input: object) -> None:
        self.told.append((model, optimizer, masks, example_input))

    def on_epoch_begin(self, when: PolicyTime) -> None:
        self.told.append(when.epoch)


def test_one_of_ones_own_hears_of_the_run_and_of_its_epochs_only() -> None:
    Seen.made.clear()
    model = nn.Linear(2, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    spec = parse_schedule(
        {
            "extensions": {"mine": {"class": f"{__name__}:Seen", "factor": 2.5}},
            "policies": [{"extension": {"instance_name": "mine"}, "epochs": [1, 3]}],
        },
        "s.yaml",
    )
    example = (torch.zeros(1, 2),)
    scheduler = build(spec, model, optimizer, example)
    for epoch in range(5):
        scheduler.on_epoch_begin(epoch)
    (mine,) = Seen.made
    assert isinstance(mine, Seen)
    assert (mine.name, mine.factor) == ("mine", 2.5)
    assert mine.told == [(model, optimizer, scheduler.masks, example), 1, 3]


def test_bind_may_be_left_out() -> None:
    model = nn.Linear(2, 2)
    Extension().bind(model, torch.optim.SGD(model.parameters(), lr=0.1), MaskSet(model), None)
