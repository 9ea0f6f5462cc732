"""Zeros left out, and put back where they were."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from raydistill.errors import CheckpointError
from raydistill.export.formats.bitmask import pack, unpack


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(1, 9), min_size=0, max_size=4), st.floats(0.0, 1.0), st.integers(0, 99),
    st.sampled_from([torch.float32, torch.float16, torch.int64]),
)  # fmt: skip
def test_the_same_tensors_come_back(shape: list[int], sparsity: float, seed: int, dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(seed)
    tensor = 10 * torch.randn(shape, generator=generator)
    tensor = (tensor * (torch.rand(shape, generator=generator) >= sparsity)).to(dtype)
    found = unpack(pack({"a.weight": tensor}), "f")
    assert found.keys() == {"a.weight"}
    assert found["a.weight"].dtype == dtype
    assert torch.equal(found["a.weight"], tensor)


def test_the_layout_is_that_of_compressed_tensors() -> None:
    """Written down by hand: rows of nine begin a new byte each, the first element in the lowest bit."""
    tensor = torch.zeros(2, 9)
    tensor[0, 0], tensor[0, 8], tensor[1, 1] = 1.0, 2.0, 3.0
    packed = pack({"w": tensor})
    assert packed["w.bitmask"].tolist() == [[0b00000001, 0b1], [0b00000010, 0b0]]
    assert packed["w.compressed"].tolist() == [1.0, 2.0, 3.0]
    assert packed["w.shape"].tolist() == [2, 9]


def test_what_would_not_get_smaller_stays_whole() -> None:
    dense = torch.ones(64)
    assert list(pack({"w": dense})) == ["w"]
    sparse = torch.zeros(64, 64)
    size = sum(tensor.nbytes for tensor in pack({"w": sparse}).values())
    assert size == 64 * 8 + 16  # a bit an element, and the shape


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda packed: packed.pop("w.shape"), "'w'"),
        (lambda packed: packed.update({"w.compressed": torch.ones(2)}), "3 bits and 2 values"),
        (lambda packed: packed.update({"w.bitmask": torch.zeros(2, 1, dtype=torch.uint8)}), "of another shape"),
        (lambda packed: packed.update({"w.shape": torch.tensor([2, -9])}), "'w'"),
        (lambda packed: packed.update({"w.shape": torch.tensor([1 << 40, 9])}), "of another shape"),
    ],
)
def test_what_does_not_belong_together_is_one_line(change: object, says: str) -> None:
    tensor = torch.zeros(2, 9)
    tensor[0, 0] = tensor[0, 8] = tensor[1, 1] = 1.0
    packed = pack({"w": tensor})
    change(packed)  # type: ignore[operator]
    with pytest.raises(CheckpointError, match=says) as caught:
        unpack(packed, "file")
    assert "\n" not in str(caught.value)
