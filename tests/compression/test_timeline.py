from __future__ import annotations

from pathlib import Path

import pytest
import torch

from raydistill.compression import build
from raydistill.compression.timeline import timeline
from raydistill.models import create
from raydistill.schedule import load_schedule, parse_schedule

ROOT = Path(__file__).parents[2]


def timeline_of(spec):
    model = create("simplenet_cifar", 10)
    return timeline(build(spec, model, torch.optim.SGD(model.parameters(), lr=0.1), (torch.zeros(1, 3, 32, 32),)))


def test_the_articles_schedule_ends_where_it_says() -> None:
    actions = timeline_of(load_schedule(ROOT / "schedules" / "simplenet_agp.yaml"))
    assert actions[0].does == ("decay: steps the learning rate",)
    assert actions[1].epochs == (1, 1)
    assert actions[1].does[0] == "conv1_pruner: 1 weight to 15.0%"
    last = actions[-1]
    assert last.epochs == (99, 99)
    assert last.does[:3] == (
        "conv1_pruner: 1 weight to 30.0%",
        "conv2_pruner: 1 weight to 50.0%",
        "fc_pruner: 3 weights to 80.0%",
    )
    assert last.sparsity == pytest.approx(48471 / 61770)
    assert [action.sparsity for action in actions] == sorted(action.sparsity for action in actions)


def test_equal_epochs_are_joined_and_idle_ones_left_out() -> None:
    mapping = {
        "pruners": {"p": {"class": "SparsityLevelParameterPruner", "levels": {"fc1.weight": 0.5, "fc2.weight": 0.25}}},
        "regularizers": {"r": {"class": "L1Regularizer", "reg_regims": {"fc3.weight": 0.1}}},
        "policies": [
            {"regularizer": {"instance_name": "r"}, "starting_epoch": 0, "ending_epoch": 5, "frequency": 1},
            {"pruner": {"instance_name": "p"}, "epochs": [8]},
        ],
    }
    actions = timeline_of(parse_schedule(mapping, "s"))
    assert [(action.epochs, action.does) for action in actions] == [
        ((0, 4), ("r: regularises 1 weight",)),
        ((8, 8), ("p: 2 weights to 25.0% ... 50.0%",)),
    ]
    assert actions[1].sparsity == pytest.approx((24000 + 2520) / 61770)


def test_an_unknown_level_is_named_by_its_class() -> None:
    mapping = {
        "pruners": {"p": {"class": "SensitivityPruner", "sensitivities": {"fc1.weight": 0.5}}},
        "policies": [{"pruner": {"instance_name": "p"}, "epochs": [0]}],
    }
    assert timeline_of(parse_schedule(mapping, "s"))[0].does == ("p: 1 weight by SensitivityPruner",)
