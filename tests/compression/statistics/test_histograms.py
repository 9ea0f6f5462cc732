"""Histograms against numpy's, and what TensorBoard gets, read back from the event file."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from tensorboardX import SummaryWriter
from tensorboardX.proto.event_pb2 import Event
from torch import Tensor, nn

from raydistill.compression.statistics import ActivationHistograms, write_parameter_histograms
from raydistill.errors import ConfigError


class Scaled(nn.Module):
    """A linear layer whose activations grow from batch to batch."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(3, 4)
        self.log: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        y = nn.functional.leaky_relu(self.fc(x))
        self.log.append(y.detach())
        return y


def test_counts_are_numpys_over_a_range_that_grew() -> None:
    torch.manual_seed(0)
    model = Scaled()
    with ActivationHistograms(model, bins=16) as collector:
        for scale in (0.01, 1.0, 50.0, 3.0):
            model(scale * torch.randn(40, 3))
    found = collector.histogram("fc")
    values = torch.cat([value.flatten() for value in model.log]).numpy()
    expected, _ = np.histogram(values, bins=found.edges.numpy())
    np.testing.assert_array_equal(found.counts.numpy(), expected)
    assert found.counts.sum() == values.size
    limit = float(found.edges[-1])
    assert limit / 2 <= np.abs(values).max() <= limit
    assert collector.seen() == ("fc",)
    collector.detach()
    assert not model.fc._forward_hooks


def test_zeros_and_values_that_are_not_finite() -> None:
    model = nn.Sequential(nn.Linear(2, 2, bias=False), nn.ReLU())
    with torch.no_grad():
        model[0].weight.zero_()
    with ActivationHistograms(model, bins=4) as collector:
        model(torch.zeros(3, 2))
        model(torch.tensor([[float("nan"), 0.0]]))
    counts = collector.histogram("0").counts
    assert counts.sum() == 6
    assert counts[2] == 6, "zero is in the bin that begins at zero"


def test_bins_that_cannot_be_paired() -> None:
    for bins in (0, 2, 6, -4):
        with pytest.raises(ConfigError, match="multiple of 4"):
            ActivationHistograms(nn.Linear(1, 1), bins=bins)
    with pytest.raises(ConfigError, match="none were seen"):
        ActivationHistograms(nn.Sequential(nn.Linear(1, 1))).histogram("0")


def events(folder: Path) -> list[Event]:
    (file,) = folder.glob("events.*")
    content, found = file.read_bytes(), []
    while content:
        (length,) = struct.unpack("<Q", content[:8])
        found.append(Event.FromString(content[12 : 12 + length]))
        content = content[16 + length :]
    return found


def test_parameters_in_tensorboard(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 1))
    model(torch.randn(4, 3)).sum().backward()
    with torch.no_grad():
        model[1].bias.fill_(float("nan"))
    writer = SummaryWriter(str(tmp_path))
    write_parameter_histograms(writer, model, 7, gradients=True)
    writer.close()
    written = {v.tag: (event.step, v.histo) for event in events(tmp_path) for v in event.summary.value}
    parameters = {f"weights/{name}" for name, _ in model.named_parameters()} - {"weights/1.bias"}
    assert set(written) == parameters | {f"gradients/{name}" for name, _ in model.named_parameters()}
    step, histogram = written["weights/0.weight"]
    weight = model[0].weight.detach()
    assert (step, histogram.num) == (7, 6)
    assert histogram.sum == pytest.approx(float(weight.double().sum()))
    assert (histogram.min, histogram.max) == pytest.approx((float(weight.min()), float(weight.max())))
