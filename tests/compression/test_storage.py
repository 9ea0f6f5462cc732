"""Tensors as they are stored: quantized weights by their bits."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from raydistill.compression.deployment import deploy
from raydistill.compression.storage import bytes_of, pack_bits, restored, stored, unpack_bits
from raydistill.errors import CheckpointError
from tests.compression.quantizers.test_frozen import SCHEMES, inputs, quantized


@pytest.mark.slow
@given(st.integers(1, 16).flatmap(lambda w: st.tuples(st.just(w), st.lists(st.integers(0, 2**w - 1), max_size=40))))
def test_bits_come_back(case: tuple[int, list[int]]) -> None:
    width, numbers = case
    packed = pack_bits(np.array(numbers, dtype=np.int64), width)
    assert len(packed) == -(-width * len(numbers) // 8)
    assert unpack_bits(packed, width, len(numbers)).tolist() == numbers


def test_the_first_number_has_the_lowest_bits() -> None:
    assert pack_bits(np.array([1, 2, 7]), 3).tolist() == [0b11010001, 0b1]


@pytest.mark.slow
@pytest.mark.parametrize("zeros", [True, False])
@pytest.mark.parametrize("scheme", SCHEMES)
def test_weights_come_back(scheme: str, zeros: bool) -> None:
    model, _ = quantized(scheme)
    with torch.no_grad():
        for name in ("0.weight", "10.weight"):
            model.get_parameter(name).mul_(torch.rand_like(model.get_parameter(name)) < 0.3)
    deploy(model, (inputs(2),))
    state = model.state_dict()
    packed = stored(model, state, zeros)
    again = restored(packed, "x")
    assert again.keys() == state.keys()
    for name, tensor in state.items():
        torch.testing.assert_close(again[name], tensor, rtol=1e-6, atol=1e-6)
    assert (name_of_bits := "10.weight.kept") in packed or zeros
    assert (name_of_bits in packed) <= (not zeros)


@pytest.mark.slow
def test_eight_bits_are_a_byte_and_three_are_three_eighths() -> None:
    for scheme, bits in (("per channel", 8), ("dorefa", 3), ("one bit", 1)):
        model, _ = quantized(scheme)
        deploy(model, (inputs(2),))
        packed = stored(model)
        count = model.get_parameter("10.weight").numel()
        assert packed["10.weight.numbers"].numel() == -(-count * bits // 8)
        floats = sum(parameter.numel() * 4 for parameter in model.parameters())
        assert bytes_of(packed) < floats


def test_a_float_network_is_stored_as_it_is() -> None:
    model = torch.nn.Linear(3, 2)
    assert stored(model) == dict(model.named_parameters())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"10.weight.layout": torch.tensor([0, 1, 99, 2, 2])}, "its layout has no meaning"),
        ({"10.weight.layout": torch.tensor([0, 1, 8, -2, 2])}, "its layout has no meaning"),
        ({"10.weight.layout": torch.tensor([0, 1])}, "not enough values"),
        ({"10.weight.numbers": torch.zeros(3, dtype=torch.uint8)}, "3 bytes do not hold"),
    ],
)
def test_what_does_not_belong_together_is_said(change: dict[str, torch.Tensor], says: str) -> None:
    model, _ = quantized("per channel")
    deploy(model, (inputs(2),))
    with pytest.raises(CheckpointError, match=f"model.safetensors: is damaged: '10.weight' .*{says}"):
        restored({**stored(model, model.state_dict()), **change}, "model.safetensors")
