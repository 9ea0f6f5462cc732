"""``warm_start`` as written: what kind each entry is, and every fault of all of them together."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from raydistill.errors import ConfigError
from raydistill.sweep.file.warm_entries import (
    AutoEntry,
    ScheduleEntry,
    SweepEntry,
    ValuesEntry,
    auto_of,
    parse_entries,
    trials_of,
)

LEVEL = """
pruners: {level: {class: SparsityLevelParameterPruner, levels: {fc1.weight: 0.5}}}
policies: [{pruner: {instance_name: level}, epochs: [0]}]
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "schedules").mkdir()
    (tmp_path / "schedules/level.yaml").write_text(LEVEL)
    return tmp_path / "space.yaml"


def test_each_kind_is_told_by_its_form_and_said_again_as_it_was_written(file: Path) -> None:
    values = {"training.lr": 0.02, "policies.agp.frequency": 2, "search.on": True}
    node = [values, "schedules/level.yaml", {"sweep": "first", "top": 5}, {"sweep": "b", "top": 1, "tracking_uri": "u"}]
    entries = parse_entries(node, file)
    assert [type(entry) for entry in entries] == [ValuesEntry, ScheduleEntry, SweepEntry, SweepEntry]
    assert entries[0].said() == values
    assert entries[1].said()["pruners"]["level"]["levels"] == {"fc1.weight": 0.5}
    assert entries[2].said() == {"sweep": "first", "tracking_uri": None, "top": 5}
    assert entries[3] == SweepEntry("b", "u", 1)
    assert trials_of(entries) == 1 + 1 + 5 + 1


def test_auto_stands_alone_or_among_others_and_takes_what_room_there_is(file: Path) -> None:
    assert parse_entries("auto", file) == (AutoEntry(),)
    entries = parse_entries([{"training.lr": 0.02}, "auto"], file)
    assert entries[1:] == (AutoEntry(),)
    assert [entry.said() for entry in entries] == [{"training.lr": 0.02}, "auto"]
    assert trials_of(entries) == 1
    (pool,) = parse_entries({"auto": 100}, file)
    assert (pool, pool.said()) == (AutoEntry(100), {"auto": 100})
    assert auto_of([*entries, ScheduleEntry]) == AutoEntry()  # type: ignore[list-item]
    assert auto_of(entries[:1]) is None


@pytest.mark.parametrize(
    ("node", "line"),
    [
        (
            {"auto": 5},
            "warm_start[0].auto: must be a whole number from 16 to 10000: how many are pruned at once to choose",
        ),
        ({"auto": True}, "warm_start[0].auto: must be a whole number"),
        ([{"auto": 50, "top": 3}], "warm_start[0]: auto stands alone in its entry"),
    ],
)
def test_a_pool_is_a_number(file: Path, node: object, line: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_entries(node, file)
    (said,) = str(caught.value).splitlines()
    assert line in said


def test_every_fault_is_said_at_once(file: Path) -> None:
    node = [
        {"training.lr": math.inf, "training.momentum": [0.9]},
        "schedules/levle.yaml",
        {"sweep": "x", "topp": 3},
        {},
        "elsewhere/level.yaml",
    ]
    with pytest.raises(ConfigError) as caught:
        parse_entries(node, file)
    lines = [line.replace(f"{file}: ", "") for line in str(caught.value).splitlines()]
    assert lines == [
        "warm_start[0].training.lr: must be a finite number, text, true or false, got inf",
        "warm_start[0].training.momentum: must be a finite number, text, true or false, got [0.9]",
        "warm_start[1]: no such schedule file, got 'schedules/levle.yaml'; did you mean 'level.yaml'?",
        "warm_start[2].top: is missing; add 'top:'",
        "warm_start[2].topp: unknown key; did you mean 'top'?",
        "warm_start[3]: must be values by key path, a schedule file or a sweep, got {}; as in "
        "{per_layer.fc1.weight.final_sparsity: 0.9}",
        "warm_start[4]: no such schedule file, got 'elsewhere/level.yaml'; paths are relative to the sweep file",
    ]


@pytest.mark.parametrize("node", [[], None, {"training.lr": 0.1}, "schedules/level.yaml"])
def test_it_is_a_list(file: Path, node: object) -> None:
    with pytest.raises(ConfigError, match=r"warm_start: must be a list of at least one start"):
        parse_entries(node, file)
