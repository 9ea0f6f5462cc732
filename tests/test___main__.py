from __future__ import annotations

import runpy
import sys

import pytest


def test_the_package_is_the_command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["raydistill", "models"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_module("raydistill", run_name="__main__")
    assert ended.value.code in (0, None)
    assert "simplenet_cifar" in capsys.readouterr().out
