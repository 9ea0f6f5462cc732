"""Which channels carry a constant, found by a pass on NaN."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from raydistill.compression.thinning.constants import Read, read_constants
from raydistill.errors import ConfigError


@pytest.fixture
def net() -> nn.Sequential:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(2, 3, 3, padding=1), nn.ReLU(), nn.Conv2d(3, 2, 3, padding=1), nn.Conv2d(2, 1, 1))
    with torch.no_grad():
        model[0].weight[1], model[0].bias[1] = 0, 0.75
        model[0].weight[2], model[0].bias[2] = 0, -0.5
        model[2].weight[0, [0]] = 0  # reads the constants only
    return model.eval()


def test_a_filter_of_zeros_gives_its_bias_and_what_depends_on_the_input_is_no_constant(net: nn.Sequential) -> None:
    reads = read_constants(net, torch.randn(1, 2, 6, 6), training=False)
    first, second, third = reads["0"], reads["2"], reads["3"]
    assert first.fixed.tolist() == [False, False]
    assert second.fixed.tolist() == [False, True, True]
    assert second.value[1:].tolist() == [0.75, 0.0]  # ReLU has been there
    assert second.even[1:].tolist() == [True, True]
    assert second.shape.tolist()[1:] == [0, 0]
    assert third.fixed.tolist() == [False, False], "NaN times zero is NaN: nothing is claimed of it"


def test_a_constant_that_met_padding_is_uneven(net: nn.Sequential) -> None:
    with torch.no_grad():
        net[0].weight.zero_()
    reads = read_constants(net, torch.randn(1, 2, 6, 6), training=False)["3"]
    # filters that are not zero give NaN: only a norm or a depthwise conv carries a constant on
    assert reads.fixed.tolist() == [False, False]
    depthwise = nn.Sequential(nn.Conv2d(2, 2, 1), nn.Conv2d(2, 2, 3, padding=1, groups=2), nn.Conv2d(2, 1, 1)).eval()
    with torch.no_grad():
        depthwise[0].weight.zero_()
        depthwise[0].bias.copy_(torch.tensor([1.0, 2.0]))
        depthwise[1].weight[1] = depthwise[1].weight[0]
        depthwise[1].bias.zero_()
    image = torch.randn(1, 2, 6, 6)
    reads = read_constants(depthwise, image, training=False)["2"]
    maps = depthwise[:2](image)[0]
    assert reads.fixed.tolist() == [True, True]
    assert reads.even.tolist() == [False, False]
    assert torch.allclose(reads.value, maps[:, 3, 3])
    assert torch.allclose(reads.scale.abs(), maps.flatten(1).abs().amax(1))
    assert reads.shape[0] == reads.shape[1] > 0, "the same map but for its scale"


def test_a_layer_that_is_called_twice_reads_what_both_calls_read() -> None:
    def read(fixed: list[bool], value: list[float]) -> Read:
        values = torch.tensor(value)
        return Read(torch.tensor(fixed), values, torch.tensor([True] * 3), values, torch.zeros(3, dtype=torch.int64))

    both = read([True, True, True], [1.0, 2.0, 0.0]).joined(read([True, True, False], [1.0, -3.0, 0.0]))
    assert both.fixed.tolist() == [True, True, False]
    assert both.even.tolist() == [True, False, True]
    assert both.value.tolist() == [1.0, -3.0, 0.0]
    assert both.shape.tolist() == [0, 2, 0]


def test_a_model_that_cannot_bear_it_is_one_line_and_keeps_no_hooks() -> None:
    class Picky(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(2, 2)

        def forward(self, x: Tensor) -> Tensor:
            if x.isnan().any():
                raise ValueError("a number, please")
            return self.fc(x)

    model = Picky()
    with pytest.raises(ConfigError, match=r"cannot be followed on inputs of NaN \(ValueError: a number, please\)"):
        read_constants(model, torch.zeros(1, 2), training=False)
    assert not model.fc._forward_hooks
    assert not model.training
