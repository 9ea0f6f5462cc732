"""Index mappings on tensors."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch_pruning.dependency import index_mapping as theirs

from raydistill.compression.thinning.renumbering import Index, Lost, renumbered, repeats

MAPPINGS = {
    "flatten": theirs._FlattenIndexMapping(3),
    "flatten back": theirs._FlattenIndexMapping(3, reverse=True),
    "into a concatenation": theirs._ConcatIndexMapping([4, 9]),
    "out of a concatenation": theirs._ConcatIndexMapping([4, 9], reverse=True),
    "into a split": theirs._SplitIndexMapping([4, 9]),
    "out of a split": theirs._SplitIndexMapping([4, 9], reverse=True),
    "slice": theirs._SliceIndexMapping(1, 2, 3, 10),
    "slice back": theirs._SliceIndexMapping(1, 2, 3, 10, reverse=True),
    "shared heads": theirs._GQAIndexMapping(2, 2, reverse=True),
}


@pytest.mark.parametrize("name", MAPPINGS)
def test_the_library_maps_one_by_one_to_the_same(name: str) -> None:
    mapping: Any = MAPPINGS[name]
    generator = torch.Generator().manual_seed(0)
    where = torch.randint(0, 12, (20,), generator=generator)
    indices = torch.stack([where, torch.arange(20)])
    found = renumbered(mapping, indices)
    expected = mapping([Index(*pair) for pair in indices.T.tolist()])
    pairs = [(each.idx, -1 if each.root_idx is None else each.root_idx) for each in expected]
    assert sorted(map(tuple, found.T.tolist())) == sorted(pairs)
    assert found.shape[1] == len(pairs)


def test_how_often_an_index_is_repeated_is_known_before_it_is() -> None:
    for name, mapping in MAPPINGS.items():
        assert repeats(mapping) == (3 if name == "flatten" else 1)


def test_nothing_is_mapped_to_nothing() -> None:
    for mapping in MAPPINGS.values():
        assert renumbered(mapping, torch.zeros(2, 0, dtype=torch.int64)).shape == (2, 0)


def test_a_part_whose_end_the_library_does_not_know_is_not_followed() -> None:
    with pytest.raises(Lost):
        renumbered(theirs._SplitIndexMapping([4]), torch.zeros(2, 1, dtype=torch.int64))
