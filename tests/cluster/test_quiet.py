"""What silences Ray, and how far."""

from __future__ import annotations

import logging
import os
import warnings

import pytest

from raydistill.cluster.quiet import quieten, silent_stderr


def test_nothing_reaches_stderr_in_the_block_and_all_does_behind_it(capfd: pytest.CaptureFixture[str]) -> None:
    with silent_stderr():
        os.write(2, b"from C\n")
    os.write(2, b"behind\n")
    assert capfd.readouterr().err == "behind\n"


def test_it_comes_back_after_an_error_and_no_descriptor_is_left(capfd: pytest.CaptureFixture[str]) -> None:
    before = os.dup(2)
    os.close(before)
    with pytest.raises(ValueError, match="in the block"), silent_stderr():
        raise ValueError("in the block")
    after = os.dup(2)
    os.close(after)
    assert after == before
    os.write(2, b"heard\n")
    assert capfd.readouterr().err == "heard\n"


def test_what_the_user_has_set_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    names = ("RAY_DEDUP_LOGS", "RAY_USAGE_STATS_ENABLED")
    monkeypatch.setenv(names[0], "0")
    monkeypatch.delenv(names[1], raising=False)
    monkeypatch.setattr(os, "environ", dict(os.environ))
    with warnings.catch_warnings():
        quieten()
        warnings.simplefilter("error", append=True)
        warnings.warn_explicit("noise", UserWarning, "ray/x.py", 1, module="ray.tune.x")
        with pytest.raises(UserWarning, match="ours"):
            warnings.warn_explicit("ours", UserWarning, "x.py", 1, module="rayfish")
    assert [os.environ[name] for name in names] == ["0", "0"]
    assert logging.getLogger("ray.tune").level == logging.CRITICAL
