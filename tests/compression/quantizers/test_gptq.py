"""Weights that make good what rounding others adds: a numpy reference that inverts anew at each step, and networks."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from raydistill.compression.layer_kinds import kind_of
from raydistill.compression.quantizers.frozen import freeze
from raydistill.compression.quantizers.gptq import DAMPING, compensate, compensated, output_error
from raydistill.compression.quantizers.grid import Grid, Mode, grid_of
from raydistill.compression.quantizers.integers import written_in
from raydistill.compression.quantizers.network import Quantization
from raydistill.compression.quantizers.plan import plan_of
from raydistill.compression.quantizers.post_train import PostTrainLinearQuantizer
from raydistill.compression.storage import restored, stored
from raydistill.export.integers.aten import AtenOperators
from tests.compression.quantizers.test_adaptive_rounding import Layers

X = F.avg_pool2d(torch.randn(64, 3, 10, 10, generator=torch.Generator().manual_seed(0)), 3, 1)
"""Maps whose neighbours go together, as those of images do."""


def reference(weight: np.ndarray, hessian: np.ndarray, scale: float, low: int, high: int, damping: float) -> np.ndarray:
    """Equation 2 for each row by itself, with the inverse of what is left of H worked out at every step."""
    hessian = hessian + damping * np.diag(hessian).mean() * np.eye(len(hessian))
    found = np.zeros_like(weight)
    for row in range(len(weight)):
        left = weight[row].copy()
        for j in range(len(left)):
            inverse = np.linalg.inv(hessian[j:, j:])
            found[row, j] = np.clip(np.round(left[j] / scale), low, high) if weight[row, j] else 0.0
            left[j:] -= (left[j] - found[row, j] * scale) / inverse[0, 0] * inverse[0]
    return found


def together(rows: int, columns: int) -> torch.Tensor:
    """Inputs that go together, so that errors can cancel."""
    return torch.randn(rows, 1) + 0.4 * torch.randn(rows, columns)


@pytest.mark.slow
@pytest.mark.parametrize("columns", [6, 140])
def test_it_is_the_papers_rule(columns: int) -> None:
    """140 columns are more than one block."""
    torch.manual_seed(columns)
    weight, inputs = torch.randn(3, columns, dtype=torch.float64), together(400, columns).double()
    weight[:, ::5] = 0.0
    grid = grid_of(-2.0, 2.0, 3, Mode.SYMMETRIC)
    hessian = inputs.T @ inputs
    found = compensated(weight, hessian, grid)
    expected = reference(weight.numpy(), hessian.numpy(), float(grid.scale.double()), -4, 3, DAMPING)
    assert np.array_equal(found.numpy(), expected)
    assert bool((found[:, ::5] == 0).all())
    plain = output_error(weight, grid.values(grid.numbers(weight)), hessian, 400)
    assert output_error(weight, grid.values(found), hessian, 400) < 0.75 * plain
    by_hand = (inputs @ (grid.values(grid.numbers(weight)) - weight).T).square().mean()
    assert plain == pytest.approx(float(by_hand))


def test_where_inputs_do_not_go_together_it_rounds_to_the_nearest() -> None:
    torch.manual_seed(0)
    weight = torch.randn(5, 20)
    grid = grid_of(torch.full((5, 1), -1.5), torch.full((5, 1), 2.0), 4, Mode.ASYMMETRIC_UNSIGNED)
    for diagonal in (torch.rand(20) + 0.1, torch.ones(20) * (torch.arange(20) % 2), torch.zeros(20)):
        assert torch.equal(compensated(weight, torch.diag(diagonal), grid), grid.numbers(weight).double())


def test_inputs_that_are_copies_of_each_other_still_have_a_factor() -> None:
    weight, inputs = torch.tensor([[0.3, 0.3, 0.3]]), torch.ones(10, 3)
    grid = Grid(torch.ones(1, 1), torch.zeros(1, 1), -4, 3)
    found = compensated(weight, inputs.T @ inputs, grid, 1e-9)
    assert float(found.sum()) == 1.0  # 0.9, where each by itself would be 0


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (nn.Linear(5, 4), (7, 3, 5)),
        (nn.Conv2d(3, 4, 3, stride=2, padding=1, dilation=2), (2, 3, 9, 8)),
        (nn.Conv2d(4, 6, (3, 1), groups=2, padding="same"), (2, 4, 6, 6)),
        (nn.Conv2d(3, 3, 3, groups=3, padding=1, padding_mode="reflect"), (2, 3, 6, 6)),
        (nn.Conv1d(4, 6, 3, groups=2, padding=2), (2, 4, 7)),
        (nn.Conv1d(2, 3, 2), (2, 5)),
    ],
    ids=repr,
)
@torch.no_grad()
def test_patches_times_the_weight_are_what_the_layer_gives(layer: Any, shape: tuple[int, ...]) -> None:
    inputs = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    read = kind_of(layer).patches(layer, inputs)
    assert read is not None
    weight = layer.weight.flatten(1).unflatten(0, (len(read), -1))
    rows = torch.cat(list(read @ weight.transpose(1, 2)), 1) + layer.bias
    gave = layer(inputs)
    channels = -1 if isinstance(layer, nn.Linear) else gave.dim() - len(layer.kernel_size) - 1
    torch.testing.assert_close(rows, gave.movedim(channels, -1).reshape(-1, rows.shape[1]), atol=1e-5, rtol=1e-5)


def test_of_other_layers_there_are_none() -> None:
    for layer, shape in ((nn.ConvTranspose2d(2, 3, 2), (1, 2, 4, 4)), (nn.Conv3d(1, 1, 2), (1, 1, 3, 3, 3))):
        assert kind_of(layer).patches(layer, torch.ones(shape)) is None
    assert kind_of(nn.BatchNorm2d(3)).patches(nn.BatchNorm2d(3), torch.ones(1, 3, 2, 2)) is None


def quantized(per_channel: bool, bits_acts: int | None = None) -> tuple[Layers, Quantization, torch.Tensor]:
    torch.manual_seed(0)
    model = Layers().eval()
    model.fc.weight.data[:, ::2] = 0.0
    with torch.no_grad():
        expected = model(X)
    quantizer = PostTrainLinearQuantizer("q", bits_acts, 3, per_channel_wts=per_channel, mode="ASYMMETRIC_UNSIGNED")
    return model, quantizer.find(model, (X[:1],), None).carry_out(model), expected


@pytest.mark.slow
@pytest.mark.parametrize(("per_channel", "bits_acts"), [(True, None), (False, None), (True, 8)])
@torch.no_grad()
def test_each_layers_error_falls_the_networks_too_and_zero_stays(per_channel: bool, bits_acts: int | None) -> None:
    model, held, expected = quantized(per_channel, bits_acts)
    before = float((model(X) - expected).square().mean())
    floats = {name: value.clone() for name, value in model.named_parameters()}
    found = list(compensate(model, held, lambda: [(X[:32],), (X[32:],)]))
    assert [one.weight for one in found] == ["conv.weight", "deep.weight", "fc.weight"]  # a transposed one is left
    assert all(one.after <= one.before for one in found)
    assert found[0].after < 0.9 * found[0].before
    assert sum(one.moved for one in found) > 0
    assert float((model(X) - expected).square().mean()) < before
    assert int((held.weight("fc.weight")(model.fc.weight)[:, ::2] != 0).sum()) == 0
    assert all(torch.equal(value, floats[name]) for name, value in model.named_parameters())


@pytest.mark.slow
@torch.no_grad()
def test_the_error_that_is_told_is_the_layers() -> None:
    model, held, _ = quantized(True)
    (first, *_) = compensate(model, held, lambda: [(X[:32],), (X[32:],)])
    rounded = held.weight("conv.weight")(model.conv.weight)
    off = F.conv2d(X, rounded, model.conv.bias, padding=1) - F.conv2d(X, model.conv.weight, model.conv.bias, padding=1)
    assert first.after == pytest.approx(float(off.square().mean()), rel=1e-4)


@pytest.mark.slow
@torch.no_grad()
def test_weights_in_groups_are_compensated_settled_and_stored() -> None:
    torch.manual_seed(0)
    model = Layers().eval()
    held = PostTrainLinearQuantizer("q", None, 3, group_size=4).find(model, (X[:1],), None).carry_out(model)
    found = list(compensate(model, held, lambda: [(X,)]))
    assert sum(one.after for one in found) < sum(one.before for one in found)
    assert held.weight("fc.weight").scale.shape == (5, 49)
    assert held.weight("conv.weight").scale.shape == (8, 1, 1, 1)  # of 3 columns
    assert held.weight("up.weight").group is None  # its rows are in dimension 1
    expected = model(X)
    again = Layers().eval()
    plan_of(held).carry_out(again)
    again.load_state_dict(model.state_dict())
    assert torch.equal(again(X), expected)
    assert freeze(model)
    torch.testing.assert_close(model(X), expected)
    tensors = stored(model)
    assert tensors["fc.weight.numbers"].numel() == -(-model.fc.weight.numel() * 3 // 8)
    torch.testing.assert_close(restored(tensors, "here")["fc.weight"], model.fc.weight.detach())
    with written_in(model, AtenOperators()):  # weights in groups are floats there
        torch.testing.assert_close(model(X), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.slow
@torch.no_grad()
def test_the_plan_and_the_state_make_it_again() -> None:
    model, held, _ = quantized(True)
    list(compensate(model, held, lambda: [(X,)]))
    again = Layers().eval()
    plan_of(held).carry_out(again)
    again.load_state_dict(model.state_dict())
    assert torch.equal(again(X), model(X))
