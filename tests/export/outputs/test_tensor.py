"""Networks that give one tensor."""

from __future__ import annotations

from collections import namedtuple

import pytest
import torch
from torch import Tensor, nn

from raydistill.errors import ConfigError
from raydistill.export.outputs.tensor import FirstOutput, OneTensor, first_of

KIND = OneTensor()


def test_the_output_that_counts() -> None:
    one, two = torch.zeros(2), torch.ones(2)
    assert first_of(one) is one
    assert first_of((two, one)) is two
    assert first_of([two]) is two
    assert first_of(namedtuple("Output", "loss logits")(one, two)) is two
    for nothing in ({"a": one}, (), ("a",), None):
        with pytest.raises(ConfigError, match="must give a tensor"):
            first_of(nothing)


class Twice(nn.Module):
    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        return images + 1, images


def test_a_wrapped_network_gives_one_tensor() -> None:
    assert torch.equal(FirstOutput(Twice())(torch.zeros(2)), torch.ones(2))


def test_how_far_two_are_apart() -> None:
    outputs = torch.tensor([[1.0, 2.0]])
    assert KIND.difference(outputs + torch.tensor([[0.5, -1.0]]), outputs) == 1.0
    assert KIND.difference(outputs * torch.nan, outputs) != 0  # NaN is unlike everything
    with pytest.raises(ConfigError, match="must have the shape"):
        KIND.difference(outputs[:, :1], outputs)


def test_what_they_may_be_apart() -> None:
    assert KIND.may_differ(False, 0.5) == 1e-4
    assert KIND.may_differ(False, 20.0) == pytest.approx(2e-3)
    assert KIND.may_differ(True, 20.0) == 1.0
    assert KIND.said(0.0012) == "outputs differ by 1.2e-03 at most"


def test_names_and_shapes() -> None:
    images, logits = torch.zeros(4, 3, 8, 8), torch.zeros(4, 5)
    assert (KIND.input_names(1, True), KIND.input_names(1, False)) == (("images",), ("input",))
    assert KIND.input_names(2, True) == ("input_0", "input_1")
    assert (KIND.output_names(logits, True), KIND.output_names(logits, False)) == (("logits",), ("output",))
    assert KIND.input_shape(images, 0) == (None, 3, 8, 8)
    assert KIND.input_shape(images, 1) == (4, None, 8, 8)
    assert (KIND.output_shapes(logits, 4), KIND.output_shapes(logits, 3)) == (((None, 5),), ((4, 5),))


def test_in_the_place_of_a_network_a_state_is_not_taken() -> None:
    running = KIND.running(lambda inputs: inputs[0] * 2)  # type: ignore[operator]
    assert torch.equal(running(torch.ones(2)), torch.full((2,), 2.0))
    with pytest.raises(ConfigError, match=r"--split: the task carries a state .* --split none"):
        running(torch.ones(2), None)
