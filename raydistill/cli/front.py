"""``raydistill front``: the front of a sweep, while it runs or afterwards."""

from __future__ import annotations

from enum import Enum
from typing import Annotated

import typer

from raydistill.cli.kept import Storage, SweepName, Where


class Form(str, Enum):
    TABLE = "table"
    CSV = "csv"
    JSON = "json"


def front(
    sweep: SweepName = None,
    where: Where = None,
    every: Annotated[bool, typer.Option("--all", help="Every finished trial, not the front alone.")] = False,
    form: Annotated[
        Form, typer.Option("--format", help="csv and json print every figure, in full precision.")
    ] = Form.TABLE,
    show: Annotated[bool, typer.Option("--open", help="Open the page with the picture in a browser.")] = False,
    storage: Storage = "sweeps",
) -> None:
    """Show the Pareto front of a sweep; --where keeps what meets a bound.

    Figures are of the validation split, those of the front's members also of the test split.
    """
    import sys

    from rich.console import Console

    from raydistill.cli.kept import bounds
    from raydistill.cli.lines import warn
    from raydistill.cli.tables import busy_lines, counts_line, front_report, infeasible_lines, unmoved_lines
    from raydistill.records import BASELINE
    from raydistill.search.constraints import violations
    from raydistill.sweep.results.read import read_sweep
    from raydistill.tracking.figures import front_table
    from raydistill.tracking.front_files import write_front

    console = Console(highlight=False)
    kept = read_sweep(sweep, storage)
    judged = kept.judgement
    own = [objective.name for objective in judged.objectives if objective.path]
    limits = bounds(where, judged.metrics, own)
    rows = kept.rows()

    shown = [row for row in rows if every or row.pareto or row.record.trial_id == BASELINE]
    chosen = [row for row in shown if not violations(row.record, limits, kept.baseline)]
    errors = Console(stderr=True, highlight=False)
    for line in kept.lost[:3]:
        warn(errors, line)
    if form is Form.CSV:
        sys.stdout.write(front_table(chosen, judged.metrics).to_csv(index=False))
    elif form is Form.JSON:
        sys.stdout.write(front_table(chosen, judged.metrics).to_json(orient="records", indent=1) + "\n")
    else:
        dataset = next((record.dataset for record in kept.records.values()), "")
        if not chosen:
            console.print(
                f"{kept.name}: no trial to show{' that meets the bounds' if limits else ' yet'}", markup=False
            )
        else:
            for part in front_report(chosen, dataset, judged.metrics, every=True):
                console.print(part)
        for line in (*infeasible_lines(rows), *unmoved_lines(rows), *busy_lines(chosen)):
            console.print(line, style="yellow", soft_wrap=True, markup=False)
        console.print(counts_line(kept.records), markup=False)
        if any(row.record.trial_id != BASELINE for row in chosen):
            console.print(
                f"take one away: raydistill pick {sweep or kept.name}{_storage(storage)} --trial TRIAL",
                soft_wrap=True,
                markup=False,
            )
    if show:
        import webbrowser

        kept.folder.mkdir(parents=True, exist_ok=True)
        *_, page = write_front(rows, judged.objectives, judged.metrics, kept.folder, kept.name)
        errors.print(str(page), soft_wrap=True, markup=False)
        webbrowser.open(page.as_uri())


def _storage(storage: str) -> str:
    import shlex

    return "" if storage == "sweeps" else f" --storage {shlex.quote(storage)}"
