"""Bits by default and by regular expression; what cannot be is said."""

from __future__ import annotations

from typing import Any

import pytest

from raydistill.compression.quantizers.overrides import checked_bits, checked_overrides
from raydistill.errors import ConfigError

DEFAULTS = {"bits_weights": 8, "bits_activations": 8, "bits_bias": None}


def test_the_first_pattern_that_matches_a_whole_name_counts() -> None:
    found = checked_overrides({"conv1": {"bits_weights": None}, r"conv\d": {"bits_weights": 4}}, DEFAULTS, ())
    assert found.of("conv1") == {**DEFAULTS, "bits_weights": None}
    assert found.of("conv2")["bits_weights"] == 4
    assert found.of("my.conv2") == DEFAULTS
    assert found.idle(["conv2", "fc"]) == ["conv1"]


def test_32_bits_are_a_float() -> None:
    assert checked_bits("bits", 32) is None
    assert checked_bits("bits", None) is None
    assert checked_bits("bits", 1) == 1


@pytest.mark.parametrize("value", [0, 33, -1, True, 4.0, "8"])
def test_bits_that_cannot_be(value: Any) -> None:
    with pytest.raises(ConfigError, match="bits_weights: must be a whole number from 1 to 32, or null"):
        checked_bits("bits_weights", value)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ([1], "overrides: must map names"),
        ({"fc": 3}, "overrides.fc: must map arguments to values"),
        ({"fc": {"bits_wieghts": 3}}, "did you mean 'bits_weights'?"),
        ({"fc": {"bits_weights": 0}}, "overrides.fc.bits_weights: must be a whole number"),
        ({"fc[": {}}, "is no regular expression"),
        ({"(a*)*": {}}, "may take for ever"),
    ],
)
def test_overrides_that_cannot_be(value: Any, text: str) -> None:
    with pytest.raises(ConfigError) as error:
        checked_overrides(value, DEFAULTS, ())
    assert text in str(error.value)
