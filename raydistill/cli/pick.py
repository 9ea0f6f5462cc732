"""``raydistill pick``: one trial of a sweep as a folder to take away."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from raydistill.cli.kept import Arch, Formats, Storage, SweepName, Threads, Where


def pick(
    sweep: SweepName = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="The folder to write; it must not be there.")] = None,
    trial: Annotated[str | None, typer.Option(help="This trial, as t0003.")] = None,
    knee: Annotated[
        bool, typer.Option("--knee", help="The knee of the front; also when nothing else is asked.")
    ] = False,
    max_drop: Annotated[
        float | None, typer.Option(min=0.0, help="Lose no more than this of the metric, as 0.005 of top1.")
    ] = None,
    best: Annotated[
        str | None, typer.Option(help="The best in this figure: macs, size_bytes, sparsity, top1, ...")
    ] = None,
    where: Where = None,
    form: Formats = None,
    storage: Storage = "sweeps",
    arch: Arch = None,
    threads: Threads = None,
    no_latency: Annotated[bool, typer.Option("--no-latency", help="Measure no latency.")] = False,
) -> None:
    """Take a trial of a sweep away: thinned, folded, in formats that others run, with a manifest.

    The knee of the front, or --trial, or the best in a figure under bounds: --max-drop 0.005 takes the sparsest (or
    smallest, by the sweep's objectives) that loses no more than half a point against dense.
    """
    from rich.console import Console

    from raydistill.cli.kept import bounds, format_names, tell_artifact
    from raydistill.cli.lines import warn
    from raydistill.errors import ConfigError, Fault
    from raydistill.records import BASELINE
    from raydistill.search.constraints import Constraint, against_dense
    from raydistill.search.pick import Rule, described
    from raydistill.search.pick import pick as picked
    from raydistill.sweep.results.deliver import deliver
    from raydistill.sweep.results.read import read_sweep

    ways = {
        "--trial": trial is not None,
        "--knee": knee,
        "--max-drop, --best or --where": bool(max_drop is not None or best or where),
    }
    asked = [way for way, said in ways.items() if said]
    if len(asked) > 1:
        raise ConfigError(Fault(asked[0], f"cannot stand beside {asked[1]}", way_out="each of them picks a trial"))
    console = Console(highlight=False)
    kept = read_sweep(sweep, storage)
    for line in kept.lost[:3]:
        warn(console, line)
    judged = kept.judgement
    own = [objective.name for objective in judged.objectives if objective.path]
    limits = bounds(where, judged.metrics, own)
    if max_drop is not None:
        limits = (Constraint(next(iter(against_dense(judged.metrics))), "<=", max_drop), *limits)
    rows = kept.rows()
    row = picked(rows, Rule(trial, best, limits), judged.metrics, judged.objectives, kept.records)
    trial_id = row.record.trial_id
    how = ", the knee" if row.knee else ", on the front" if row.pareto else ""
    console.print(f"{trial_id} of {kept.name}{how}", style="bold", markup=False)
    dense = None if trial_id == BASELINE else kept.baseline
    seeds = len(row.runs)
    console.print(f"{', '.join(described(row, judged.metrics, dense))}; seeds: {seeds}", soft_wrap=True, markup=False)
    for line in row.violations:
        console.print(f"it breaks a constraint: {line}", style="bold yellow", soft_wrap=True, markup=False)
    folder = out or Path(f"{kept.name}-{trial_id}")
    manifest = deliver(
        kept, row, folder, format_names(form), arch=arch, latency=not no_latency, threads=threads,
        tell=lambda line: console.print(f"{line} ...", style="dim", soft_wrap=True, markup=False),
    )  # fmt: skip
    tell_artifact(console, manifest, folder)
    if manifest.left_out and form is not None:  # what was asked for by name
        raise typer.Exit(1)
