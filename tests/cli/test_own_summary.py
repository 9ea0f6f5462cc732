"""``raydistill summary pkg.mod:function``: a table of one's own."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable

import pytest
import torch

from raydistill import models
from tests.cli.conftest import Ended

Command = Callable[..., Ended]
OWN = "tests.compression.summaries.own:"


def test_it_is_a_table_like_the_others(raydistill: Command) -> None:
    ended = raydistill("summary", f"{OWN}norms", "--arch", "simplenet_cifar")
    assert (ended.code, ended.err) == (0, "")
    lines = [line.split() for line in ended.out.splitlines() if line.strip()]
    assert lines[0] == ["weight", "shape", "norm", "largest"]
    assert lines[2][:2] == ["conv1.weight", "6x3x5x5"]
    assert len(lines[-1]) == 2, "the total has neither shape nor largest"
    assert lines[-1][0] == "total"


def test_all_of_it_is_csv(raydistill: Command) -> None:
    ended = raydistill("summary", f"{OWN}norms", "--arch", "simplenet_cifar", "--format", "csv")
    rows = list(csv.DictReader(io.StringIO(ended.out)))
    shapes = [(name, tuple(w.shape)) for name, w in models.create("simplenet_cifar", 10).named_parameters()]
    wanted = [(name, "x".join(map(str, shape))) for name, shape in shapes if len(shape) > 1]
    assert [(row["weight"], row["shape"]) for row in rows[:-1]] == wanted
    assert sum(float(row["norm"]) for row in rows[:-1]) == pytest.approx(float(rows[-1]["norm"]))
    assert torch.isfinite(torch.tensor([float(row["largest"]) for row in rows[:-1]])).all()


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        (f"{OWN}norm", "KIND: module 'tests.compression.summaries.own' has no such summary, got"),
        (f"{OWN}Norm", "KIND: is no function, got"),
        (f"{OWN}none", "must give a list of rows, dataclasses of one kind, got []"),
        (f"{OWN}words", "must give a list of rows, dataclasses of one kind, got 'fine'"),
        (f"{OWN}fails", "fails (KeyError: 'fc9')"),
        ("sparsities", "KIND: no such summary, got 'sparsities'"),
    ],
)
def test_what_is_wrong_is_one_line(raydistill: Command, kind: str, says: str) -> None:
    ended = raydistill("summary", kind, "--arch", "simplenet_cifar")
    assert ended.code == 2
    assert says in ended.err
    assert len(ended.err.strip().splitlines()) == 1
