from __future__ import annotations

import pytest

from tests.marks import none_of, of_file


@pytest.mark.parametrize(
    ("text", "marks"),
    [
        ("import pytest\npytestmark = pytest.mark.slow  # it takes seconds, as pytest.mark.gpu does\n", {"slow"}),
        ("pytestmark = [pytest.mark.ray, pytest.mark.slow]\nx = pytest.mark.gpu\n", {"ray", "slow"}),
        ("pytestmark = [\n    pytest.mark.ray,\n    pytest.mark.slow,\n]\n\n@pytest.mark.gpu\n", {"ray", "slow"}),
        ("@pytest.mark.slow\ndef test(): ...\n", set()),
        ("def f():\n    pytestmark = pytest.mark.slow\n", set()),
    ],
)  # fmt: skip
def test_marks_of_a_whole_file(text: str, marks: set[str]) -> None:
    assert of_file(text) == marks


@pytest.mark.parametrize(
    ("marks", "expression", "none"),
    [
        ({"slow"}, "not slow", True),
        ({"slow"}, "not slow and not ray", True),
        ({"ray"}, "not slow and not ray", True),
        ({"slow"}, "slow", False),
        ({"slow"}, "slow and ray", False),  # one of its tests may start Ray
        ({"slow"}, "gpu or slow", False),
        ({"slow"}, "not (slow or gpu)", True),
        (set(), "not slow", False),
        ({"gpu"}, "not cluster and not long", False),
    ],
)
def test_what_an_expression_leaves_out_whatever_else_a_test_has(marks: set[str], expression: str, none: bool) -> None:
    assert none_of(frozenset(marks), expression) is none
