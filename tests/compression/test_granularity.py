from __future__ import annotations

import numpy as np
import pytest
import torch

from raydistill.compression.granularity import MENU, fault_of, granularity
from raydistill.errors import ConfigError
from tests.compression.own import Pairs

CONV = torch.arange(4 * 6 * 2 * 3, dtype=torch.float32).reshape(4, 6, 2, 3)
MATRIX = torch.arange(24, dtype=torch.float32).reshape(4, 6)


@pytest.mark.parametrize(
    ("name", "weight", "sums"),
    [
        ("Filters", CONV, CONV.numpy().sum((1, 2, 3))),
        ("3D", CONV, CONV.numpy().sum((1, 2, 3))),
        ("Channels", CONV, CONV.numpy().sum((0, 2, 3))),
        ("2D", CONV, CONV.numpy().sum((2, 3)).ravel()),
        ("4D", CONV, [CONV.numpy().sum()]),
        ("Rows", MATRIX, MATRIX.numpy().sum(1)),
        ("Cols", MATRIX, MATRIX.numpy().sum(0)),
        ("Channels", MATRIX, MATRIX.numpy().sum(0)),
        ("Element", MATRIX, MATRIX.numpy().ravel()),
    ],
)
def test_groups_are_numpys_sums_over_the_other_axes(name: str, weight: torch.Tensor, sums) -> None:
    assert MENU[name].groups(weight).sum(1).tolist() == list(sums)


@pytest.mark.parametrize("name", MENU)
def test_expand_marks_exactly_the_elements_of_a_group(name: str) -> None:
    structure = MENU[name]
    weight = CONV if CONV.dim() in structure.dimensions else MATRIX
    count = structure.groups(weight).shape[0]
    for group in {0, count // 2, count - 1}:
        keep = torch.ones(count)
        keep[group] = 0
        mask = structure.expand(keep, weight)
        assert sorted(weight[mask == 0].tolist()) == sorted(structure.groups(weight)[group].tolist())


def test_blocks_by_a_loop_over_positions() -> None:
    structure = granularity("group_type", "Blocks", [2, 3, 1, 1])
    expected = []
    array = CONV.numpy()
    for f in range(0, 4, 2):
        for c in range(0, 6, 3):
            for y in range(2):
                for x in range(3):
                    expected.append(array[f : f + 2, c : c + 3, y, x].sum())
    assert structure.groups(CONV).sum(1).tolist() == expected
    keep = torch.ones(len(expected))
    keep[5] = 0  # filters 0 and 1, channels 0 to 2, the last of six positions
    zeros = np.argwhere(structure.expand(keep, CONV).numpy() == 0).tolist()
    assert zeros == [[f, c, 1, 2] for f in (0, 1) for c in (0, 1, 2)]


@pytest.mark.parametrize(
    ("name", "block_shape", "says"),
    [
        ("Filter", None, "group_type: must be one of"),
        (3, None, "group_type: must be one of"),
        ("Blocks", None, "block_shape: is missing"),
        ("Blocks", [1, 8], "block_shape: must be four whole numbers"),
        ("Blocks", [1, 0, 1, 1], "block_shape: must be four whole numbers"),
        ("Blocks", [1, 8, 3, 3], "block_shape: must end in 1, 1"),
        ("Filters", [1, 8, 1, 1], "block_shape: is for group type Blocks only"),
    ],
)
def test_bad_names_and_shapes_are_one_line(name: object, block_shape: object, says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        granularity("group_type", name, block_shape)
    assert str(caught.value).startswith(says)


def test_a_weight_that_has_no_such_groups_is_named() -> None:
    assert "needs a weight of 3 or 4 or 5 dimensions, this one has 2" in MENU["Filters"].fault_of(MATRIX)
    assert "do not divide (4, 6, 2, 3)" in granularity("g", "Blocks", [3, 1, 1, 1]).fault_of(CONV)


@pytest.mark.parametrize(
    ("name", "dimensions"),
    [
        ("Element", "123456"), ("Filters", "345"), ("3D", "345"), ("Channels", "2345"), ("2D", "345"), ("4D", "12345"),
        ("Rows", "2"), ("Cols", "2"),
    ],
)  # fmt: skip
def test_of_how_many_dimensions_a_weight_may_be(name: str, dimensions: str) -> None:
    for count in range(1, 8):
        assert (count in MENU[name].dimensions) == (str(count) in dimensions), count


class Flat(Pairs):
    """Groups that are told flat."""

    def groups(self, weight: torch.Tensor) -> torch.Tensor:
        return weight.flatten()


class Half(Pairs):
    """Half of the elements are in no group."""

    def groups(self, weight: torch.Tensor) -> torch.Tensor:
        return weight.reshape(-1, 2)[::2]


class Mirrored(Pairs):
    """Each group's value goes to another."""

    def expand(self, keep: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        return super().expand(keep.flip(0), weight)


class Column(Pairs):
    """Values in a row, in place of the weight's shape."""

    def expand(self, keep: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        return super().expand(keep, weight).flatten()


class Raises(Pairs):
    def groups(self, weight: torch.Tensor) -> torch.Tensor:
        raise ValueError("no")


@pytest.mark.parametrize(
    ("kind", "fault"),
    [
        (Pairs, ""),
        (Flat, r"group type g: groups() must give every element once, as (groups, elements): of (4, 6) it gives (24,)"),
        (Half, r"groups() must give every element once, as (groups, elements): of (4, 6) it gives (6, 2)"),
        (Mirrored, "group type g: expand() must give each element of (4, 6) its group's value"),
        (Column, "group type g: expand() must give each element of (4, 6) its group's value"),
        (Raises, "group type g fails on (4, 6) (ValueError: no)"),
    ],
)
def test_what_is_wrong_with_a_granularity_of_ones_own_is_said(kind: type[Pairs], fault: str) -> None:
    found = fault_of(kind("g", None, (2,)), MATRIX.clone().requires_grad_())
    assert fault in found
    assert bool(found) == bool(fault)
    assert "needs a weight of 2 dimensions, this one has 4" in fault_of(kind("g", None, (2,)), CONV)


def test_names_that_are_none_and_shapes_of_blocks() -> None:
    assert fault_of(MENU["Filters"], CONV) == fault_of(granularity("g", "Blocks", (1, 6, 1, 1)), CONV) == ""
    assert granularity("g", "tests.compression.own:PAIRS").name == "Pairs"
    for name, shape, said in (
        ("Filter", None, "g: must be one of Element, .*did you mean 'Filters'"),
        (3, None, "g: must be one of Element"),
        ("Filters", [1, 1, 1, 1], "block_shape: is for group type Blocks only"),
        ("tests.compression.own:PAIRS", [1, 1, 1, 1], "block_shape: is for group type Blocks only"),
        ("Blocks", None, "block_shape: is missing"),
        ("Blocks", [1, 1, 1], "block_shape: must be four whole numbers"),
        ("Blocks", [0, 1, 1, 1], "block_shape: must be four whole numbers"),
        ("Blocks", [True, 1, 1, 1], "block_shape: must be four whole numbers"),
        ("Blocks", [1.0, 1, 1, 1], "block_shape: must be four whole numbers"),
        ("Blocks", [1, 1, 2, 1], "block_shape: must end in 1, 1"),
        ("Blocks", [1, 1, 1, 2], "block_shape: must end in 1, 1"),
    ):
        with pytest.raises(ConfigError, match=said):
            granularity("g", name, shape)
    with pytest.raises(ConfigError, match="g: must be one of Filters, got 'Element'"):
        granularity("g", "Element", allowed=lambda name: name == "Filters")
    with pytest.raises(ConfigError, match="g: must be one of"):
        granularity("g", "tests.compression.own:PAIRS", own=False)
