"""Parts of a settled network that are told as operators."""

from __future__ import annotations

import pytest
import torch

from raydistill.compression.quantizers.frozen import floats_put_away, freeze
from raydistill.compression.quantizers.integers import of_8_bits, written_in
from raydistill.export.integers.aten import AtenOperators
from raydistill.export.outputs.tensor import FirstOutput
from tests.compression.quantizers.test_frozen import inputs, quantized


@pytest.mark.parametrize(
    ("low", "high", "kind"),
    [(-128, 127, torch.int8), (0, 127, torch.int8), (0, 255, torch.uint8), (0, 256, None), (-255, 255, None)],
)
def test_what_fits_into_8_bits(low: int, high: int, kind: torch.dtype | None) -> None:
    assert of_8_bits(low, high) == kind


@torch.no_grad()
def test_a_network_told_so_gives_the_same_and_then_just_computes_again() -> None:
    model, _ = quantized("per channel")
    freeze(model)
    before, names = model(inputs(4)), list(model.state_dict())
    with written_in(model, AtenOperators()):
        torch.testing.assert_close(model(inputs(4)), before, rtol=1e-3, atol=1e-3)
        with floats_put_away(model):
            assert model.get_parameter("0.weight").numel() == 1
            torch.testing.assert_close(model(inputs(4)), before, rtol=1e-3, atol=1e-3)
    assert torch.equal(model(inputs(4)), before)
    assert list(model.state_dict()) == names
    assert not any("_numbers" in name for name, _ in model.named_buffers())


def test_an_error_on_the_way_ends_it() -> None:
    model, _ = quantized("per channel")
    freeze(model)
    with pytest.raises(KeyError), written_in(model, AtenOperators()):
        raise KeyError
    assert not any("_numbers" in name for name, _ in model.named_buffers())


def test_what_is_not_settled_is_not_told() -> None:
    model, _ = quantized("per channel")
    before = model(inputs(4))
    with written_in(model, AtenOperators()):
        assert torch.equal(model(inputs(4)), before)


def test_a_network_within_another_is_told_too() -> None:
    """One of several outputs is written inside of what chooses one of them."""
    model, _ = quantized("per channel")
    freeze(model)
    whole = FirstOutput(model)
    with written_in(whole, AtenOperators()):
        told = [name for name, _ in whole.named_buffers() if name.endswith("._numbers")]
    assert len(told) == 4
