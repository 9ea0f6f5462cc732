"""Aliases by a rule: what the section may say, and which trial each means."""

from __future__ import annotations

from typing import Any

import pytest

from raydistill.errors import ConfigError
from raydistill.search import front_rows
from raydistill.search.aliases import Alias, chosen, parse_aliases
from raydistill.search.constraints import Constraint
from raydistill.search.pick import Rule
from tests.search.test_pick import METRICS, OBJECTIVES, RECORDS


def test_the_section() -> None:
    said: dict[str, Any] = {
        "small": {"best": "top1", "where": "size_bytes <= 150000"},
        "gentle": {"where": ["top1_drop <= 0.005", "macs < 1e6"]},
        "fast": {"best": "latency_ms"},
        "own": {"best": "energy", "where": "energy <= 3"},
    }
    drop, macs = Constraint("top1_drop", "<=", 0.005), Constraint("macs", "<", 1e6)
    assert parse_aliases(said, "space.yaml: aliases", METRICS, ["energy"]) == (
        Alias("small", Rule(best="top1", where=(Constraint("size_bytes", "<=", 150000.0),))),
        Alias("gentle", Rule(where=(drop, macs))),
        Alias("fast", Rule(best="latency_ms")),
        Alias("own", Rule(best="energy", where=(Constraint("energy", "<=", 3.0),))),
    )
    assert str(Rule(best="top1", where=(drop, macs))) == "best top1 top1_drop <= 0.005 and macs < 1e+06"
    assert parse_aliases({}, "aliases", METRICS) == ()


@pytest.mark.parametrize(
    ("said", "line"),
    [
        ({"a b": {"best": "top1"}}, "f: aliases.a b: an alias has letters, digits, '_' and '-', got 'a b'; rename it"),
        ({"Latest": {"best": "top1"}}, "f: aliases.Latest: is MLflow's own, got 'Latest'; rename it"),
        ({"v12": {"best": "top1"}}, "f: aliases.v12: is MLflow's own, got 'v12'; rename it"),
        ({"pareto-x": {"best": "top1"}}, "f: aliases.pareto-x: is a sweep's own, got 'pareto-x'; rename it"),
        ({"a": {}}, "f: aliases.a: must say best, where or both; as in {best: top1, where: 'size_bytes <= 150000'}"),
        ({"a": {"best": "top"}}, "f: aliases.a.best: unknown figure, got 'top'; did you mean 'top1'?"),
        ({"a": {"where": "mac <= 3"}}, "f: aliases.a.where[0]: unknown figure, got 'mac'; did you mean 'macs'?"),
        ({"a": {"where": ["macs <= 1", "small"]}}, "f: aliases.a.where[1]: must be a figure, one of <= >= < >, and a"),
    ],
)
def test_what_is_wrong_is_one_line(said: dict[str, Any], line: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_aliases(said, "f: aliases", METRICS)
    (fault,) = caught.value.faults
    assert str(fault).startswith(line)


def test_all_faults_come_together() -> None:
    with pytest.raises(ConfigError) as caught:
        parse_aliases({"a": {"best": "x", "where": "y <= 1"}, "b": {}}, "f", METRICS)
    assert len(caught.value.faults) == 3


def test_each_means_what_pick_would_take() -> None:
    rows = front_rows(list(RECORDS.values()), OBJECTIVES, ())
    aliases = (
        Alias("gentle", Rule(where=(Constraint("top1_drop", "<=", 0.005),))),
        Alias("least", Rule(best="macs")),
        Alias("none", Rule(best="top1", where=(Constraint("macs", "<=", 1.0),))),
    )
    found, without = chosen(aliases, rows, METRICS, OBJECTIVES, RECORDS)
    assert {name: row.record.trial_id for name, row in found.items()} == {"gentle": "t0001", "least": "t0003"}
    assert set(without) == {"none"}
    assert without["none"].startswith("no trial meets macs <= 1; nearest: t0003 (macs 10, not <= 1)")
