"""Every option is named whole, however narrow the terminal is."""

from __future__ import annotations

from typing import Annotated

import typer
from typer.testing import CliRunner

from raydistill.cli.help import Command

LONG = "--an-option-whose-name-is-longer-than-half-of-a-terminal"


def command(
    file: Annotated[str, typer.Argument(help="What it reads.")],
    rate: Annotated[float, typer.Option(LONG, help="How fast.", rich_help_panel="Training")] = 0.1,
    hidden: Annotated[bool, typer.Option("--secret", hidden=True)] = False,
) -> None:
    """Do something."""


def test_options_stand_by_panel_and_no_name_is_cut() -> None:
    app = typer.Typer(rich_markup_mode=None)
    app.command(cls=Command)(command)
    done = CliRunner().invoke(app, ["--help"], env={"COLUMNS": "40", "TERMINAL_WIDTH": "40"})
    assert done.exit_code == 0
    titles = [line.rstrip(":") for line in done.output.splitlines() if line.endswith(":") and not line.startswith(" ")]
    assert titles == ["Arguments", "Training", "Options"]
    assert LONG in done.output
    assert "How fast." in " ".join(done.output.split())
    assert "--secret" not in done.output
