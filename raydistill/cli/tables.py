"""Tables that fit 80 columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich import box
from rich.table import Table
from rich.text import Text

from raydistill.metrics import LATENCY, LATENCY_BUSY, LATENCY_SPREAD, OF_NETWORK, Metric, selecting, shown
from raydistill.records import BASELINE, EpochMetrics, TrialRecord
from raydistill.search import FrontRow, mean_and_std


def percent(fraction: float | None) -> str:
    return "" if fraction is None else f"{100 * fraction:.2f}"


def cell(metric: Metric, value: float | None) -> str:
    """A figure in a column that `heading` stands above."""
    if value is None:
        return ""
    return percent(value) if metric.is_fraction else f"{value:.4g}"


def heading(name: str, metric: Metric) -> str:
    return f"{name} %" if metric.is_fraction else name


def in_words(values: Mapping[str, float], metrics: Mapping[str, Metric]) -> str:
    """``top1 70.12 %  top5 97.01 %  loss 0.9312``: of those that the task names."""
    return "  ".join(f"{name} {_told(metrics[name], value)}" for name, value in values.items() if name in metrics)


def first_in_words(values: Mapping[str, float], metrics: Mapping[str, Metric]) -> str:
    """The one that selects."""
    name = selecting(metrics)
    return in_words({name: values[name]}, metrics)


def _told(metric: Metric, value: float) -> str:
    return shown(metric, value) if metric.is_fraction else f"{value:.4f}"


def front_report(
    rows: Sequence[FrontRow], dataset: str, metrics: Mapping[str, Metric], every: bool = False
) -> tuple[Text, Table]:
    """The front's members, sparsity ascending, and the dense baseline in any case; the knee is marked. every: whatever
    other rows there are, too.

    Figures of a member that was trained with several seeds are means and sample standard deviations.
    """
    name = selecting(metrics)
    metric = metrics[name]
    members = [
        row for row in rows if row.record.last is not None and (every or row.pareto or row.record.trial_id == BASELINE)
    ]
    numbers = sorted({len(row.runs) for row in members if row.record.trial_id != BASELINE}) or [1]
    seeds = f"{numbers[0]}" if len(numbers) == 1 else f"{numbers[0]} to {numbers[-1]}"
    title = Text(f"Pareto front: {dataset}, {name} on its validation and test split, seeds: {seeds}", style="bold")
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    table.add_column("trial", no_wrap=True)
    for column in ("sparsity %", heading("validation", metric), heading("test", metric)):
        table.add_column(column, justify="right", no_wrap=True)
    others = [other for other in (members[0].values if members else ()) if other not in (name, "sparsity")]
    for other in others:
        table.add_column(_SHORT.get(other, other), justify="right", no_wrap=True)
    table.add_column("")
    for row in sorted(members, key=lambda row: row.record.trial_id != BASELINE):
        dense = row.record.trial_id == BASELINE
        notes = [_place(row)] if dense else [] if row.pareto else ["infeasible" if row.violations else "dominated"]
        notes += ["knee"] if row.knee else []
        notes += ["warm start"] if "warm_start" in row.record.extra else []
        table.add_row(
            row.record.trial_id,
            _spread(OF_NETWORK["sparsity"], [run.last.sparsity if run.last else None for run in row.runs]),
            _spread(metric, [run.last.metrics[name] if run.last else None for run in row.runs]),
            _spread(metric, [run.test.metrics[name] if run.test else None for run in row.runs]),
            *(_measured(row, other) for other in others),
            ", ".join(notes),
        )
    return title, table


def _place(row: FrontRow) -> str:
    """Of the dense baseline, which is shown in any case."""
    return "dense" if row.pareto else "infeasible" if row.violations else "dominated"


_SHORT = {"size_bytes": "bytes", "compressed_size_bytes": "bytes, packed", LATENCY: "ms"}


BUSY = "* the machine was busy, or times varied much"


def _measured(row: FrontRow, name: str) -> str:
    """``0.375``; of a latency with half of its interquartile range, and marked where the machine was busy."""
    last, text = row.record.last, amount(row.values[name])
    if name != LATENCY or last is None or LATENCY_SPREAD not in last.footprint:
        return text
    return f"{text} ± {last.footprint[LATENCY_SPREAD] / 2:.2g}{'*' if _was_busy(row) else ''}"


def _was_busy(row: FrontRow) -> bool:
    return any(run.last is not None and run.last.footprint.get(LATENCY_BUSY) for run in row.runs)


def busy_lines(rows: Sequence[FrontRow]) -> list[str]:
    """A line where a latency that is optimised was measured beside other work."""
    marked = any(LATENCY in row.values and _was_busy(row) for row in rows)
    return [f"{BUSY}, while a latency was measured"] if marked else []


def amount(value: float) -> str:
    """1.23 M, 45.6 k, 0.789: three digits that mean something."""
    for size, unit in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if abs(value) >= size:
            return f"{value / size:.3g}{unit}"
    return f"{value:.3g}"


def infeasible_lines(rows: Sequence[FrontRow], most: int = 8) -> list[str]:
    """One line for each finished trial that breaks a constraint, the first `most`; then what an empty front means."""
    trials = [row for row in rows if row.record.trial_id != BASELINE]
    broken = [row for row in trials if row.violations]
    lines = [f"{row.record.trial_id} is infeasible: {'; '.join(row.violations)}" for row in broken[:most]]
    lines += [f"and {len(broken) - most} more are infeasible"] if len(broken) > most else []
    if broken and len(broken) == len(trials):
        dense = any(row.pareto for row in rows)
        what = "the front is the dense baseline alone" if dense else "the front is empty, and no model is registered"
        way_out = "loosen them (--resume shows the new front) or widen the search"
        lines.append(f"no trial meets every constraint, {what}: {way_out}")
    return lines


_OF_STRUCTURE = ("macs", "size_bytes", LATENCY)
_UNMOVED = 0.01


def unmoved_lines(rows: Sequence[FrontRow]) -> list[str]:
    """A line where what is optimised depends on structure, and no trial has lost any: single weights were pruned."""
    dense = next((row.record.last for row in rows if row.record.trial_id == BASELINE), None)
    trials = [row.record.last for row in rows if row.record.trial_id != BASELINE and row.record.last is not None]
    asked = [name for name in _OF_STRUCTURE if rows and name in rows[0].values]
    if dense is None or not trials or not asked or not any(last.sparsity > _UNMOVED for last in trials):
        return []
    costs = [(last.value("macs"), dense.value("macs")) for last in trials]
    if any(not abs(now - before) <= _UNMOVED * before for now, before in costs):
        return []
    what = f"{' and '.join(asked)} {'is' if len(asked) == 1 else 'are'}"
    rule = f"{what} about the dense network's in every trial: pruning single weights removes nothing that is computed"
    return [f"{rule}; prune filters or channels, or optimise compressed_size_bytes"]


def _spread(metric: Metric, values: Sequence[float | None]) -> str:
    """ "70.12 ± 0.35", a fraction in percent; without a deviation that shows, "70.12"."""
    mean, std = mean_and_std(values)
    return cell(metric, mean) if std is None or std < 5e-6 else f"{cell(metric, mean)} ± {cell(metric, std)}"


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


def counts_line(records: Mapping[str, TrialRecord]) -> str:
    """``trials: 7 finished, 9 stopped``."""
    return "trials: " + ", ".join(f"{count} {state}" for state, count in sorted(counts(records).items()))


def counts(records: Mapping[str, TrialRecord]) -> dict[str, int]:
    """How many trials are in each state; the baseline is none."""
    found: dict[str, int] = {}
    for trial_id, record in records.items():
        if trial_id != BASELINE and not record.confirms:
            found[record.state] = found.get(record.state, 0) + 1
    return found
