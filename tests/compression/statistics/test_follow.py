"""Activations belong to the layer that they come from."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import _get_current_function_mode

from raydistill.compression.statistics.follow import Activation, Follower, layers
from raydistill.errors import ConfigError


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.last = nn.Linear(3, 2), nn.Linear(3, 4), nn.Linear(6, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(torch.relu(torch.cat([self.a(x), self.b(x)], dim=1)))


def seen(model: nn.Module, *inputs: Tensor, names: list[str] | None = None) -> dict[str, list[Activation]]:
    found: dict[str, list[Activation]] = {}

    def see(activations: object) -> None:
        for activation in activations:  # type: ignore[attr-defined]
            found.setdefault(activation.span.name, []).append(activation)

    follower = Follower(model, names, see)
    follower.attach()
    follower.attach()  # changes nothing
    model(*inputs)
    follower.detach()
    model(*inputs)  # is not seen
    assert _get_current_function_mode() is None
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    return found


def test_each_layer_has_its_own_part_of_what_the_nonlinearity_gave() -> None:
    model, x = Net(), torch.randn(5, 3)
    found = seen(model, x)
    assert {name: [one.function for one in ones] for name, ones in found.items()} == {
        "a": ["relu"],
        "b": ["relu"],
        "last": [""],
    }
    for name, layer in (("a", model.a), ("b", model.b)):
        assert torch.equal(found[name][0].channels(), torch.relu(layer(x)))
    assert torch.equal(found["last"][0].channels(), model(x))
    assert not found["a"][0].tensor.requires_grad


def test_a_sum_is_the_activation_of_both_and_a_layer_called_twice_is_seen_twice() -> None:
    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(3, 3), nn.Linear(3, 3)

        def forward(self, x: Tensor) -> Tensor:
            y = torch.tanh(self.a(x) + self.b(x))
            return torch.sigmoid(self.a(y))

    model, x = Shared(), torch.randn(2, 3)
    found = seen(model, x)
    y = torch.tanh(model.a(x) + model.b(x))
    assert [one.function for one in found["a"]] == ["tanh", "sigmoid"]
    assert [one.function for one in found["b"]] == ["tanh"]
    assert torch.equal(found["b"][0].channels(), y)
    assert torch.equal(found["a"][1].channels(), torch.sigmoid(model.a(y)))


def test_only_what_was_named_is_seen_and_what_is_not_there_is_one_line() -> None:
    assert set(seen(Net(), torch.randn(1, 3), names=["b"])) == {"b"}
    assert layers(Net()) == ["a", "b", "last"]
    with pytest.raises(ConfigError, match="the model has no such module, got 'lasst'; did you mean 'last'"):
        Follower(Net(), ["lasst"], print)


class Convs(nn.Module):
    """Two convolutions side by side, which a function joins, a nonlinearity of which is seen."""

    def __init__(self, joins: Any) -> None:
        super().__init__()
        self.a, self.b, self.joins = nn.Conv2d(3, 2, 1), nn.Conv2d(3, 2, 1), joins
        self.norm = nn.BatchNorm2d(2)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.joins(self, self.a(x), self.b(x)))


JOINED: dict[str, tuple[Any, dict[str, tuple[int, int]]]] = {
    "dim named": (lambda net, a, b: torch.cat([a, b], dim=1), {"a": (0, 2), "b": (2, 2)}),
    "dim by its place": (lambda net, a, b: torch.cat((a, b), 1), {"a": (0, 2), "b": (2, 2)}),
    "dim from the end": (lambda net, a, b: torch.cat([b, a], -3), {"a": (2, 2), "b": (0, 2)}),
    "axis": (lambda net, a, b: torch.concatenate([a, b], axis=1), {"a": (0, 2), "b": (2, 2)}),
    "tensors named": (lambda net, a, b: torch.cat(tensors=[a, b], dim=1), {"a": (0, 2), "b": (2, 2)}),
    "rows of the batch": (lambda net, a, b: torch.cat([a, b]), {"a": (0, 2), "b": (0, 2)}),
    "with something of no layer between": (
        lambda net, a, b: torch.cat([a, torch.ones(2, 1, 4, 4), b], 1), {"a": (0, 2), "b": (3, 2)}
    ),
    "a sum": (lambda net, a, b: a + b, {"a": (0, 2), "b": (0, 2)}),
    "a sum in place": (lambda net, a, b: a.add_(b), {"a": (0, 2), "b": (0, 2)}),
    "a sum with a number": (lambda net, a, b: a + 1.0, {"a": (0, 2)}),
    "a number first": (lambda net, a, b: 1.0 + a, {"a": (0, 2)}),
    "pooled, with where": (
        lambda net, a, b: functional.max_pool2d(a, 2, return_indices=True)[0], {"a": (0, 2)}
    ),
    "normalized": (lambda net, a, b: net.norm(a), {"a": (0, 2)}),
    "a mean of its map": (
        lambda net, a, b: functional.adaptive_avg_pool2d(a, 1) + b, {"a": (0, 2), "b": (0, 2)}
    ),
    "a product": (lambda net, a, b: a * b, {}),
}  # fmt: skip


@pytest.mark.parametrize("joined", JOINED)
def test_where_a_layers_channels_lie_in_what_is_seen(joined: str) -> None:
    joins, places = JOINED[joined]
    torch.manual_seed(0)
    model, x = Convs(joins), torch.randn(2, 3, 4, 4)
    found = seen(model.eval(), x, names=["a", "b"])
    result = model(x)
    for name in ("a", "b"):
        (activation,) = found[name]
        if name in places:
            assert (activation.span.start, activation.span.count) == places[name]
            assert activation.function == "relu"
            start, count = places[name]
            assert torch.equal(activation.channels(), result[:, start : start + count])
        else:
            assert (activation.function, activation.span.start) == ("", 0)


def test_a_layer_that_no_nonlinearity_follows_is_seen_behind_its_norm_and_only_once() -> None:
    class Plain(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.norm, self.act = nn.Conv2d(3, 2, 1), nn.BatchNorm2d(2), nn.ReLU()

        def forward(self, x: Tensor) -> Tensor:
            y = self.norm(self.conv(x))
            return y.mean((2, 3)), self.act(y), torch.tanh(y)  # type: ignore[return-value]

    model, x = Plain().eval(), torch.randn(2, 3, 4, 4)
    model.norm.running_mean += 1.0
    (met,) = seen(model, x)["conv"]
    assert met.function == "relu"
    model.act = nn.Identity()  # type: ignore[assignment]
    (met,) = seen(model, x)["conv"]
    assert met.function == "tanh"
    alone = nn.Sequential(nn.Conv2d(3, 2, 1), nn.BatchNorm2d(2)).eval()
    alone[1].running_mean += 1.0
    (met,) = seen(alone, x)["0"]
    assert (met.function, torch.equal(met.tensor, alone(x))) == ("", True)


def test_a_pass_that_fails_leaves_nothing_of_it_behind() -> None:
    model, found = nn.Sequential(nn.Linear(3, 2), nn.ReLU(), nn.Linear(2, 2)), []
    follower = Follower(model, None, found.extend)
    follower.attach()
    with pytest.raises(RuntimeError):
        model(torch.ones(2, 4))
    assert _get_current_function_mode() is None
    model(torch.ones(2, 3))
    follower.detach()
    assert [(each.span.name, each.function) for each in found] == [("0", "relu"), ("2", "")]
