"""The compute summary: against the sums Distiller printed, formulas worked by hand, and counts from module hooks."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from raydistill import models
from raydistill.compression.summaries import compute_table, total_macs, trace
from raydistill.errors import ConfigError


def by_hooks(model: nn.Module, inputs: Sequence[Tensor]) -> dict[str, int]:
    """volume(output) * inputs per output, added up over the calls of each convolution and linear module."""
    macs: dict[str, int] = {}
    hooks = []
    for name, module in model.named_modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):

            def count(module: nn.Module, given: tuple[Tensor, ...], output: Tensor, name: str = name) -> None:
                macs[name] = macs.get(name, 0) + output.numel() * math.prod(module.weight.shape[1:])

            hooks.append(module.register_forward_hook(count))
    with torch.no_grad():
        model.eval()(*inputs)
    for hook in hooks:
        hook.remove()
    return macs


@pytest.mark.parametrize(
    ("arch", "total"),
    [
        ("resnet20_cifar", 40_813_184), ("simplenet_cifar", 651_720),
        pytest.param("resnet56_cifar", 125_747_840, marks=pytest.mark.slow),
    ],
)  # fmt: skip
def test_totals_on_3x32x32(arch: str, total: int) -> None:
    model = models.create(arch, 10)
    images = torch.zeros(1, 3, 32, 32)
    rows = compute_table(model, images)
    assert rows[-1].name == "total"
    assert rows[-1].macs == sum(row.macs for row in rows[:-1]) == total_macs(model, images) == total
    assert {row.name: row.macs for row in rows[:-1]} == by_hooks(model, (images,))
    assert rows[-1].weights == sum(p.numel() for p in model.parameters() if p.dim() > 1)


def test_one_layer_in_full() -> None:
    model = nn.Sequential(nn.Conv2d(4, 8, (3, 1), stride=2, groups=2), nn.ReLU())
    row, _ = compute_table(model, torch.zeros(1, 4, 9, 5))
    assert (row.name, row.type, row.attributes, row.calls) == ("0", "Conv2d", "k=3x1 s=2 g=2", 1)
    assert (row.input_shape, row.input_volume) == ((1, 4, 9, 5), 180)
    assert (row.output_shape, row.output_volume) == ((1, 8, 4, 3), 96)
    assert row.weights == 8 * 2 * 3
    assert row.macs == 96 * 2 * 3


class Functional(nn.Module):
    """Functional layers, a linear module used three times under two names, a product of activations."""

    def __init__(self) -> None:
        super().__init__()
        self.kernel = nn.Parameter(torch.randn(4, 3, 3, 3))
        self.lin = nn.Linear(4, 4)
        self.alias = self.lin
        self.norm = nn.utils.parametrizations.weight_norm(nn.Linear(4, 6))

    def forward(self, x: Tensor) -> Tensor:
        x = functional.conv2d(x, self.kernel, stride=2).relu_().mean((2, 3))
        x = self.alias(self.lin(x)) + functional.linear(x, self.lin.weight)
        y = self.norm(x)
        return y @ y.t()


def test_functional_layers_and_shared_modules() -> None:
    model = Functional()
    rows = {row.name: row for row in compute_table(model, torch.zeros(2, 3, 9, 9))}
    assert list(rows) == ["kernel", "lin", "norm", "(model)", "total"]
    assert (rows["kernel"].type, rows["kernel"].macs, rows["kernel"].weights) == ("conv2d", 2 * 4 * 16 * 27, 108)
    assert (rows["lin"].type, rows["lin"].calls, rows["lin"].macs) == ("Linear", 3, 3 * 2 * 16)
    assert (rows["(model)"].type, rows["(model)"].macs, rows["(model)"].weights) == ("matmul", 2 * 2 * 6, 0)
    assert rows["norm"].macs == 2 * 4 * 6
    assert rows["total"].macs == 3456 + 96 + 48 + 24


class Language(nn.Module):
    """Recurrent layers, attention, and a decoder tied to the embedding."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Embedding(20, 8)
        self.rnn = nn.LSTM(8, 16, 2)
        self.attention = nn.MultiheadAttention(16, 2)
        self.narrow = nn.Linear(16, 8)
        self.decoder = nn.Linear(8, 20)
        self.decoder.weight = self.encoder.weight

    def forward(self, tokens: Tensor) -> Tensor:
        hidden, _ = self.rnn(self.encoder(tokens))
        mixed, _ = self.attention(hidden, hidden, hidden)
        mixed = functional.scaled_dot_product_attention(mixed, hidden, hidden)
        return self.decoder(self.narrow(mixed))


def test_recurrent_layers_and_attention() -> None:
    tokens = torch.zeros(5, 1, dtype=torch.long)
    rows = {row.name: row for row in compute_table(Language(), tokens)}
    # four gates of input and hidden weights at each of five positions
    assert rows["rnn"].macs == 5 * 4 * 16 * (8 + 16) + 5 * 4 * 16 * (16 + 16)
    # projections of query, key, value and output, then scores and mixture over 5 x 5 positions
    assert rows["attention"].macs == 5 * 4 * 16 * 16 + 2 * 25 * 16
    assert rows["attention"].weights == 4 * 16 * 16
    # one batch of 5 x 1 queries: each attends to its own position only
    assert rows["(model)"].macs == 2 * 5 * 16
    assert rows["decoder"].macs == 5 * 8 * 20
    assert rows["decoder"].weights == 160
    assert rows["total"].weights == rows["rnn"].weights + 1024 + 128 + 160


class HandMade(nn.Module):
    """A block used twice, with two products of activations in each use."""

    class Block(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.softmax(x @ x.transpose(1, 2), -1) @ x

    def __init__(self) -> None:
        super().__init__()
        self.block = self.Block()

    def forward(self, x: Tensor) -> Tensor:
        return self.block(self.block(x))


def test_products_of_activations_stand_under_their_module_once_each() -> None:
    first, second, total = compute_table(HandMade(), torch.zeros(1, 5, 3))
    assert (first.name, second.name) == ("block", "block")
    assert (first.type, first.calls, first.output_shape) == ("matmul", 2, (1, 5, 5))
    assert (second.type, second.calls, second.output_shape) == ("matmul", 2, (1, 5, 3))
    assert total.macs == 4 * 75


@pytest.mark.slow
def test_the_model_and_torch_stay_as_they_were() -> None:
    model = models.create("resnet20_cifar", 10).train()
    model.layer1.eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    flags = [module.training for module in model.modules()]
    backends = torch.backends.mkldnn.enabled, torch.backends.cudnn.enabled, torch.backends.mha.get_fastpath_enabled()
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    trace(model, torch.zeros(1, 3, 32, 32))
    assert torch.equal(torch.rand(1), expected)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert [module.training for module in model.modules()] == flags
    assert all(not m._forward_hooks and not m._forward_pre_hooks for m in model.modules())
    now = torch.backends.mkldnn.enabled, torch.backends.cudnn.enabled, torch.backends.mha.get_fastpath_enabled()
    assert now == backends


def test_a_trace_tells_which_call_reads_which() -> None:
    class Residual(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(2, 2, 3, padding=1)
            self.relu = nn.ReLU(inplace=True)

        def forward(self, x: Tensor) -> Tensor:
            y = self.relu(self.conv(x))
            y += x
            return self.relu(y)

    calls = trace(Residual(), torch.zeros(1, 2, 4, 4)).calls
    conv, relu, add, last = calls[-4:]
    assert [call.function for call in (conv, relu, add, last)] == ["conv2d", "relu", "add", "relu"]
    place = {id(call): index for index, call in enumerate(calls)}
    assert relu.inputs == (place[id(conv)],)
    assert set(add.inputs) >= {place[id(relu)]}
    assert len(add.inputs) == 2
    assert last.inputs == (place[id(add)],)
    assert (conv.module, conv.parameters) == ("conv", ("conv.weight", "conv.bias"))
    assert (relu.visit, last.visit) == (0, 1)


def test_an_input_that_does_not_fit() -> None:
    model = models.create("simplenet_cifar", 10)
    with pytest.raises(ConfigError, match=r"example input: the model does not run on it .*\(1, 3, 28, 28\)") as caught:
        compute_table(model, torch.zeros(1, 3, 28, 28))
    assert "\n" not in str(caught.value)
    assert all(not module._forward_hooks for module in model.modules())
    assert total_macs(model, (torch.zeros(1, 3, 32, 32),)) == 651_720
