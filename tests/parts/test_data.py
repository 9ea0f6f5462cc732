"""The dataset's section: what depends on each of its fields."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any

import pytest

from raydistill.parts import DatasetConfig, Role, hashed, identity, names
from raydistill.sweep.file.faults import validate
from raydistill.sweep.file.spec import DatasetSection


def test_where_data_lie_and_who_reads_them_changes_nothing() -> None:
    assert names(DatasetConfig, Role.FREE) == ("data_dir", "workers", "download")
    config = DatasetConfig("digits")
    moved = replace(config, data_dir="/elsewhere", workers=7, download=False)
    assert identity(moved) == identity(config)
    assert hashed(moved, asdict(moved)) == hashed(config, asdict(config))


@pytest.mark.parametrize(
    ("changed", "fixed"),
    [({"augment": "none"}, True), ({"validation": 0.2}, True), ({"split_seed": 1}, True), ({"channels": "grey"}, False),
     ({"image_size": (8, 8)}, False), ({"name": "mnist"}, False), ({"args": {"image": "x"}}, False)],
)  # fmt: skip
def test_what_a_run_goes_on_with_and_what_starts_anew(changed: dict[str, Any], fixed: bool) -> None:
    """Data are known by what they are: by name and fingerprint, not by how a run was told of them."""
    config, other = DatasetConfig("digits"), replace(DatasetConfig("digits"), **changed)
    assert (identity(other) != identity(config)) is fixed
    assert hashed(other, asdict(other)) != hashed(config, asdict(config))


@pytest.mark.parametrize(
    ("said", "line"),
    [
        ({"validation": 1}, "f.yaml: validation: must be below 1, got 1"),
        ({"image_size": [32]}, "f.yaml: image_size"),
        ({"channels": "gray"}, "f.yaml: channels: must be one of rgb, grey, got 'gray'"),
        ({"workers": -1}, "f.yaml: workers: must be at least 0, got -1"),
        ({"datadir": "x"}, "f.yaml: datadir: unknown key; did you mean 'data_dir'?"),
    ],
)
def test_a_wrong_value_is_one_line(said: dict[str, Any], line: str) -> None:
    _, faults = validate(DatasetSection, said, "f.yaml")
    assert len(faults) == 1
    assert str(faults[0]).startswith(line)
    assert "\n" not in str(faults[0])
