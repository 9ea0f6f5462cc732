"""The search for bits on a real network: the file of costs, damaged, cut off, of another network."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from raydistill.analysis.fewer_bits import Asked, search_bits, searched
from raydistill.compression.quantizers.network import Quantization
from raydistill.compression.quantizers.post_train import PostTrainLinearQuantizer
from raydistill.compression.quantizers.weights import LinearWeight
from raydistill.errors import ConfigError

X = torch.randn(64, 6, generator=torch.Generator().manual_seed(0))


class Judge:
    """The mean square error of the output; it counts, and ends as a killed process does."""

    def __init__(self, model: nn.Module, expected: torch.Tensor, stop: int = 10**6) -> None:
        self.model, self.expected, self.stop, self.asked = model, expected, stop, 0

    @torch.no_grad()
    def __call__(self) -> float:
        if self.asked == self.stop:
            raise KeyboardInterrupt
        self.asked += 1
        return float((self.model(X) - self.expected).square().mean())


def quantized(seed: int = 0, **arguments: Any) -> tuple[nn.Module, Quantization, torch.Tensor]:
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 3)).eval()
    with torch.no_grad():
        expected = model(X)
    said = {"bits_activations": None, "bits_parameters": 8, "per_channel_wts": True, **arguments}
    return model, PostTrainLinearQuantizer("q", **said).find(model, (X[:1],), None).carry_out(model), expected


def asked(folder: Path, judge: Judge, most: float = 2e-3) -> Asked:
    return Asked((8, 4, 3), judge, most, folder / "costs.json", {"data": "X"}, lambda step: None)


def test_every_further_step_would_cost_too_much(tmp_path: Path) -> None:
    model, held, expected = quantized()
    judge = Judge(model, expected)
    found = search_bits(model, held, asked(tmp_path, judge))
    assert {name: held.weight(name).bits for name in found} == found
    assert judge() <= 2e-3
    assert sum(found.values()) < 3 * 8
    ladder = [8, 4, 3]
    for name, bits in found.items():
        if bits != ladder[-1]:
            held.replace_weight(name, LinearWeight(ladder[ladder.index(bits) + 1], axis=0))
            assert judge() > 2e-3
            held.replace_weight(name, LinearWeight(bits, axis=0))


def test_where_every_cost_is_too_much_they_have_the_most_bits(tmp_path: Path) -> None:
    model, held, expected = quantized()
    assert set(search_bits(model, held, asked(tmp_path, Judge(model, expected), -1.0)).values()) == {8}
    assert {held.weight(name).bits for name in held.weight_names()} == {8}


@pytest.mark.slow
@pytest.mark.parametrize("stop", [0, 1, 5])
def test_one_that_was_cut_off_goes_on(tmp_path: Path, stop: int) -> None:
    model, held, expected = quantized()
    whole = Judge(model, expected)
    found = search_bits(model, held, asked(tmp_path / "whole", whole))
    model, held, _ = quantized()
    with pytest.raises(KeyboardInterrupt):
        search_bits(model, held, asked(tmp_path / "part", Judge(model, expected, stop)))
    model, held, _ = quantized()
    rest = Judge(model, expected)
    assert search_bits(model, held, asked(tmp_path / "part", rest)) == found
    assert rest.asked == whole.asked - stop


@pytest.mark.slow
def test_costs_of_another_network_or_a_damaged_file_are_measured_again(tmp_path: Path) -> None:
    counts = []
    for seed, content in itertools.product((0, 1), (None, "{", "[]", '{"about": 1, "costs": 2}')):
        model, held, expected = quantized(seed)
        judge = Judge(model, expected)
        if content is not None:
            (tmp_path / "costs.json").write_text(content)
        search_bits(model, held, asked(tmp_path, judge))
        counts.append(judge.asked)
    assert min(counts) > 3


def test_where_no_weight_is_rounded_there_is_nothing_to_search(tmp_path: Path) -> None:
    model, held, expected = quantized(bits_activations=8, bits_parameters=None)
    assert searched(model, held) == {}
    with pytest.raises(ConfigError, match="--qe-bit-search: no weight is rounded over its own range"):
        search_bits(model, held, asked(tmp_path, Judge(model, expected)))
