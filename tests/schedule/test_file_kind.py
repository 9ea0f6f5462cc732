"""A file given to the wrong command is named as what it is."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from raydistill.errors import ConfigError, Fault
from raydistill.schedule import load_schedule, read_yaml
from raydistill.schedule.file_kind import RUN, SCHEDULE, SWEEP, check_kind, kind_of
from raydistill.sweep.file.load import load_sweep
from raydistill.sweep.file.run_file import load_run

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(("folder", "kind"), [("schedules", SCHEDULE), ("search_spaces", SWEEP)])
def test_every_file_here_is_known_for_what_it_is(folder: str, kind: str) -> None:
    for file in (ROOT / folder).glob("*.yaml"):
        found = kind_of(read_yaml(file))
        assert found is not None
        assert found[0] == kind


@pytest.mark.parametrize(
    "said", [{}, {"version": 1}, {"pruner": {}}, {"modle": {}, "serach": {}}, {"pruners": {}, "search": {}}]
)
def test_what_nothing_tells_is_taken_for_what_is_wanted(said: dict[str, Any]) -> None:
    assert kind_of(said) is None
    for wanted in (SCHEDULE, SWEEP, RUN):
        check_kind(said, wanted, "a.yaml")


SAID: dict[str, dict[str, Any]] = {
    SCHEDULE: {"version": 1, "pruners": {}, "policies": []},
    SWEEP: {"version": 1, "name": "a", "model": {"arch": "x"}, "schedule": {}, "search": {}},
    RUN: {"model": {"arch": "x"}, "training": {"epochs": 1}},
}


@pytest.mark.parametrize(
    ("kind", "load", "says"),
    [
        (SWEEP, load_schedule, "is a sweep file (it has 'search'), and a schedule is wanted here; raydistill sweep"),
        (RUN, load_schedule, "is a run file (it has 'model'), and a schedule is wanted here; raydistill compress"),
        (SCHEDULE, load_sweep, "is a schedule (it has 'pruners'), and a sweep file is wanted here; name it in one"),
        (
            SCHEDULE,
            load_run,
            "is a schedule (it has 'pruners'), and a run file is wanted here; give it with --compress",
        ),
        (SWEEP, load_run, "is a sweep file (it has 'search'), and a run file is wanted here; raydistill sweep"),
    ],
)
def test_it_is_one_fault(tmp_path: Path, kind: str, load: Callable[..., Any], says: str) -> None:
    file = tmp_path / "file.yaml"
    file.write_text(yaml.safe_dump(SAID[kind]))
    with pytest.raises(ConfigError) as raised:
        load(file)
    (fault,) = raised.value.faults
    assert isinstance(fault, Fault)
    assert str(fault).startswith(f"{file}: {says}")
