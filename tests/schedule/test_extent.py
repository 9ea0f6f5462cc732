"""A policy must end when training does."""

from __future__ import annotations

from raydistill.schedule import parse_schedule
from raydistill.schedule.extent import policies_beyond

SCHEDULE = {
    "pruners": {"p": {"class": "X"}},
    "policies": [
        {"pruner": {"instance_name": "p"}, "starting_epoch": 0, "ending_epoch": 10, "frequency": 4},
        {"pruner": {"instance_name": "p"}, "epochs": [1, 11]},
        {"pruner": {"instance_name": "p"}, "epochs": [0]},
    ],
}


def test_each_policy_that_ends_later_is_a_line() -> None:
    spec = parse_schedule(SCHEDULE, "s.yaml")
    assert policies_beyond(spec, 12, "training.epochs") == []
    assert [str(fault) for fault in policies_beyond(spec, 9, "training.epochs")] == [
        "s.yaml: policies[0].ending_epoch: must end within training.epochs (9), got 10; "
        "lower it or raise training.epochs",
        "s.yaml: policies[1].epochs: must end within training.epochs (9), got 12; lower it or raise training.epochs",
    ]
    assert len(policies_beyond(spec, 11, "--epochs")) == 1
