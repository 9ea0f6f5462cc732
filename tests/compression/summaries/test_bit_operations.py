"""How much a network computes, its bits counted: by hand."""

from __future__ import annotations

import torch
from torch import nn

from raydistill.compression.quantizers import MENU
from raydistill.compression.summaries.bit_operations import bit_operations


class Products(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(4, 3, bias=False)
        self.second = nn.Linear(3, 2, bias=False)

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        hidden = torch.relu(self.first(values)).reshape(1, 3)
        return self.second(hidden) @ torch.ones(2, 5)


INPUTS = torch.ones(1, 4)


def test_floats_have_32_bits() -> None:
    model = Products()
    assert bit_operations(model, (INPUTS,)) == 32 * 32 * (4 * 3 + 3 * 2 + 2 * 5)


def test_zeros_do_not_count() -> None:
    model = Products()
    with torch.no_grad():
        model.first.weight[0] = 0
    assert bit_operations(model, (INPUTS,)) == 32 * 32 * (4 * 3 * 2 / 3 + 3 * 2 + 2 * 5)


def test_the_bits_of_weights_and_of_what_they_read() -> None:
    model = Products()
    quantizer = MENU["QuantAwareTrainRangeLinearQuantizer"](
        "q", bits_activations=8, bits_weights=4, num_bits_inputs=6, overrides={"second": {"bits_weights": 2}}
    )
    quantizer.plan(model, (INPUTS,)).carry_out(model)
    # the product with the constant reads what the second layer gives, at 8 bits, and a float
    assert bit_operations(model, (INPUTS,)) == 4 * 6 * 12 + 2 * 8 * 6 + 8 * 8 * 10
