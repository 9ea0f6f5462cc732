"""Evidence, held against plain autograd and plain hooks."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from raydistill.compression.adjacency import Adjacency
from raydistill.compression.evidence import (
    Activations,
    BatchNormScale,
    Evidence,
    FeatureMaps,
    Gradients,
    Movement,
    gatherer,
)
from raydistill.compression.masks import MaskSet
from raydistill.compression.ranks import Ranks
from raydistill.errors import ConfigError


@pytest.fixture
def model() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.Flatten(), nn.Linear(12, 2))


NAMES = ["0.weight", "4.weight"]


def minibatches(model: nn.Sequential, evidence: Evidence, count: int = 3) -> Iterator[list[Tensor]]:
    """Runs them; gives the gradients of each."""
    for seed in range(count):
        model.zero_grad()
        evidence.before_forward()
        model(torch.randn(4, 2, 4, 4, generator=torch.Generator().manual_seed(seed))).square().sum().backward()
        evidence.after_backward()
        yield [model.get_parameter(name).grad.clone() for name in NAMES]  # type: ignore[union-attr]


def test_gradients_are_the_mean_since_the_start(model: nn.Sequential) -> None:
    evidence = Gradients(NAMES, MaskSet(model))
    list(minibatches(model, evidence))
    assert not evidence.ready, "it has not begun"
    evidence.start()
    seen = list(minibatches(model, evidence))
    assert evidence.ready
    evidence.stop()
    list(minibatches(model, evidence))
    for name, gradients in zip(NAMES, zip(*seen, strict=True), strict=True):
        assert torch.allclose(evidence.result()[name], torch.stack(gradients).mean(0), atol=1e-5)


def test_fisher_is_the_mean_of_squared_gradients(model: nn.Sequential) -> None:
    evidence = gatherer("fisher", NAMES, model, MaskSet(model), Adjacency(model, None))
    assert evidence.waits
    evidence.start()
    seen = list(minibatches(model, evidence))
    for name, gradients in zip(NAMES, zip(*seen, strict=True), strict=True):
        expected = torch.stack(gradients).square().mean(0)
        assert torch.allclose(evidence.result()[name], expected, atol=1e-6)


def test_movement_adds_up_and_goes_on_from_a_saved_state(model: nn.Sequential) -> None:
    evidence = Movement(NAMES, MaskSet(model))
    seen = list(minibatches(model, evidence))
    again = Movement(NAMES, MaskSet(model))
    again.load_state_dict(copy.deepcopy(evidence.state_dict()))
    seen += list(minibatches(model, again))
    for name, gradients in zip(NAMES, zip(*seen, strict=True), strict=True):
        expected = -sum(model.get_parameter(name).detach() * gradient for gradient in gradients)
        assert torch.allclose(again.result()[name], expected, atol=1e-4)
    assert again.ready
    assert not Movement(NAMES, MaskSet(model)).ready


@pytest.mark.parametrize("kind", ["apoz", "mean"])
def test_activations_are_those_behind_the_filter(model: nn.Sequential, kind: str) -> None:
    evidence = Activations(kind, ["0.weight"], model, Ranks())
    outputs: list[Tensor] = []
    assert not evidence.ready
    evidence.start()
    handle = model[2].register_forward_hook(lambda module, inputs, output: outputs.append(output.detach().clone()))
    list(minibatches(model, evidence))
    evidence.stop()
    handle.remove()
    seen = torch.cat(outputs).transpose(0, 1).flatten(1).double()
    expected = (seen == 0).double().mean(1) if kind == "apoz" else seen.mean(1)
    assert torch.allclose(evidence.result()["0.weight"].double(), expected, atol=1e-6)
    assert not any(module._forward_hooks for module in model.modules())


def test_the_scale_is_of_the_norm_behind(model: nn.Sequential) -> None:
    with torch.no_grad():
        model[1].weight.copy_(torch.tensor([0.5, -2.0, 0.0]))
    assert BatchNormScale(["0.weight"], model, {"0": "1"}).result()["0.weight"].tolist() == [0.5, 2.0, 0.0]
    with pytest.raises(ConfigError, match=r"bn_scale needs a batch norm right after the weight, got '4\.weight'"):
        BatchNormScale(NAMES, model, {"0": "1"})


def test_a_feature_maps_samples_give_the_outputs_by_the_weight(model: nn.Sequential) -> None:
    evidence = FeatureMaps(NAMES, model, 2, Ranks())
    evidence.start()
    list(minibatches(model, evidence))
    assert evidence.ready
    evidence.stop()
    found = evidence.result()
    for name in NAMES:
        weight = model.get_parameter(name).detach().flatten(1)
        assert torch.allclose(found[f"{name}:x"] @ weight.T, found[f"{name}:y"], atol=1e-5)
    model.eval()
    assert not any(module._forward_hooks for module in model.modules())


def test_none_is_always_ready() -> None:
    assert (Evidence().ready, Evidence().result(), Evidence().state_dict(), Evidence.waits) == (True, {}, {}, False)
