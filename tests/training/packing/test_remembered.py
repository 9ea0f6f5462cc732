"""Outputs that are known already, in the place of a network's forward pass."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import nn

from raydistill.tasks import VALIDATION, Loading
from raydistill.training.packing.remembered import Remembered, can_be_kept, outputs_of
from raydistill.training.packing.stack import Stack
from raydistill.training.packing.ways import Folded, Mapped
from tests.tasks.own import Line, net

CPU = torch.device("cpu")


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


@pytest.mark.parametrize("way", [Folded, Mapped])
def test_outputs_of_all_places_are_known_by_the_inputs_of_each_batch(way: type[Folded | Mapped]) -> None:
    """In the place of a network's forward pass each gives what that network gives."""
    networks = [net().eval() for _ in range(3)]
    part = Stack(networks).part(0, 3)
    task, loading = Line(), Loading(CPU, 32)
    batches = list(task.feed(VALIDATION, loading).epoch(0))
    known = outputs_of(way(networks[0]), task, part.parameters, part.buffers, batches, loading)
    assert known is not None
    assert len(known) == len(batches) == 3
    for place, network in enumerate(networks):
        remembered = Remembered(network, known, place)
        for inputs, _ in batches:
            found = remembered(inputs)
            assert found.untyped_storage().data_ptr() == known[(id(inputs),)].untyped_storage().data_ptr()
            assert not found.requires_grad
            torch.testing.assert_close(found, network(inputs).detach())


def test_outputs_have_the_precision_that_a_split_is_judged_in() -> None:
    networks = [net().eval() for _ in range(2)]
    part = Stack(networks).part(0, 2)
    loading = Loading(CPU, 32, precision="bf16")
    batches = list(Line().feed(VALIDATION, loading).epoch(0))
    known = outputs_of(Folded(networks[0]), Line(), part.parameters, part.buffers, batches, loading)
    assert known is not None
    assert {output.dtype for output in known.values()} == {torch.bfloat16}


def test_outputs_that_are_too_large_in_all_are_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two networks, and batches of 32, 32 and 21 rows of four bytes: told by the first batch, 768 of them."""
    networks = [net().eval() for _ in range(2)]
    part = Stack(networks).part(0, 2)
    loading = Loading(CPU, 32)
    batches = list(Line().feed(VALIDATION, loading).epoch(0))

    def known() -> object:
        return outputs_of(Mapped(networks[0]), Line(), part.parameters, part.buffers, batches, loading)

    monkeypatch.setattr("raydistill.training.packing.remembered.MOST_BYTES", 768)
    assert known() is not None
    monkeypatch.setattr("raydistill.training.packing.remembered.MOST_BYTES", 767)
    assert known() is None


@dataclass
class Views:
    """Batches that would be large were they more than views of one number."""

    batches: int
    numbers: int

    @property
    def samples(self) -> int:
        return self.batches

    def rows(self, index: int) -> tuple[int, int]:
        return 1, 1

    def epoch(self, epoch: int) -> Iterator[Any]:
        whole = torch.zeros(1).expand(self.numbers)
        yield from ({"x": whole[: self.numbers // 2], "y": [whole[self.numbers // 2 :], "a name"]},) * self.batches


@pytest.mark.parametrize(
    ("batches", "numbers", "kept"), [(4, 1 << 26, True), (4, (1 << 26) + 1, False), (5, 1 << 26, False), (0, 0, True)]
)
def test_a_split_is_kept_on_the_device_up_to_a_gigabyte(batches: int, numbers: int, kept: bool) -> None:
    assert can_be_kept(Views(batches, numbers)) is kept
