"""What is left of a layer is fitted to its former outputs."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from raydistill.compression.pruners.reconstruction import (
    FMReconstructionChannelPruner,
    reconstructed,
    sample_points,
)
from raydistill.errors import ConfigError


def test_the_fit_is_numpys_least_squares_and_pruned_channels_are_zero() -> None:
    rng = np.random.default_rng(0)
    weight, keep = torch.zeros(3, 4, 1, 2), torch.tensor([1.0, 0.0, 1.0, 0.0])
    x, y = rng.normal(size=(50, 8)), rng.normal(size=(50, 3))
    columns = [0, 1, 4, 5]
    expected = np.zeros((3, 8))
    expected[:, columns] = np.linalg.lstsq(x[:, columns], y, rcond=None)[0].T
    found = reconstructed(weight, keep, torch.tensor(x), torch.tensor(y))
    assert found.shape == weight.shape
    assert found.reshape(3, 8).numpy() == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("layer", [nn.Linear(6, 4), nn.Conv2d(3, 5, 3, padding=1, stride=2)])
def test_a_sample_times_the_weight_is_the_output_without_the_bias(layer: nn.Linear | nn.Conv2d) -> None:
    torch.manual_seed(0)
    inputs = torch.randn(2, 6) if isinstance(layer, nn.Linear) else torch.randn(2, 3, 8, 8)
    x, y = sample_points(layer, inputs, layer(inputs), 4)
    assert len(x) == len(y) > 0
    assert torch.allclose(x @ layer.weight.detach().flatten(1).T, y, atol=1e-5)


def test_what_cannot_be_fitted_is_one_line() -> None:
    layer = nn.Conv2d(4, 4, 3, groups=2)
    with pytest.raises(ConfigError, match="needs Linear or ungrouped Conv2d, got 'Conv2d'"):
        sample_points(layer, torch.zeros(1, 4, 5, 5), torch.zeros(1, 4, 3, 3), 1)
    with pytest.raises(ConfigError, match="group_type: must be Channels"):
        FMReconstructionChannelPruner("p", "Filters", 0.5, ["w"])
    with pytest.raises(ConfigError, match="points: must be a whole number"):
        FMReconstructionChannelPruner("p", "Channels", 0.5, ["w"], points=0)
