"""One tensor, or several."""

from __future__ import annotations

import pytest
import torch

from raydistill.errors import CheckpointError, ConfigError
from raydistill.export.outputs import MENU, kind_named, kind_of_output, parts, together


def test_parts_of_an_output() -> None:
    one, two = torch.zeros(1), torch.ones(2)
    assert parts(one) == (one,)
    assert parts((one, two)) == (one, two)
    assert together([one]) is one
    assert together([one, two]) == (one, two)


def test_the_kind_of_an_output() -> None:
    found = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0), "scores": torch.zeros(0)}
    assert kind_of_output([found, found]).NAME == "detections"
    assert kind_of_output(torch.zeros(2)).NAME == kind_of_output((torch.zeros(2), None)).NAME == "tensor"
    for other in ([{"boxes": torch.zeros(0, 4)}], {}, None):
        with pytest.raises(ConfigError, match="must give a tensor"):
            kind_of_output(other)


def test_a_file_names_one_of_the_menu() -> None:
    assert all(kind_named(name, "m") is kind for name, kind in MENU.items())
    for name in ("detection", 3, None):
        with pytest.raises(CheckpointError, match="no such kind of output"):
            kind_named(name, "m")
