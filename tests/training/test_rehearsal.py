"""A schedule is tried in the epochs in which it does something, on whatever the model takes and gives."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from raydistill.errors import ConfigError
from raydistill.schedule import ScheduleSpec, parse_schedule
from raydistill.training.rehearsal import rehearse, rehearsed_epochs

AGP = {"class": "AutomatedGradualPruner", "initial_sparsity": 0.2, "final_sparsity": 0.8, "weights": ["fc.weight"]}
THIN = {"class": "FilterRemover", "thinning_func_str": "remove_filters"}
DECAY = {"class": "ExponentialLR", "gamma": 0.9}


def spec(**acting: Mapping[str, Any]) -> ScheduleSpec:
    """pruner, extension, lr_scheduler: when each is at work."""
    bodies = {"pruner": AGP, "extension": THIN, "lr_scheduler": DECAY}
    sections = {f"{kind}s": {kind: bodies[kind]} for kind in acting}
    policies = [{kind: {"instance_name": kind}, **when} for kind, when in acting.items()]
    return parse_schedule({**sections, "policies": policies}, "s.yaml")


def during(start: int, end: int, frequency: int = 1) -> dict[str, int]:
    return {"starting_epoch": start, "ending_epoch": end, "frequency": frequency}


@pytest.mark.parametrize(
    ("acting", "epochs"),
    [
        ({"pruner": during(2, 11, 2)}, (2, 6, 10)),
        ({"pruner": {"epochs": [4]}}, (4,)),
        ({"pruner": during(0, 3), "lr_scheduler": during(0, 20)}, (0, 1, 2, 19)),  # a rate that falls is no event
        ({"lr_scheduler": during(0, 5)}, (0, 2, 4)),  # unless nothing else happens
        ({"pruner": during(0, 9), "extension": {"epochs": [1, 2, 3, 5]}}, (0, 1, 2, 3, 4, 8)),  # its first three
        ({}, ()),
    ],
)
def test_epochs_in_which_something_happens(acting: dict[str, dict[str, Any]], epochs: tuple[int, ...]) -> None:
    assert rehearsed_epochs(spec(**acting)) == epochs


class Net(nn.Module):
    """images (B, 3, 4, 4) to (B, 10); counts the passes forward."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.fc, self.passes = nn.Conv2d(3, 4, 3), nn.Linear(4, 10), 0

    def forward(self, images: Tensor) -> Any:
        assert self.training
        self.passes += 1
        return self.fc(self.conv(images).mean((2, 3)))


class Exits(Net):
    """Exits, and what is no tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.early = nn.Linear(4, 10)

    def forward(self, images: Tensor) -> Any:
        late = super().forward(images)
        return self.early(self.conv(images).mean((2, 3))), "a name", late


INPUT = (torch.ones(2, 3, 4, 4),)


def test_a_schedule_comes_as_far_as_its_rate_says() -> None:
    model = Net()
    model.eval()
    found = rehearse(spec(pruner=during(0, 9)), model, INPUT, minibatches=3)
    # AGP's formula (arXiv 1710.01878) by hand; 40 of 148 weights are of the layer that is pruned
    levels = [0.8 - 0.6 * (1 - epoch / 8) ** 3 for epoch in (0, 4, 8)]
    assert [epoch for epoch, _ in found] == [0, 4, 8]
    assert [sparsity for _, sparsity in found] == pytest.approx([40 * level / 148 for level in levels])
    assert model.passes == 9
    assert int((model.fc.weight == 0).sum()) == 32


def test_every_output_that_has_classes_is_learnt_from() -> None:
    torch.manual_seed(0)
    model = Exits()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    rehearse(spec(pruner={"epochs": [0]}), model, INPUT)
    changed = [name for name, value in model.state_dict().items() if not torch.equal(value, before[name])]
    assert set(changed) == set(before)


def test_what_does_not_fit_is_one_line() -> None:
    with pytest.raises(ConfigError, match=r"fc\.weight"):
        rehearse(spec(pruner={"epochs": [0]}), nn.Sequential(nn.Linear(4, 5)), (torch.ones(2, 4),))


def test_a_weight_that_the_model_lacks_is_left_out_where_that_is_asked_for() -> None:
    model = nn.Sequential(nn.Linear(4, 5))
    assert rehearse(spec(pruner={"epochs": [0]}), model, (torch.ones(2, 4),), strict=False) == [(0, 0.0)]
