"""``raydistill check`` lists what a network offers where a schedule prunes structures, and elsewhere if it is asked."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.conftest import Ended

pytestmark = pytest.mark.slow

Command = Callable[..., Ended]
SCHEDULE = """
version: 1
pruners:
  inner: {class: CoupledPruner, final_sparsity: 0.5, weights: [conv2.weight, fc1.weight]}
policies:
  - {pruner: {instance_name: inner}, epochs: [1]}
"""
PLAIN = SCHEDULE.replace("CoupledPruner", "RankedPruner")


def rows(text: str) -> list[str]:
    return [" ".join(line.split()) for line in text.splitlines()]


def test_a_schedule_of_structures_says_which_it_takes(raydistill: Command, tmp_path: Path) -> None:
    file = tmp_path / "s.yaml"
    file.write_text(SCHEDULE)
    ended = raydistill("check", file, "--arch", "simplenet_cifar")
    assert (ended.code, ended.err) == (0, "")
    found = rows(ended.out)
    assert "structures couplings of them % of parameters taken by" in found
    assert any(line.startswith("Filters 2 22 ") and line.endswith("inner: 1") for line in found)
    assert any(line.startswith("Neurons 2 204 ") and line.endswith("inner: 1") for line in found)
    assert "stays: fc3: an output of the network" in found


def test_others_are_not_looked_at_unless_somebody_asks(raydistill: Command, tmp_path: Path) -> None:
    file = tmp_path / "s.yaml"
    file.write_text(PLAIN)
    assert "couplings" not in raydistill("check", file, "--arch", "simplenet_cifar").out
    found = rows(raydistill("check", file, "--arch", "simplenet_cifar", "--structures").out)
    assert any(line.startswith("Filters 2 22 ") and "inner" not in line for line in found)
