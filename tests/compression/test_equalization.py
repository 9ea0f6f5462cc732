"""Layers scaled against each other: the network gives what it gave, and its channels have like ranges."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from raydistill.compression.equalization import equalize, equalizing_scales, pairs_of
from raydistill.compression.quantizers.post_train import PostTrainLinearQuantizer
from raydistill.compression.trace import trace

X = torch.randn(16, 3, 8, 8, generator=torch.Generator().manual_seed(0))


class Net(nn.Module):
    """A depthwise layer between two others, a branch, a clipped activation and a flattened end."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.deep, self.b = nn.Conv2d(3, 6, 3), nn.Conv2d(6, 6, 3, groups=6), nn.Conv2d(6, 4, 1)
        self.c, self.d, self.e = nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1)
        self.fc, self.out = nn.Linear(4, 5), nn.Linear(5, 2)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.b(F.relu(self.deep(F.relu(self.a(x))))))
        y = y + self.d(F.relu6(self.c(y)))  # y has two readers; what is clipped does not scale
        y = F.adaptive_avg_pool2d(F.leaky_relu(self.e(y)), 1).flatten(1)
        return self.out(F.relu(self.fc(y)))


def network() -> Net:
    """What the first layer of a pair gives is small in some channels, and the second multiplies it by more."""
    torch.manual_seed(0)
    model = Net().eval()
    for first, second, columns in ((model.a, model.deep, 0), (model.fc, model.out, 1)):
        scales = torch.logspace(-1.5, 1.5, len(first.weight))
        first.weight.data *= scales.view(-1, *[1] * (first.weight.dim() - 1))
        first.bias.data *= scales
        second.weight.data /= scales.view([-1 if at == columns else 1 for at in range(second.weight.dim())])
    return model


def test_scales_by_hand() -> None:
    scales = equalizing_scales(torch.tensor([4.0, 1.0, 0.0]), torch.tensor([1.0, 1.0, 2.0]))
    assert scales.tolist() == [2.0, 1.0, 1.0]  # 4 / 2 = 1 * 2


def test_pairs_are_those_that_scale_together() -> None:
    model = network()
    found = pairs_of(model, trace(model, (X,), macs=False))
    assert found == [("a", "deep"), ("deep", "b"), ("fc", "out")]


def test_it_gives_what_it_gave_and_channels_have_like_ranges() -> None:
    model = network()
    with torch.no_grad():
        before = model(X)
    report = equalize(model, (X,))
    with torch.no_grad():
        assert torch.allclose(model(X), before, rtol=1e-4, atol=1e-4)
    assert report.spread[0] > 100
    assert report.spread[1] < report.spread[0] / 10
    for first, second, dim in ((model.a, model.deep, 0), (model.fc, model.out, 1)):
        gives = first.weight.detach().flatten(1).abs().amax(1)
        reads = second.weight.detach().movedim(dim, 0).flatten(1).abs().amax(1)
        assert torch.allclose(gives, reads, rtol=1e-2)


def test_it_ends_when_nothing_moves_any_more() -> None:
    torch.manual_seed(0)
    pair = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    assert equalize(pair, (torch.ones(1, 3),)).rounds == 2  # one pair is equal after the first
    assert equalize(pair, (torch.ones(1, 3),)).rounds == 1


def test_one_range_for_all_channels_has_a_smaller_error_afterwards() -> None:
    off = []
    for equal in (False, True):
        model = network()
        with torch.no_grad():
            expected = model(X)
        if equal:
            equalize(model, (X,))
        PostTrainLinearQuantizer("q", None, 8).find(model, (X,), None).carry_out(model)
        with torch.no_grad():
            off.append(float((model(X) - expected).square().mean()))
    assert off[1] < off[0] / 2


def test_shared_weights_and_layers_that_run_twice_are_left() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(3, 3), nn.Linear(3, 3)

        def forward(self, x: Tensor) -> Tensor:
            return F.relu(self.a(F.relu(self.a(F.relu(self.b(x))))))

    model = Twice()
    assert equalize(model, (torch.ones(1, 3),)).pairs == ()
    assert equalize(model, (torch.ones(1, 3),)).rounds == 0


@pytest.mark.parametrize("zero", ["first", "second"])
def test_pruned_channels_stay_zero_and_finite(zero: str) -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    if zero == "first":
        model[0].weight.data[1] = 0.0
    else:
        model[2].weight.data[:, 1] = 0.0
    equalize(model, (torch.ones(1, 3),))
    assert all(bool(torch.isfinite(parameter).all()) for parameter in model.parameters())
    pruned = model[0].weight[1] if zero == "first" else model[2].weight[:, 1]
    assert float(pruned.detach().abs().max()) == 0.0
