"""A user's own layers, which no file of ours knows: each says its kind and is pruned, thinned, counted and watched."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from raydistill.compression import build
from raydistill.compression.layer_kinds import LayerKind, NormKind, WeightedKind, kind_of
from raydistill.compression.statistics import ChannelActivations
from raydistill.compression.structure import replay
from raydistill.compression.summaries import compute_table, total_macs
from raydistill.compression.thinning import reshape_like, thin
from raydistill.errors import ConfigError
from raydistill.schedule import parse_schedule
from tests.compression.thinning.conftest import relative


class InOut(nn.Module):
    """Linear, but its weight is (inputs, outputs), and nothing in it has a name that torch's layers have."""

    layer_kind = WeightedKind(weight="kernel", bias="shift", out_dim=1, in_dim=0, out_size="n_out", in_size="n_in")

    def __init__(self, n_in: int, n_out: int) -> None:
        super().__init__()
        self.n_in, self.n_out = n_in, n_out
        self.kernel = nn.Parameter(torch.randn(n_in, n_out) / n_in**0.5)
        self.shift = nn.Parameter(torch.randn(n_out))

    def forward(self, x: Tensor) -> Tensor:
        return torch.einsum("...i,io->...o", x, self.kernel) + self.shift


class Gain(nn.Module):
    """A scale a channel, the last dimension, over running statistics of its own."""

    class Kind(NormKind):
        def channel_axis(self, module: nn.Module, dims: int) -> int:
            return -1

    layer_kind = Kind()

    def __init__(self, width: int) -> None:
        super().__init__()
        self.num_features = width
        self.weight = nn.Parameter(1 + torch.rand(width))
        self.bias = nn.Parameter(torch.randn(width))
        self.register_buffer("running_mean", torch.randn(width))

    def forward(self, x: Tensor) -> Tensor:
        return (x - self.running_mean) * self.weight + self.bias


class Shuffle(nn.Module):
    """Mixes channels; whoever writes to it is to be left alone."""

    layer_kind = LayerKind(whole="which shuffles channels")

    def forward(self, x: Tensor) -> Tensor:
        return x.flip(-1)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.gain, self.second = InOut(6, 10), Gain(10), InOut(10, 8)
        self.third, self.shuffle, self.last = nn.Linear(8, 5), Shuffle(), InOut(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.gain(self.first(x)))
        x = torch.relu(self.third(torch.tanh(self.second(x))))
        return self.last(self.shuffle(x))


@pytest.fixture
def net() -> Net:
    torch.manual_seed(0)
    return Net().eval()


@pytest.mark.slow
def test_it_is_pruned_thinned_and_counted(net: Net) -> None:
    x = torch.randn(4, 6)
    assert total_macs(net, x[:1]) == 6 * 10 + 10 * 8 + 8 * 5 + 5 * 3
    spec = parse_schedule(
        {
            "pruners": {
                "outputs": {
                    "class": "L1RankedStructureParameterPruner",
                    "group_type": "Channels",  # dim 1 of the weight, as it is stored
                    "desired_sparsity": 0.5,
                    "weights": ["first.kernel", "second.kernel"],
                }
            },
            "policies": [{"pruner": {"instance_name": "outputs"}, "epochs": [0]}],
        },
        "s.yaml",
    )
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    scheduler = build(spec, net, optimizer)
    net(x).sum().backward()
    optimizer.step()
    scheduler.on_epoch_begin(0)
    kept = {
        name: np.flatnonzero(abs(net.get_submodule(name).kernel.detach().numpy()).sum(0))
        for name in ("first", "second")
    }
    assert [len(positions) for positions in kept.values()] == [5, 4]
    expected, gain, second = net(x).detach(), net.gain.weight.detach().numpy(), net.second.kernel.detach().numpy()

    report = thin(net, scheduler.masks, x[:1], optimizer)
    assert report.removed == {"first": 5, "second": 4}
    assert relative(expected, net(x)) < 1e-5
    assert [(net.first.n_in, net.first.n_out), (net.second.n_in, net.second.n_out)] == [(6, 5), (5, 4)]
    assert net.gain.num_features == len(net.gain.running_mean) == 5
    assert np.array_equal(net.gain.weight.detach().numpy(), gain[kept["first"]])
    assert np.array_equal(net.second.kernel.detach().numpy(), second[np.ix_(kept["first"], kept["second"])])
    assert scheduler.masks["second.kernel"].shape == net.second.kernel.shape == (5, 4)
    assert optimizer.state[net.second.kernel]["momentum_buffer"].shape == (5, 4)
    rows = {row.name: row for row in compute_table(net, x[:1])}
    assert (rows["first"].type, rows["first"].macs, rows["second"].macs) == ("InOut", 6 * 5, 5 * 4)
    assert rows["total"].macs == 6 * 5 + 5 * 4 + 4 * 5 + 5 * 3

    by_shapes, replayed = Net().eval(), replay(Net().eval(), report.changes)
    reshape_like(by_shapes, net.state_dict())
    for fresh in (by_shapes, replayed):
        fresh.load_state_dict(net.state_dict())
        assert torch.equal(fresh(x), net(x))
    net.train()(x).sum().backward()  # and it can be trained


def test_unread_inputs_of_it_go_too(net: Net) -> None:
    net.second.kernel.data[[2, 7]] = 0.0
    x = torch.randn(4, 6)
    expected = net(x).detach()
    assert thin(net, None, x[:1]).removed == {"first": 2}
    assert net.second.kernel.shape == (8, 8)
    assert relative(expected, net(x)) < 1e-5


def test_what_a_kind_says_is_left_whole_stays(net: Net) -> None:
    net.third.weight.data[:2], net.third.bias.data[:2] = 0.0, 0.0
    report = thin(net, None, torch.randn(1, 6))
    assert net.third.out_features == 5
    assert "third.weight: 2 zero filters kept (reaches shuffle, which shuffles channels)" in map(str, report.kept)


def test_its_activations_are_followed(net: Net) -> None:
    x = torch.randn(16, 6)
    with ChannelActivations(net, ["first", "second"]) as seen, torch.no_grad():
        net(x)
    hidden = torch.relu(net.gain(x @ net.first.kernel + net.first.shift))
    np.testing.assert_allclose(seen.apoz("first").numpy(), (hidden.detach().numpy() == 0).mean(0), atol=1e-6)
    after = torch.tanh(hidden @ net.second.kernel + net.second.shift).detach().numpy()
    np.testing.assert_allclose(seen.mean("second").numpy(), after.mean(0), atol=1e-6)


class OwnKernel(torch.autograd.Function):
    """Numpy inside: torch sees no FLOPs."""

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor) -> Tensor:
        return torch.from_numpy(x.detach().numpy() @ weight.detach().numpy().T)


class Hidden(nn.Module):
    class Kind(WeightedKind):
        def macs(self, module: nn.Module, inputs: Tensor, output: Tensor) -> int:
            return len(inputs) * module.weight.numel()

    layer_kind = Kind()

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(5, 7))

    def forward(self, x: Tensor) -> Tensor:
        return OwnKernel.apply(x, self.weight)


def test_a_layer_with_a_kernel_of_its_own_says_what_it_costs() -> None:
    net = nn.Sequential(Hidden(), nn.Linear(5, 2))
    rows = {row.name: row for row in compute_table(net, torch.zeros(3, 7))}
    assert (rows["0"].type, rows["0"].macs, rows["0"].weights) == ("Hidden", 3 * 35, 35)
    assert rows["total"].macs == 3 * (35 + 10)


class Narrow(InOut):
    pass


class Plain(nn.Linear):
    pass


class Replaced(nn.Linear):
    layer_kind = LayerKind(whole="which is new")


def test_the_nearest_ancestor_says_the_kind() -> None:
    assert kind_of(Narrow(2, 3)) is InOut.layer_kind
    assert kind_of(Plain(2, 3)) is kind_of(nn.Linear(2, 3))
    assert kind_of(Replaced(2, 3)) is Replaced.layer_kind
    assert kind_of(nn.utils.parametrizations.weight_norm(nn.Conv2d(2, 2, 1))) is kind_of(nn.Conv2d(2, 2, 1))
    assert kind_of(nn.ConvTranspose1d(2, 2, 1)).out_dim == 1
    assert kind_of(nn.ReLU()) is kind_of(nn.Sequential())


def test_an_attribute_that_is_no_kind_is_a_line() -> None:
    class Wrong(nn.Module):
        layer_kind = "conv"

    with pytest.raises(ConfigError, match=r"Wrong.layer_kind: must be a LayerKind, got 'conv'; such as WeightedKind"):
        kind_of(Wrong())
