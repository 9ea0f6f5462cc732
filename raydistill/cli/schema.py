"""``raydistill schema``: the format of a file as a JSON schema, which editors complete and check by."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer


class Kind(str, Enum):
    SWEEP = "sweep"
    SCHEDULE = "schedule"
    RUN = "run"


def schema(
    kind: Annotated[Kind, typer.Argument(help="The file it is of: sweep, schedule, or run (of compress).")],
    output: Annotated[Path | None, typer.Option("-o", "--output", help="A file; left out, it is printed.")] = None,
) -> None:
    """Print the JSON schema of a file format.

    Editors that know the YAML language server read it where a file's first line is:
    # yaml-language-server: $schema=sweep.schema.json
    """
    import json

    from raydistill.compression.schema import schedule_schema
    from raydistill.files import write_atomically
    from raydistill.sweep.file.schema import run_schema, sweep_schema

    made = {Kind.SWEEP: sweep_schema, Kind.SCHEDULE: schedule_schema, Kind.RUN: run_schema}[kind]()
    text = json.dumps(made, indent=2, ensure_ascii=False) + "\n"
    if output is None:
        typer.echo(text, nl=False)
        return
    write_atomically(output, text)
    typer.echo(f"{output}: first line of a file that it is for: # yaml-language-server: $schema={output}")
