"""What the commands on a sweep that is kept share: its options, and how an artifact folder is told."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rich.console import Console

    from raydistill.export import Manifest
    from raydistill.metrics import Metric
    from raydistill.search.constraints import Constraint

SweepName = Annotated[
    str | None,
    typer.Argument(
        metavar="[SWEEP]", help="Its name in the storage, or its folder; left out, the latest.", show_default=False
    ),
]
Storage = Annotated[
    str, typer.Option(help="Where sweeps are kept: a folder, or s3://bucket/prefix.", envvar="RAYDISTILL_STORAGE")
]
Where = Annotated[
    list[str] | None, typer.Option(help="A bound, as 'top1_drop <= 0.005' or 'macs < 1e6'; may be repeated.")
]
Formats = Annotated[
    list[str] | None,
    typer.Option(
        "--format", help="onnx, pt2, safetensors, checkpoint, bitmask, openvino: several with commas, or repeated."
    ),
]
Arch = Annotated[
    str | None, typer.Option("--arch", "-a", help="What builds the network, if it is your own: pkg.mod:factory.")
]
Threads = Annotated[int | None, typer.Option(min=1, help="CPU threads that latency is measured with.")]


def bounds(texts: Sequence[str] | None, metrics: Mapping[str, Metric], own: Sequence[str]) -> tuple[Constraint, ...]:
    from raydistill.search.constraints import parse_constraints

    return parse_constraints(list(texts or ()), "--where", metrics, own)


def format_names(texts: Sequence[str] | None) -> tuple[str, ...]:
    """``--format``; left out, those that most people want."""
    from raydistill.export import DEFAULT

    return tuple(filter(None, (part.strip() for part in ",".join(texts).split(",")))) if texts else DEFAULT


def tell_artifact(console: Console, manifest: Manifest, folder: Path) -> None:
    """What was written, what it costs against dense, and the lines that use it."""
    from rich import box
    from rich.table import Table

    from raydistill.cli.tables import BUSY, amount
    from raydistill.metrics import OF_NETWORK, shown

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    table.add_column("the network as it is delivered", no_wrap=True)
    if manifest.dense:
        table.add_column("dense", justify="right", no_wrap=True)
    table.add_column("this", justify="right", no_wrap=True)
    for name, value in manifest.network.items():
        metric = OF_NETWORK[name]
        cells = [
            shown(metric, v) if metric.is_fraction else amount(v)
            for v in (manifest.dense.get(name), value)
            if v is not None
        ]
        table.add_row(metric.label, *cells)
    console.print(table)
    for line in manifest.changes:
        console.print(line, soft_wrap=True, markup=False)
    if manifest.latency:
        console.print(_latency_table(manifest))
        if any(row["busy"] for row in manifest.latency):
            console.print(f"{BUSY}: measure again", style="yellow")
    files = Table(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    for title in ("file", "bytes", "gzipped"):
        files.add_column(title, justify="left" if title == "file" else "right", no_wrap=True)
    for file in manifest.files:
        files.add_row(file.name, f"{file.bytes:,}", f"{file.gzip_bytes:,}")
    console.print(files)
    for line in manifest.left_out.values():
        console.print(f"left out: {line}", style="bold yellow", soft_wrap=True, markup=False)
    _tell_use(console, manifest, folder)


def _latency_table(manifest: Manifest) -> object:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    has_dense = any("dense" in row["ms"] for row in manifest.latency)
    for title in ("runtime", "threads", "batch", *(("dense ms",) if has_dense else ()), "this ms"):
        table.add_column(title, justify="left" if title == "runtime" else "right", no_wrap=True)
    if has_dense:
        table.add_column("faster", justify="right", no_wrap=True)
    for row in manifest.latency:
        timed = [_timed(row["ms"].get(name)) for name in (*(("dense",) if has_dense else ()), "this")]
        faster = [f"{row['speedup']:.2f} x" if row["speedup"] else ""] if has_dense else []
        mark = "*" if row["busy"] else ""
        table.add_row(
            f"{row['runtime']}, {row['device']}{mark}", str(row["threads"]), str(row["batch"]), *timed, *faster
        )
    return table


def _timed(timed: Mapping[str, float] | None) -> str:
    """The median and half of the interquartile range."""
    return "" if timed is None else f"{timed['median']:.3g} ± {(timed['upper'] - timed['lower']) / 2:.2g}"


def _tell_use(console: Console, manifest: Manifest, folder: Path) -> None:
    from raydistill.export import MENU

    console.print(f"\nwritten to {folder}; in that folder:", soft_wrap=True, markup=False)
    for name in manifest.formats:
        console.print(f"\n  {name} ({MENU[name].RUNTIME}):", markup=False)
        for line in MENU[name].use(manifest):
            console.print(f"    {line}", soft_wrap=True, markup=False)
    if (folder / "classify.py").exists():
        console.print("\ntry it on an image of yours:", markup=False)
        console.print(f"  python {folder}/classify.py IMAGE", soft_wrap=True, markup=False)
    console.print("hold it against its manifest:", markup=False)
    console.print(f"  raydistill verify {folder}", soft_wrap=True, markup=False)
