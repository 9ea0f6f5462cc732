"""Calibration that runs share: the same numbers for the same weights and data, and for nothing else."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from raydistill.compression.post_training import rounded_over_ranges
from raydistill.compression.quantizers.kept_statistics import KeptStatistics
from raydistill.compression.quantizers.post_train import PostTrainLinearQuantizer


class Net(nn.Module):
    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.conv, self.norm, self.fc = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.norm(self.conv(x)).relu().mean((2, 3)))


EXAMPLE = (torch.randn(1, 3, 8, 8),)


class Data:
    """Batches that count how often they are read."""

    def __init__(self) -> None:
        self.read = 0

    def __call__(self) -> list[tuple[Tensor]]:
        self.read += 1
        torch.manual_seed(7)
        return [(torch.randn(4, 3, 8, 8),) for _ in range(3)]


def rounded(kept: KeptStatistics | None, data: Data, model: nn.Module | None = None, **arguments: object) -> nn.Module:
    network = Net().eval() if model is None else model
    rounded_over_ranges(network, PostTrainLinearQuantizer("q", **arguments), EXAMPLE, data, kept=kept)
    return network


def test_networks_that_differ_in_bits_alone_read_the_data_once_and_are_what_they_would_be(tmp_path: Path) -> None:
    kept, data = KeptStatistics(tmp_path / "statistics", "a network on some data"), Data()
    first = rounded(kept, data)
    passes = data.read
    again = rounded(kept, data, bits_parameters=4)
    assert (passes, data.read) == (1, 1)
    assert len(list((tmp_path / "statistics").iterdir())) == 1
    images = torch.randn(6, 3, 8, 8)
    for network, alone in ((first, rounded(None, Data())), (again, rounded(None, Data(), bits_parameters=4))):
        assert torch.equal(network(images), alone(images))
    assert not torch.equal(first(images), again(images))


def test_another_network_other_data_and_another_extent_are_read_anew(tmp_path: Path) -> None:
    kept, data = KeptStatistics(tmp_path, "a network on some data"), Data()
    rounded(kept, data)
    rounded(kept, data, Net(1).eval())
    assert data.read == 2
    statistics_of_norm = Net().eval()
    statistics_of_norm.norm.running_mean += 1
    rounded(kept, data, statistics_of_norm)
    assert data.read == 3
    rounded(replace(kept, about="on other data"), data)
    assert data.read == 4
    rounded(kept, data, clip_acts="N_STD", clip_n_stds=2.0)
    assert data.read == 6, "spread takes a second pass"
    rounded(kept, data, clip_acts="N_STD", clip_n_stds=3.0)
    assert data.read == 6
    files = len(list(tmp_path.iterdir()))
    rounded(kept, data, clip_acts="PERCENTILE")
    assert (data.read, len(list(tmp_path.iterdir()))) == (8, files), "histograms are not kept"


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[1]", b"{}", b'{"conv": 3}', b"\xff\xfe", b'{"conv": {"output": {}}}']
)
def test_a_file_that_is_not_whole_is_written_again(tmp_path: Path, content: bytes) -> None:
    kept, data = KeptStatistics(tmp_path, "a network on some data"), Data()
    rounded(kept, data)
    (file,) = tmp_path.iterdir()
    whole = file.read_bytes()
    assert set(json.loads(whole)) >= {"conv", "fc"}
    file.write_bytes(content)
    rounded(kept, data)
    assert data.read == 2
    assert file.read_bytes() == whole
