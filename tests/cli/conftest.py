"""The command as the console script runs it, in this process."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import typer.main

from raydistill.cli.main import run
from raydistill.resolve import FOLDER

_made_once = functools.cache(typer.main.get_command)
"""typer makes all commands anew from their signatures for each that is run, which takes longer than most of them."""


@dataclass(frozen=True)
class Ended:
    code: int
    out: str
    err: str


@pytest.fixture
def raydistill(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Ended]:
    """Runs ``raydistill ARGUMENTS...``: exit code and what was printed."""
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv(FOLDER, "")  # the command sets it, and adds to the path
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(typer.main, "get_command", _made_once)

    def command(*arguments: object) -> Ended:
        monkeypatch.setattr(sys, "argv", ["raydistill", *map(str, arguments)])
        code = 0
        try:
            run()
        except SystemExit as end:
            code = int(end.code or 0)
        printed = capsys.readouterr()
        return Ended(code, printed.out, printed.err)

    return command


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A simplenet of three epochs on the digits."""
    from raydistill.datasets import DatasetConfig
    from raydistill.training import RunConfig, fit

    folder = tmp_path_factory.mktemp("trained")
    config = RunConfig(
        arch="simplenet_cifar", dataset=DatasetConfig("digits"), epochs=3, batch_size=32, precision="fp32",
        out_dir=str(folder), tensorboard=False, threads=1,
    )  # fmt: skip
    list(fit(config))
    return folder / "checkpoint.pt"
