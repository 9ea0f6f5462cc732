"""Which files of tests an expression of marks (``-m``) leaves out as a whole."""

from __future__ import annotations

import functools
import itertools
import re

from _pytest.mark.expression import Expression

_OF_THE_FILE = re.compile(r"^pytestmark\s*=(.*?)(?=^\S|\Z)", re.MULTILINE | re.DOTALL)
_WORDS = frozenset({"and", "or", "not", "True", "False"})


def of_file(text: str) -> frozenset[str]:
    """The marks that all tests of a file have; it is not imported for that."""
    said = _OF_THE_FILE.search(text)
    if said is None:
        return frozenset()
    return frozenset(re.findall(r"pytest\.mark\.(\w+)", re.sub(r"#.*", "", said.group(1).partition("\n]")[0])))


@functools.cache
def none_of(marks: frozenset[str], expression: str) -> bool:
    """Whether no test with at least these marks is wanted, whatever others it has."""
    others = sorted(set(re.findall(r"[A-Za-z_]\w*", expression)) - _WORDS - marks)
    compiled = Expression.compile(expression)

    def wanted(present: frozenset[str]) -> bool:
        return compiled.evaluate(lambda name, /, **_: name in present)

    return not any(
        wanted(marks | {name for name, there in zip(others, choice, strict=True) if there})
        for choice in itertools.product((False, True), repeat=len(others))
    )
