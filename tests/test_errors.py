"""What a user can mend, as one line each."""

from __future__ import annotations

import pickle

import pytest

from raydistill.errors import (
    ABSENT,
    ConfigError,
    DataError,
    Fault,
    RaydistillError,
    TrainingError,
    close_match,
    short,
    users_code,
)  # fmt: skip


def test_a_fault_is_one_line_whatever_is_in_it() -> None:
    fault = Fault("file.yaml: key", "must be\nsmall", "x" * 1000, "cut it")
    assert str(fault).startswith("file.yaml: key: must be small, got 'xxx")
    assert "\n" not in str(fault)
    assert len(str(fault)) < 250
    assert str(Fault("a", "b", None)) == "a: b, got None"
    assert str(Fault("a", "b", ABSENT, "c")) == "a: b; c"


def test_an_error_survives_the_way_from_a_worker() -> None:
    error = ConfigError(Fault("a", "b", 1), Fault("c", "d"))
    again = pickle.loads(pickle.dumps(error))
    assert again.faults == error.faults
    assert str(again) == "a: b, got 1\nc: d"


def test_the_nearest_name_or_all_of_them() -> None:
    assert close_match("conv1.weigth", ["conv1.weight", "fc.bias"]) == "did you mean 'conv1.weight'?"
    assert close_match("zzz", ["b", "a"]) == "use one of: a, b"


def test_of_many_names_a_dozen_are_shown_and_of_none_that_is_said() -> None:
    names = [f"w{index:02}" for index in range(20)]
    assert close_match("zzz", names) == f"use one of: {', '.join(names[:12])}, ... (20 in all)"
    assert close_match("zzz", []) == "nothing is allowed here"


def test_no_password_is_shown_even_where_the_text_is_cut() -> None:
    uri = f"https://me:secretword@host/{'x' * 300}"
    assert "secretword" not in str(Fault("a", f"lies in {uri}", uri, f"look at {uri}"))
    assert "secretword" not in str(RaydistillError(f"lies in {uri}"))
    assert short("a" * 300, 20) == "'" + "a" * 16 + "..."
    assert short([1]) == "[1]"


def test_an_error_says_something() -> None:
    with pytest.raises(ValueError, match="at least one fault"):
        ConfigError()


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ValueError("no\nsuch"), "file: 'mine:net' fails (ValueError: no such); see what builds it"),
        (SystemExit(3), "file: 'mine:net' fails (SystemExit: 3); see what builds it"),
        (StopIteration(), "file: 'mine:net' fails (StopIteration: ); see what builds it"),
    ],
)
def test_whatever_a_users_code_raises_is_one_line(error: BaseException, said: str) -> None:
    with pytest.raises(ConfigError) as caught, users_code("file", "'mine:net'", "see what builds it"):
        raise error
    assert (str(caught.value), caught.value.__cause__) == (said, error)


def test_but_for_what_is_one_line_already_and_for_ctrl_c() -> None:
    for error in (DataError("no data"), KeyboardInterrupt()):
        with pytest.raises(type(error)) as caught, users_code("file", "x"):
            raise error
        assert caught.value is error
    own = users_code("figure mine", kind=TrainingError)
    with pytest.raises(TrainingError, match=r"^figure mine: fails \(KeyError: 'a'\)$"), own:
        raise KeyError("a")
