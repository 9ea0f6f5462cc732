"""A summary of one's own: what it gives, or one line."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from raydistill.compression.summaries import ModuleRow, own_table
from raydistill.errors import ConfigError, DataError
from tests.compression.summaries.own import Norm

OWN = "tests.compression.summaries.own:"


def mixed(model: nn.Module, example_input: tuple[object, ...]) -> list[object]:
    return [Norm("a", (1,), 1.0, None), ModuleRow("a", "b", 1, 0, "")]


def mendable(model: nn.Module, example_input: tuple[object, ...]) -> list[object]:
    raise DataError("bring the data")


def test_its_rows_are_those_of_the_function() -> None:
    model = nn.Linear(3, 2)
    rows = own_table(f"{OWN}norms", model, (torch.zeros(1, 3),), "KIND")
    weight = model.weight.detach()
    norm = float((weight**2).sum().sqrt())
    assert [getattr(row, "weight") for row in rows] == ["weight", "total"]  # noqa: B009
    assert [getattr(row, "norm") for row in rows] == pytest.approx([norm, norm])  # noqa: B009


@pytest.mark.parametrize(
    ("name", "says"),
    [
        (f"{OWN}none", "must give a list of rows, dataclasses of one kind, got []"),
        (f"{OWN}words", "must give a list of rows"),
        (f"{__name__}:mixed", "must give a list of rows"),
        (f"{OWN}fails", "fails (KeyError: 'fc9')"),
        (f"{OWN}Norm", "is no function"),
        (f"{OWN}norm", "did you mean"),
    ],
)
def test_anything_else_is_one_line(name: str, says: str) -> None:
    with pytest.raises(ConfigError, match=r"^KIND: ") as caught:
        own_table(name, nn.Linear(3, 2), (torch.zeros(1, 3),), "KIND")
    assert says in str(caught.value)


def test_an_error_that_is_a_line_already_stays_it() -> None:
    with pytest.raises(DataError, match=r"^bring the data$"):
        own_table(f"{__name__}:mendable", nn.Linear(3, 2), (), "KIND")
