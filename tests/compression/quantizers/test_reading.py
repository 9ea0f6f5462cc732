"""What a network is to a quantizer: its layers, what follows them, what moves values only."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from raydistill.compression.quantizers.points import points_of
from raydistill.compression.quantizers.reading import Reading, read_network
from raydistill.compression.trace import trace


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.act, self.flat = nn.Conv2d(1, 4, 3), nn.ReLU6(), nn.Flatten()
        self.gates = nn.Linear(16, 6)
        self.up = nn.Parameter(torch.ones(5, 3))

    def forward(self, x: Tensor) -> Tensor:
        y = self.flat(self.act(self.conv(x)))
        a, b = self.gates(y).chunk(2, dim=1)
        z = torch.sigmoid(a) * torch.tanh(b)
        return F.dropout(F.linear(z, self.up).view(-1, 5), training=self.training)


def reading() -> tuple[Reading, dict[str, int]]:
    model = Net()
    seen = trace(model, (torch.ones(2, 1, 4, 4),), macs=False)
    points = points_of(model, seen)
    return read_network(model, seen, points), {point.name: index for index, point in points.items()}


def test_what_follows_a_layer() -> None:
    read, at = reading()
    after = read.activation_after(at["conv"])
    assert after is not None
    assert (after.function, after.point.name) == ("relu6", "act")
    assert after.bounds(9.0) == (0.0, 6.0)
    after = read.activation_after(at["gates"])  # through the split, the wider of the two
    assert after is not None
    assert after.bounds(50.0) == (-6.0, 6.0)
    assert read.activation_after(at["mul_0"]) is None


def test_views_and_dropout_move_values_only_but_a_module_has_a_grid_of_its_own() -> None:
    read, at = reading()
    assert read.moves_only(at["view_0"])
    assert read.moves_only(at["dropout_0"])
    assert not read.moves_only(at["flat"])
    assert read.is_quantizable(at["flat"])
    assert not read.is_quantizable(at["view_0"])


def test_weights_are_those_of_modules_and_of_functions() -> None:
    read, at = reading()
    assert read.weights_of(read.calls[at["conv"]]) == {"conv.weight": 0}
    assert read.weights_of(read.calls[at["linear_0"]]) == {"up": 0}
    assert read.weights_of(read.calls[at["mul_0"]]) == {}
    assert read.is_layer(at["linear_0"])
    assert read.is_layer(at["mul_0"])
    assert read.multiplies(at["mul_0"])
    assert not read.multiplies(at["act"])


def test_recurrent_layers_and_attention_have_several_weights() -> None:
    model = nn.LSTM(3, 4)
    seen = trace(model, (torch.ones(2, 1, 3),), macs=False)
    read = read_network(model, seen, points_of(model, seen))
    found = {name for call in seen.calls for name in read.weights_of(call)}
    assert found == {"weight_ih_l0", "weight_hh_l0"}
    attention = nn.MultiheadAttention(4, 2)
    seen = trace(attention, (torch.ones(2, 1, 4),) * 3, macs=False)
    read = read_network(attention, seen, points_of(attention, seen))
    assert {name for call in seen.calls for name in read.weights_of(call)} == {"in_proj_weight", "out_proj.weight"}
