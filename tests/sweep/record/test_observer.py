"""Who watches a sweep overrides what is of interest, and nothing else."""

from __future__ import annotations

import inspect

import pytest

from raydistill.cli.progress import Progress
from raydistill.errors import Fault, RayLostError
from raydistill.records import RUNNING, EpochMetrics, TrialRecord
from raydistill.sweep.record.observer import Observer, Opening


def test_one_that_overrides_nothing_bears_everything_in_silence(capsys: pytest.CaptureFixture[str]) -> None:
    observer = Observer()
    record = TrialRecord("t0", {}, RUNNING, "a", "d", 0)
    metrics = EpochMetrics(0, 1, 0.0, {}, 0.1, 0.0, {}, 1.0, 1.0, 0)
    given = {
        "step": ("x",), "warning": ("x",), "started": (), "opening": (Opening("s", 1, 1, 1, "d", "a", {"t0": record}),),
        "baseline_epoch": (metrics,), "trunk_epoch": (metrics,), "common_epoch": (metrics,),
        "trial": (record,), "front": ([],),
        "lost": (RayLostError(Fault("ray", "has gone")),), "beat": (),
    }  # fmt: skip
    hooks = {name for name, _ in inspect.getmembers(Observer, inspect.isfunction) if not name.startswith("_")}
    assert set(given) == hooks
    assert [getattr(observer, name)(*arguments) for name, arguments in given.items()] == [None] * len(hooks)
    assert capsys.readouterr() == ("", "")


def test_the_command_lines_is_called_as_it_expects() -> None:
    for name, hook in inspect.getmembers(Observer, inspect.isfunction):
        assert list(inspect.signature(getattr(Progress, name)).parameters) == list(inspect.signature(hook).parameters)
