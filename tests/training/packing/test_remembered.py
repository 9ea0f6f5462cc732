"""Outputs that are known already, in the place of a network's forward pass."""

from __future__ import annotations

import torch
from torch import nn

from raydistill.training.packing.remembered import Remembered


def test_known_inputs_get_the_outputs_of_their_place_and_others_the_networks() -> None:
    network = nn.Linear(2, 3).eval()
    inputs = torch.ones(1, 2)
    outputs = torch.arange(6.0).reshape(2, 1, 3)
    remembered = Remembered(network, {(id(inputs),): {"logits": outputs}}, 1)
    assert remembered(inputs)["logits"].tolist() == [[3.0, 4.0, 5.0]]
    assert torch.equal(remembered(inputs.clone()), network(inputs))  # equal, but not these very inputs
    assert torch.equal(remembered(input=inputs), network(inputs))


def test_in_training_nothing_is_remembered() -> None:
    network = nn.Linear(2, 3).train()
    inputs = torch.ones(1, 2)
    remembered = Remembered(network, {(id(inputs),): torch.zeros(2, 1, 3)}, 0)
    assert remembered.training
    assert torch.equal(remembered(inputs), network(inputs))
