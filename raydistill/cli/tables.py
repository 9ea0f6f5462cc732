"""Tables that fit 80 columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich import box
from rich.table import Table
from rich.text import Text

from raydistill.records import BASELINE, EpochMetrics, TrialRecord
from raydistill.search import FrontRow


def percent(fraction: float | None) -> str:
    return "" if fraction is None else f"{100 * fraction:.2f}"


def front_report(rows: Sequence[FrontRow], dataset: str, seeds: int = 1) -> tuple[Text, Table]:
    """The front's members, sparsity ascending, and the dense baseline in any case; the knee is marked."""
    title = Text(f"Pareto front: {dataset}, top1 on its validation and test split, seeds: {seeds}", style="bold")
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("trial", no_wrap=True)
    for name in ("sparsity %", "validation %", "test %"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    shown = sorted(rows, key=lambda row: row.record.trial_id != BASELINE)
    for row in shown:
        dense = row.record.trial_id == BASELINE
        if row.record.last is None or not (row.pareto or dense):
            continue
        test = row.record.test.top1 if row.record.test is not None else None
        notes = ["dense"] if dense and row.pareto else ["dense (not on the front)"] if dense else []
        notes += ["knee"] if row.knee else []
        notes += ["warm start"] if "warm_start" in row.record.extra else []
        table.add_row(
            row.record.trial_id,
            percent(row.record.last.sparsity),
            percent(row.record.last.top1),
            percent(test),
            ", ".join(notes),
        )
    return title, table


def sparsity_table(metrics: EpochMetrics) -> Table:
    """Sparsity of each pruned or prunable weight, and of all of them together."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("weight")
    table.add_column("sparsity %", justify="right", no_wrap=True)
    for name, value in metrics.layer_sparsity.items():
        table.add_row(name, percent(value))
    table.add_section()
    table.add_row("total", percent(metrics.sparsity))
    return table


def space_table(dimensions: Sequence[tuple[str, str]]) -> Table:
    """What a sweep draws: key path and distribution."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("searched", overflow="fold")
    table.add_column("drawn from", overflow="fold")
    for path, distribution in dimensions:
        table.add_row(path, distribution)
    return table


def counts(records: Mapping[str, TrialRecord]) -> dict[str, int]:
    """How many trials are in each state; the baseline is none."""
    found: dict[str, int] = {}
    for trial_id, record in records.items():
        if trial_id != BASELINE and not record.confirms:
            found[record.state] = found.get(record.state, 0) + 1
    return found
