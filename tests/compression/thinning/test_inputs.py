"""Inputs and outputs of any form."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_sequence

from raydistill.compression.thinning import inputs
from raydistill.errors import ConfigError


class Takes(nn.Module):
    def forward(self, a: Tensor, b: int = 0) -> Tensor:
        return a + b


A, INDICES = torch.ones(2), torch.tensor([1, 2])


def test_an_input_positional_inputs_and_named_ones_are_called_so() -> None:
    for example, expected in ((A, 1), ((A, 2), 3), ({"b": 5, "a": A}, 6)):
        assert inputs.call(Takes(), example).tolist() == [expected] * 2  # type: ignore[attr-defined]


def test_floating_point_is_changed_and_all_else_stays_what_it_is() -> None:
    def double(tensor: Tensor) -> Tensor:
        return tensor * 2

    assert inputs.map_tensors(A, double).tolist() == [2, 2]  # type: ignore[union-attr]
    assert inputs.map_tensors(INDICES, double) is INDICES
    found = inputs.map_tensors([A, INDICES, "x"], double)
    assert (found[0].tolist(), found[1], found[2]) == ([2, 2], INDICES, "x")  # type: ignore[index,union-attr]
    assert inputs.map_tensors({"b": 5}, double) == {"b": 5}
    with pytest.raises(ConfigError, match="example_input: cannot be fed to a model, got 'str'"):
        inputs.map_tensors("x", double)


def test_the_models_dtype_is_for_floating_point_only() -> None:
    device, dtype = inputs.kind(nn.Linear(2, 2).double())
    assert (device, dtype) == (torch.device("cpu"), torch.float64)
    assert inputs.kind(nn.ReLU())[1] == torch.float32
    moved = inputs.to_device({"a": A, "i": INDICES, "n": 3}, device, dtype)
    assert [moved["a"].dtype, moved["i"].dtype, moved["n"]] == [torch.float64, torch.int64, 3]  # type: ignore[call-overload,index,union-attr]


def test_noise_is_always_the_same() -> None:
    first, second = (inputs.noise_like((torch.zeros(3, 4), INDICES)) for _ in range(2))
    assert torch.equal(first[0], second[0])  # type: ignore[index,arg-type]
    assert float(first[0].std()) > 0.3  # type: ignore[index,union-attr]
    assert first[1] is INDICES  # type: ignore[index]


def test_the_tensors_of_an_output_in_order_however_it_nests_them() -> None:
    @dataclass
    class Output:
        logits: Tensor
        hidden: tuple[Tensor, ...]
        count: int

    one, two, three = torch.zeros(1), torch.zeros(2), torch.zeros(3)
    packed = pack_sequence([one])
    nested = OrderedDict(first=[one, INDICES], second=Output(two, (three, packed), 3), third=None)  # type: ignore[arg-type]
    assert [tensor.shape[0] for tensor in inputs.tensors(nested)] == [1, 2, 3, 1]
    assert inputs.tensors(Output) == inputs.tensors("x") == inputs.tensors(INDICES) == []
