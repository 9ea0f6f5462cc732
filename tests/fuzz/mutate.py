"""Wrong files from right ones: values replaced, keys lost, misspelt and moved, bytes changed."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

from hypothesis import strategies as st

ODD = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 12),
    st.sampled_from([10**9, -(10**9), 2**63, 10**30, 0.5, -0.5, 1.0, 1e-300, 1e300]),
    st.floats(),
    st.text(max_size=6),
    st.sampled_from(
        ["conv.weight", "fc.weight", "norm.weight", "module.conv.weight", "os:system", "*", "", "\ud800", "a\0b"]
    ),
    st.lists(st.one_of(st.none(), st.integers(-3, 9), st.floats(), st.text(max_size=4)), max_size=4),
    st.dictionaries(st.text(max_size=5), st.one_of(st.integers(-3, 9), st.text(max_size=4), st.none()), max_size=3),
)


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    """(holder, key) of everything inside, outer before inner."""
    keys = list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else []
    for key in keys:
        yield value, key
        yield from places(value[key])


@st.composite
def mutated(draw: st.DrawFn, originals: list[Any], words: list[str]) -> Any:
    """One of `originals` with one to four changes. words: what may take the place of a text (class names, keys)."""
    result = copy.deepcopy(draw(st.sampled_from(originals)))
    for _ in range(draw(st.integers(1, 4))):
        found = list(places(result))
        if not found:
            break
        holder, key = found[draw(st.integers(0, len(found) - 1))]
        change = draw(st.integers(0, 5))
        if change == 0:
            del holder[key]
        elif change == 1 and isinstance(holder, dict):
            holder[draw(st.one_of(st.sampled_from(words), st.text(max_size=5)))] = holder.pop(key)
        elif change == 2:
            holder[key] = draw(st.sampled_from(words))
        elif change == 3:
            other, place = found[draw(st.integers(0, len(found) - 1))]
            holder[key] = copy.deepcopy(other[place])
        else:
            holder[key] = draw(ODD)
    return result


@st.composite
def damaged(draw: st.DrawFn, originals: list[bytes]) -> bytes:
    """One of `originals` cut, with bytes changed, repeated, put in or left out."""
    content = bytearray(draw(st.sampled_from(originals)))
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, max(0, len(content) - 1)))
        change = draw(st.integers(0, 4))
        if change == 0:
            del content[at:]
        elif change == 1:
            content[at : at + 1] = draw(st.binary(min_size=1, max_size=1))
        elif change == 2:
            content[at:at] = draw(st.binary(max_size=8))
        elif change == 3:
            content[at : at + draw(st.integers(1, 40))] = b""
        else:
            content[at:at] = content[at : at + draw(st.integers(1, 40))]
    return bytes(content)
