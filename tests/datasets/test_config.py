"""A dataset's settings: one class, wherever it is looked for, and its image size in words."""

from __future__ import annotations

import pytest

from raydistill import datasets, parts
from raydistill.datasets import config
from raydistill.errors import ConfigError
from raydistill.parts.data import sides


def test_it_is_the_part_of_a_run_under_its_old_name() -> None:
    assert config.DatasetConfig is parts.DatasetConfig is datasets.DatasetConfig
    assert config.DatasetConfig("digits", validation=0.2) == parts.DatasetConfig(name="digits", validation=0.2)


@pytest.mark.parametrize(
    ("text", "size"), [("224x160", (224, 160)), ("32", (32, 32)), ("8,9", (8, 9)), (" 8 X 9 ", (8, 9))]
)
def test_a_size_is_height_and_width_or_one_for_both(text: str, size: tuple[int, int]) -> None:
    assert sides(text) == size


@pytest.mark.parametrize("text", ["", "0", "x", "3x", "3x4x5", "-3", "3.5", "65536", "big"])
def test_other_text_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=r"--image-size: must be height x width in pixels, got .*; such as 224x224"):
        sides(text)
