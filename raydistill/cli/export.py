"""``raydistill export``: the network of any checkpoint as a folder to take away."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from raydistill.cli.kept import Arch, Formats, Threads


def export(
    checkpoint: Annotated[Path, typer.Argument(help="A checkpoint.pt, or any file of weights.", show_default=False)],
    out: Annotated[Path, typer.Option("--out", "-o", help="The folder to write; it must not be there.")],
    form: Formats = None,
    dense: Annotated[
        Path | None, typer.Option(help="The checkpoint of the network before it was pruned, to measure beside.")
    ] = None,
    arch: Arch = None,
    threads: Threads = None,
    no_latency: Annotated[bool, typer.Option("--no-latency", help="Measure no latency.")] = False,
) -> None:
    """Write a checkpoint's network: thinned, folded, in formats that others run, with a manifest."""
    from rich.console import Console

    from raydistill.cli.kept import format_names, tell_artifact
    from raydistill.export import export as exported

    console = Console(highlight=False)
    manifest = exported(
        checkpoint, out, format_names(form), dense=dense, arch=arch, latency=not no_latency, threads=threads,
        tell=lambda line: console.print(f"{line} ...", style="dim", soft_wrap=True, markup=False),
    )  # fmt: skip
    tell_artifact(console, manifest, out)
    if manifest.left_out and form is not None:  # what was asked for by name
        raise typer.Exit(1)
