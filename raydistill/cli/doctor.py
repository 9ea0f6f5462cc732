"""``raydistill doctor``: what is here, machine by machine, and what to mend."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.table import Table

    from raydistill.cluster.doctor import Findings, Machine


def doctor(
    address: Annotated[
        str | None,
        typer.Option(help="A Ray cluster: HOST:PORT, auto or local; left out, RAY_ADDRESS, else this machine."),
    ] = None,
    storage: Annotated[
        str,
        typer.Option(help="Where sweeps are to be kept: a folder or s3://bucket/prefix.", envvar="RAYDISTILL_STORAGE"),
    ] = "sweeps",
    tracking_uri: Annotated[
        str | None,
        typer.Option(
            help="An MLflow server; left out, MLflow's files would stand in the storage.", envvar="MLFLOW_TRACKING_URI"
        ),
    ] = None,
) -> None:
    """Look at every machine that a sweep would run on, at its storage and at MLflow; say what to mend.

    Exit code 0: all is well. 1: something has to be mended. Nothing is left behind.
    """
    from rich.console import Console

    from raydistill.cluster.address import choose
    from raydistill.cluster.quiet import quieten

    quieten()
    cluster = choose(address, os.environ.get("RAY_ADDRESS"))
    from raydistill.cluster.doctor import examine
    from raydistill.errors import TrackingError
    from raydistill.tracking import visit

    console = Console(highlight=False)
    console.print("starting Ray" if cluster is None else f"connecting to Ray at {cluster}", markup=False)
    storage = storage if "://" in storage else str(Path(storage).absolute())
    findings = examine(cluster, storage, lambda text: console.print(text, markup=False))
    mend = [str(fault) for fault in findings.mend]
    mlflow = ""
    try:
        found = visit(tracking_uri)
        mlflow = f"{found.client}, {found.shown}" + (f", server {found.server}" if found.server else "")
    except TrackingError as error:
        mlflow = "not to be had"
        mend += [str(fault) for fault in error.faults]
    console.print(_machines(findings))
    console.print(_versions(findings))
    where = "written and read by every node" if _stored(findings) else "not usable by every node"
    for title, text in (("Ray", _ray(findings, str(cluster or ""))), ("storage", f"{storage}, {where}"),
                        ("MLflow", mlflow)):  # fmt: skip
        console.print(f"{title:<9} {text}", soft_wrap=True, markup=False)
    for note in findings.notes:
        console.print(f"note: {note}", style="yellow", soft_wrap=True, markup=False)
    if not mend:
        console.print("all is well", style="bold green")
        return
    console.print("to mend:", style="bold red")
    for line in mend:
        console.print(f"  {line}", soft_wrap=True, markup=False)
    raise typer.Exit(1)


def _stored(findings: Findings) -> bool:
    return all(machine.storage == "yes" for machine in findings.machines)


def _ray(findings: Findings, address: str) -> str:
    version = findings.here["ray"]
    if not findings.ray:
        return f"{version} here, not to be had"
    nodes = f"{len(findings.machines)} node{'s' * (len(findings.machines) != 1)}"
    return f"{version}, {address}, {nodes}" if address else f"{version}, started and ended on this machine"


def _machines(findings: Findings) -> Table:
    table = _table(("node", False), ("cores", True), ("memory GB", True), ("GPUs", False), ("driver", False),
                   ("disk free GB", True))  # fmt: skip
    for machine in findings.machines:
        disk = "" if machine.disk_bytes is None else f"{machine.disk_bytes / 2**30:.1f}"
        memory = f"{machine.memory_bytes / 2**30:.1f}" if machine.answered else ""
        cores = str(machine.cores) if machine.answered else "no answer"
        table.add_row(_name(machine), cores, memory, _gpus(machine), machine.driver or "-", disk)
    return table


def _versions(findings: Findings) -> Table:
    table = _table(("node", False), ("Python", False), ("Ray", False), ("torch", False), ("raydistill", False),
                   ("clock ms", True), ("storage", False))  # fmt: skip
    for machine in findings.machines:
        known = machine.versions
        numbers = [known.get(name) or "-" for name in ("python", "ray", "torch", "raydistill")]
        table.add_row(_name(machine), *numbers, _clock(machine), machine.storage or "-")
    return table


def _table(*columns: tuple[str, bool]) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for title, number in columns:
        table.add_column(title, justify="right" if number else "left", overflow="fold")
    return table


def _name(machine: Machine) -> str:
    return f"{machine.name} (head)" if machine.head else machine.name


def _clock(machine: Machine) -> str:
    if machine.skew_ms is None:
        return "-"
    digits = 1 if abs(machine.skew_ms) < 100 else 0
    return f"{machine.skew_ms:+.{digits}f} ± {machine.skew_error_ms:.{digits}f}"


def _gpus(machine: Machine) -> str:
    """ "4 x A10G"; what Ray counts, where NVIDIA's driver does not say."""
    if not machine.gpus:
        return f"{machine.ray_gpus:g} by Ray's count" if machine.ray_gpus else "-"
    names = [name.removeprefix("NVIDIA ") for name in machine.gpus]
    return ", ".join(f"{names.count(name)} x {name}" for name in dict.fromkeys(names))
