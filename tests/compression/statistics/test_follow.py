"""Activations belong to the layer that they come from."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
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
