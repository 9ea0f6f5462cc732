"""What exporters say is not shown."""

from __future__ import annotations

import logging
import sys
import warnings

import pytest

from raydistill.export.formats.quiet import quietly


def _fails_loudly() -> None:
    with quietly():
        print("out")
        print("err", file=sys.stderr)
        warnings.warn("a warning", stacklevel=1)
        logging.getLogger("torch.export._trace").warning("a line")
        raise ValueError("mine")


def test_nothing_is_shown_and_errors_pass(capsys: pytest.CaptureFixture[str]) -> None:
    with warnings.catch_warnings(record=True) as warned, pytest.raises(ValueError, match="mine"):
        _fails_loudly()
    assert (*capsys.readouterr(), warned) == ("", "", [])
    assert not logging.getLogger("torch.export._trace").isEnabledFor(logging.WARNING)
    print("again")
    assert capsys.readouterr().out == "again\n"
