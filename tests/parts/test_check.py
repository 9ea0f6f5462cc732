"""The bounds of a part's fields hold where no file was read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

import pytest
from annotated_types import Ge

from raydistill.errors import ConfigError
from raydistill.parts import Setting, out_of_bounds
from raydistill.parts.kinds import Positive
from raydistill.training.loop import check_run
from tests.parts.averaging import Averaging, Run


def test_bounds_hold_without_a_file_too() -> None:
    faults = out_of_bounds(Averaging(decay=1.0, start_step=0, kind="odd"), "averaging.")  # type: ignore[arg-type]
    assert [str(fault) for fault in faults] == [
        "averaging.decay: must be a number from 0 to below 1, got 1.0",
        "averaging.start_step: must be a whole number from 1 up, got 0",
        "averaging.kind: is not known, got 'odd'; use plain or biased",
    ]


@dataclass(frozen=True)
class _Rates:
    above: Annotated[Positive, Setting()] = 1.0
    from_zero: Annotated[Positive, Setting(excluded_too=True)] = 1.0
    most: Annotated[int | None, Ge(1), Setting()] = None


@pytest.mark.parametrize(("value", "rules"), [
    (0.0, ["above: must be a number above 0, got 0.0"]),
    (-1, ["above: must be a number above 0, got -1", "from_zero: must be a number from 0 up, got -1"]),
    (1e39, ["above: must be a number above 0, below 3.40282e+38, got 1e+39",
            "from_zero: must be a number from 0 up, below 3.40282e+38, got 1e+39"]),
    (True, ["above: must be a number above 0, got True", "from_zero: must be a number from 0 up, got True"]),
])  # fmt: skip
def test_a_bound_that_is_excluded_of_files_only(value: Any, rules: list[str]) -> None:
    assert [str(fault) for fault in out_of_bounds(_Rates(value, value), "")] == rules


def test_none_has_no_bounds_but_a_number_in_its_place_has() -> None:
    assert out_of_bounds(_Rates(most=None), "") == []
    assert str(out_of_bounds(_Rates(most=0), "")[0]) == "most: must be a whole number from 1 up, got 0"


def test_a_run_says_all_that_is_out_of_bounds() -> None:
    with pytest.raises(ConfigError) as caught:
        check_run(Run("a", epochs=-1, lr=-1.0, threads=0, decay=2.0))
    assert [fault.where for fault in caught.value.faults] == [
        "training.decay", "training.epochs", "training.lr", "training.threads",
    ]  # fmt: skip
