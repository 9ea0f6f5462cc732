"""Who says on which Ray a command runs."""

from __future__ import annotations

import pytest

from raydistill.cluster.address import Address, choose


@pytest.mark.parametrize(
    ("option", "variable", "expected"),
    [
        (None, None, None),
        (None, "", None),
        ("a:1", None, Address("a:1", "--address")),
        ("a:1", "b:2", Address("a:1", "--address")),
        (None, " b:2 ", Address("b:2", "RAY_ADDRESS")),
        ("auto", "b:2", Address("auto", "--address")),
        ("local", "b:2", None),
        (None, "local", None),
        ("", "b:2", Address("", "--address")),  # an empty shell variable: refused, not taken for another
    ],
)
def test_the_option_then_the_variable_then_this_machine(
    option: str | None, variable: str | None, expected: Address | None
) -> None:
    assert choose(option, variable) == expected


def test_a_line_names_what_has_to_be_mended() -> None:
    assert (str(Address("a:1")), Address("a:1").where) == ("a:1", "--address a:1")
    given = Address("b:2", "RAY_ADDRESS")
    assert (str(given), given.where) == ("b:2 (RAY_ADDRESS)", "RAY_ADDRESS=b:2")
