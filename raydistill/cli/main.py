"""``raydistill``: one command a file. Commands import what they need when they run, so that ``--help`` is quick."""

from __future__ import annotations

import os
import signal
import sys
import threading
from typing import Annotated

import typer

from raydistill.cli.check import check
from raydistill.cli.compress import compress
from raydistill.cli.doctor import doctor
from raydistill.cli.export import export
from raydistill.cli.failure import fail
from raydistill.cli.front import front
from raydistill.cli.help import Command
from raydistill.cli.init import init
from raydistill.cli.menus import models, tasks
from raydistill.cli.pick import pick
from raydistill.cli.schema import schema
from raydistill.cli.sensitivity import sensitivity
from raydistill.cli.summary import summary
from raydistill.cli.sweep import sweep
from raydistill.cli.verify import verify
from raydistill.errors import RaydistillError
from raydistill.resolve import share_folder

app = typer.Typer(
    name="raydistill",
    help="Search how hard each layer of a network can be pruned: accuracy against sparsity, with Ray and MLflow.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command(cls=Command, short_help="Prune one network in many ways; print the best.")(sweep)
app.command(cls=Command, short_help="Write a sweep file for your network and data.")(init)
app.command(cls=Command, short_help="Show the front of a sweep.")(front)
app.command(cls=Command, short_help="Take a trial of a sweep away, in formats that others run.")(pick)
app.command(cls=Command, short_help="Is what was taken away what its manifest says?")(verify)
app.command(cls=Command, short_help="Train one network, pruned as a schedule says.")(compress)
app.command(cls=Command, short_help="Write any checkpoint's network in formats that others run.")(export)
app.command(cls=Command, short_help="Does a schedule fit a model, and what would it do?")(check)
app.command(cls=Command, short_help="Show what a network is made of.")(summary)
app.command(cls=Command, short_help="Prune each weight alone; draw what accuracy is left.")(sensitivity)
app.command(cls=Command, short_help="List the networks that can be named.")(models)
app.command(cls=Command, short_help="List the tasks that can be named.")(tasks)
app.command(cls=Command, short_help="Print a file format as a JSON schema, for editors.")(schema)
app.command(cls=Command, short_help="Look at every machine that a sweep would run on.")(doctor)


def _version(asked: bool) -> None:
    if asked:
        from importlib.metadata import PackageNotFoundError, version

        try:
            typer.echo(f"raydistill {version('raydistill')}")
        except PackageNotFoundError:
            typer.echo("raydistill (not installed)")
        raise typer.Exit


@app.callback()
def _main(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    pass


def _end_as_with_ctrl_c() -> None:
    """SIGTERM and SIGHUP end a command as Ctrl-C does."""
    if threading.current_thread() is not threading.main_thread():
        return
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) == signal.SIG_DFL:  # ignored by nohup, or a caller's own
            signal.signal(number, signal.default_int_handler)


def run() -> None:
    """The console script: a user's mistake is one line a fault on stderr, and exit code 2."""
    share_folder(os.getcwd())
    _end_as_with_ctrl_c()
    try:
        app()
    except RaydistillError as error:
        fail(error)
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:  # the reader of our output has gone, as ``| head`` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
