"""Channel statistics: against plain hooks and numpy on models written in every way a nonlinearity can be."""

from __future__ import annotations

import copy
import io
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import _get_current_function_mode

from raydistill import models
from raydistill.compression.ranks import Ranks
from raydistill.compression.statistics import ChannelActivations, activation_table
from raydistill.errors import CheckpointError, ConfigError


def figures(values: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(apoz, mean, l1) of each channel (dim 1) of batches (B, C, ...), in float64."""
    flat = np.concatenate([v.reshape(*v.shape[:2], -1) for v in values]).astype(np.float64)
    return (flat == 0).mean(axis=(0, 2)), flat.mean(axis=(0, 2)), np.abs(flat).sum(axis=2).mean(axis=0)


def check(collector: ChannelActivations, name: str, values: list[Tensor]) -> None:
    apoz, mean, l1 = figures([value.detach().float().numpy() for value in values])
    np.testing.assert_allclose(collector.apoz(name).numpy(), apoz, atol=1e-12)
    np.testing.assert_allclose(collector.mean(name).numpy(), mean, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(collector.l1(name).numpy(), l1, rtol=1e-4, atol=1e-6)
    assert collector.sparsity(name) == pytest.approx(float(apoz.mean()), abs=1e-12)


class Written(nn.Module):
    """conv, batch norm and a nonlinearity in one of many spellings."""

    def __init__(self, act: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 5, 3, bias=False)
        self.bn = nn.BatchNorm2d(5)
        self.act = act
        self.fc = nn.Linear(5, 4)
        self.seen: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        y = self.act(self.bn(self.conv(x)))
        self.seen.append(y.detach().clone())
        y += 1.0  # what comes later must not count
        return self.fc(y.mean((2, 3)))


SPELLINGS: dict[str, Callable[[Tensor], Tensor]] = {
    "module": nn.ReLU(),
    "in place": nn.ReLU(inplace=True),
    "functional": functional.relu,
    "functional in place": functional.relu_,
    "torch": torch.relu,
    "method": lambda x: x.relu(),
    "method in place": lambda x: x.relu_(),
    "keyword": lambda x: functional.relu(input=x),
    "clamp": lambda x: x.clamp(min=0),
    "relu6": nn.ReLU6(),
    "leaky": nn.LeakyReLU(),
    "silu": functional.silu,
    "tanh": torch.tanh,
    "prelu": nn.PReLU(),
    "pooled first": lambda x: torch.relu(functional.max_pool2d(x, 2)),
    "dropout first": lambda x: torch.relu(functional.dropout(x, 0.5)),
}


@pytest.mark.parametrize("spelling", SPELLINGS)
@pytest.mark.parametrize("training", [True, False])
def test_every_spelling(spelling: str, training: bool) -> None:
    torch.manual_seed(0)
    model = Written(SPELLINGS[spelling]).train(training)
    collector = ChannelActivations(model, ["conv"], ("apoz", "mean", "l1"))
    with collector:
        for count in (4, 3):
            model(torch.randn(count, 3, 8, 8))
    check(collector, "conv", model.seen)
    assert collector.seen() == ("conv",)


def test_a_linear_layer_and_one_that_no_nonlinearity_follows() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3), nn.LayerNorm(3), nn.Linear(3, 2))
    x = torch.randn(7, 6)
    with ChannelActivations(model, statistics=("apoz", "mean", "l1")) as collector:
        model(x)
    assert collector.seen() == ("0", "2", "4")
    check(collector, "0", [model[:2](x)])
    check(collector, "2", [model[:4](x)])
    check(collector, "4", [model(x)])


class Block(nn.Module):
    """Two convolutions, one ReLU module used three times, a shortcut with a convolution of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 4, 3, padding=1)
        self.conv2 = nn.Conv2d(4, 4, 3, padding=1)
        self.short = nn.Conv2d(3, 4, 1)
        self.bn = nn.BatchNorm2d(4)
        self.relu = nn.ReLU(inplace=True)
        self.log: dict[str, list[Tensor]] = {"first": [], "sum": []}

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu(self.conv1(x))
        self.log["first"].append(y.detach().clone())
        y = self.bn(self.conv2(y))
        y += self.short(x)
        y = self.relu(y)
        self.log["sum"].append(y.detach().clone())
        return self.relu(y - 1.0)


def test_a_residual_block_with_one_relu_for_everything() -> None:
    torch.manual_seed(0)
    block = Block()
    with ChannelActivations(block, statistics=("apoz", "mean", "l1")) as collector:
        block(torch.randn(2, 3, 5, 5))
        block(torch.randn(2, 3, 5, 5))
    check(collector, "conv1", block.log["first"])
    check(collector, "conv2", block.log["sum"])
    check(collector, "short", block.log["sum"])


def test_a_layer_that_is_used_twice_counts_both_times() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 3, 3, padding=1)
            self.log: list[Tensor] = []

        def forward(self, x: Tensor) -> Tensor:
            for _ in range(2):
                x = torch.relu(self.conv(x))
                self.log.append(x.detach())
            return x

    torch.manual_seed(0)
    model = Twice()
    with ChannelActivations(model, ["conv"], ("apoz", "mean", "l1")) as collector:
        model(torch.randn(2, 3, 5, 5))
    assert len(model.log) == 2
    check(collector, "conv", model.log)


def test_channels_of_a_concatenation_are_told_apart() -> None:
    class Dense(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Conv2d(3, 2, 3), nn.Conv2d(3, 4, 3)
            self.bn = nn.BatchNorm2d(9)
            self.log: list[Tensor] = []

        def forward(self, x: Tensor) -> Tensor:
            y = torch.relu(self.bn(torch.cat([self.a(x), x[:, :, 1:-1, 1:-1], self.b(x)], dim=1)))
            self.log.append(y.detach())
            return y

    torch.manual_seed(0)
    model = Dense()
    with ChannelActivations(model, statistics=("apoz", "mean", "l1")) as collector:
        model(torch.randn(2, 3, 5, 5))
    check(collector, "a", [model.log[0][:, :2]])
    check(collector, "b", [model.log[0][:, 5:]])


@pytest.mark.slow
@pytest.mark.parametrize("arch", ["resnet20_cifar", "simplenet_cifar"])
def test_the_networks_of_the_menu(arch: str) -> None:
    """resnet20's ReLU modules are one a use, so plain hooks on them are a second route."""
    torch.manual_seed(0)
    model = models.create(arch, 10)
    follows = {"conv1": "relu" if arch.startswith("resnet") else "relu_conv1"}
    if arch.startswith("resnet"):
        follows |= {"layer2.0.conv1": "layer2.0.relu1", "layer2.0.conv2": "layer2.0.relu2"}
        follows |= {"layer2.0.downsample.0": "layer2.0.relu2", "layer3.2.conv2": "layer3.2.relu2"}
    log: dict[str, list[Tensor]] = {}
    for name in set(follows.values()):
        hook = lambda module, given, output, name=name: log.setdefault(name, []).append(output.detach().clone())  # noqa: E731
        model.get_submodule(name).register_forward_hook(hook)
    with ChannelActivations(model, list(follows), ("apoz", "mean", "l1")) as collector:
        model(torch.randn(4, 3, 32, 32))
        model(torch.randn(4, 3, 32, 32))
    for name, relu in follows.items():
        check(collector, name, log[relu])


@pytest.mark.slow
def test_no_trace_is_left_and_nothing_changes() -> None:
    torch.manual_seed(0)
    model = models.create("resnet20_cifar", 10).train()
    x = torch.randn(2, 3, 32, 32)
    expected = model(x)
    expected.sum().backward()
    gradient = model.conv1.weight.grad.clone()
    model.zero_grad()
    collector = ChannelActivations(model)
    collector.attach()
    collector.attach()
    output = model(x)
    output.sum().backward()
    assert torch.equal(output, expected)
    assert torch.equal(model.conv1.weight.grad, gradient)
    apoz = collector.apoz("conv1")
    collector.detach()
    assert all(not m._forward_hooks and not m._forward_pre_hooks for m in model.modules())
    assert _get_current_function_mode() is None
    model(x)
    assert torch.equal(collector.apoz("conv1"), apoz)
    assert collector._positions["conv1"] == 2 * 32 * 32


def test_a_forward_pass_that_fails_leaves_no_mode_behind() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Linear(5, 5))
    with ChannelActivations(model, ["0"]) as collector:
        with pytest.raises(RuntimeError):
            model(torch.zeros(1, 3, 8, 8))
        assert _get_current_function_mode() is None
        collector.reset()
        model[2] = nn.Flatten()
        model(torch.zeros(1, 3, 8, 8))
    assert collector._positions["0"] == 36


def test_state_goes_through_a_file_and_on_from_there() -> None:
    torch.manual_seed(0)
    model = Written(functional.relu)
    first, second = torch.randn(2, 3, 8, 8), torch.randn(3, 3, 8, 8)
    with ChannelActivations(model, ["conv"], ("apoz", "mean", "l1")) as whole:
        model.eval()(first)
        model(second)
    with ChannelActivations(model, ["conv"], ("apoz", "mean", "l1")) as part:
        model(first)
    buffer = io.BytesIO()
    torch.save(part.state_dict(), buffer)
    again = ChannelActivations(model, ["conv"], ("apoz", "mean", "l1"))
    again.load_state_dict(torch.load(io.BytesIO(buffer.getvalue()), weights_only=True))
    with again:
        model(second)
    for figure in ("apoz", "mean", "l1"):
        assert torch.equal(getattr(again, figure)("conv"), getattr(whole, figure)("conv"))
    with pytest.raises(CheckpointError, match="conv"):
        ChannelActivations(model, ["fc"]).load_state_dict(part.state_dict())


def test_a_layer_that_was_thinned_begins_anew() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())
    with ChannelActivations(model, ["0"]) as collector:
        model(torch.randn(2, 3, 8, 8))
        with torch.no_grad():
            model[0].weight = nn.Parameter(model[0].weight[:2].clone())
            model[0].bias = nn.Parameter(model[0].bias[:2].clone())
        model(torch.randn(1, 3, 8, 8))
    assert collector.apoz("0").shape == (2,)
    assert collector._positions["0"] == 36


def test_bfloat16_activations_are_counted_exactly() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())
    x = torch.randn(2, 3, 40, 40)
    with torch.autocast("cpu", dtype=torch.bfloat16), ChannelActivations(model, ["0"]) as collector:
        output = model(x)
    assert output.dtype == torch.bfloat16
    zeros = (output.detach().float().numpy() == 0).mean(axis=(0, 2, 3))
    np.testing.assert_array_equal(collector.apoz("0").numpy(), zeros)


def test_table_of_all_channels() -> None:
    torch.manual_seed(0)
    model = Written(functional.relu)
    with ChannelActivations(model, statistics=("apoz",)) as collector:
        model(torch.randn(2, 3, 8, 8))
    rows = activation_table(collector)
    assert [(row.layer, row.channel) for row in rows] == [("conv", i) for i in range(5)] + [("fc", i) for i in range(4)]
    assert [row.apoz for row in rows[:5]] == collector.apoz("conv").tolist()
    assert all(row.mean is None and row.l1 is None for row in rows)


def test_what_cannot_be_asked() -> None:
    model = Written(functional.relu)
    with pytest.raises(ConfigError, match=r"no such module, got 'conv1'; did you mean 'conv'\?"):
        ChannelActivations(model, ["conv1"])
    with pytest.raises(ConfigError, match="did you mean 'apoz'"):
        ChannelActivations(model, statistics=("apox",))
    collector = ChannelActivations(model, ["conv"], ("mean",))
    with pytest.raises(ConfigError, match="none were seen"):
        collector.mean("conv")
    with pytest.raises(ConfigError, match="'apoz' is not collected"):
        collector.apoz("conv")


class Alike(Ranks):
    """Two processes that have seen the same."""

    def gather(self, value: object) -> list[object]:  # type: ignore[override]
        return [copy.deepcopy(value), copy.deepcopy(value)]


def test_figures_of_several_ranks_are_of_what_all_have_seen() -> None:
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Linear(3, 4), nn.ReLU()), torch.randn(6, 3)
    collector = ChannelActivations(model, statistics=("apoz", "mean", "l1"))
    collector.attach()
    model(x)
    before = [collector.apoz("0"), collector.mean("0"), collector.l1("0")]
    collector.add_up(Alike())
    for one, both in zip(before, (collector.apoz("0"), collector.mean("0"), collector.l1("0")), strict=True):
        torch.testing.assert_close(one, both)
    model(-x)  # the figures go on from those of twelve rows
    collector.detach()
    model(x * 100)  # which nobody sees
    check(collector, "0", [model(x), model(x), model(-x)])
    collector.reset()
    assert collector.seen() == ()
