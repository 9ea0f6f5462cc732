"""Module tree and optimizer settings as rows."""

from __future__ import annotations

import torch
from torch import nn

from raydistill import models
from raydistill.compression.summaries import module_table, optimizer_table


def test_module_tree_with_a_module_in_two_places() -> None:
    shared = nn.Linear(3, 3)
    model = nn.Sequential(shared, nn.ReLU(), nn.Sequential(shared))
    rows = module_table(model)
    assert [(row.name, row.type, row.parameters, row.children, row.same_as) for row in rows] == [
        ("", "Sequential", 0, 3, ""),
        ("0", "Linear", 12, 0, ""),
        ("1", "ReLU", 0, 0, ""),
        ("2", "Sequential", 0, 1, ""),
        ("2.0", "Linear", 12, 0, "0"),
    ]


def test_own_parameters_add_up_to_all() -> None:
    model = models.create("resnet20_cifar", 10)
    assert sum(row.parameters for row in module_table(model)) == sum(p.numel() for p in model.parameters())


def test_optimizer_and_its_saved_state() -> None:
    model = models.create("simplenet_cifar", 10)
    groups = [{"params": model.conv1.parameters(), "lr": 0.5}, {"params": model.fc1.parameters()}]
    optimizer = torch.optim.SGD(groups, lr=0.1, momentum=0.9, weight_decay=1e-4)
    rows = {(row.group, row.setting): row.value for row in optimizer_table(optimizer)}
    assert rows[0, "class"] == "SGD"
    assert (rows[0, "lr"], rows[1, "lr"], rows[1, "momentum"]) == ("0.5", "0.1", "0.9")
    assert (rows[0, "weight_decay"], rows[0, "nesterov"], rows[0, "parameters"]) == ("0.0001", "False", "2")
    saved = {(row.group, row.setting): row.value for row in optimizer_table(optimizer.state_dict())}
    assert saved == {key: value for key, value in rows.items() if key[1] != "class"}
    tensor_lr = torch.optim.Adam(model.parameters(), lr=torch.tensor(0.25))
    assert ("0.25") in [row.value for row in optimizer_table(tensor_lr) if row.setting == "lr"]
