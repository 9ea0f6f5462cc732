"""The front as a table and as figures. Nothing here knows MLflow.

`rows` are eligible trials (finished ones and the baseline), `objectives` what the sweep optimises, `metrics` those of
its task: they are told on the validation split and, of the front, on the test split.
"""

from __future__ import annotations

import io
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from raydistill.files import write_atomically
from raydistill.metrics import OF_NETWORK, Metric, selecting, shown
from raydistill.records import BASELINE, EpochMetrics, Evaluation, TrialRecord

if TYPE_CHECKING:
    import pandas
    from matplotlib.collections import PathCollection
    from matplotlib.figure import Figure

FRONT, REST, DENSE, KNEE = "#1f5fa8", "#a9b4c2", "#2b2b2b", "#d1495b"
SPREAD = "± one standard deviation over seeds"


class FrontRow(Protocol):
    """One eligible trial and its place: see raydistill.search.FrontRow."""

    @property
    def record(self) -> TrialRecord: ...
    @property
    def values(self) -> Mapping[str, float]: ...
    @property
    def rank(self) -> int: ...
    @property
    def pareto(self) -> bool: ...
    @property
    def knee(self) -> bool: ...
    @property
    def repeats(self) -> Sequence[TrialRecord]: ...
    @property
    def violations(self) -> Sequence[str]: ...


class Objective(Protocol):
    """name, direction ("max" or "min") and, of a figure of the user's own, metric: see raydistill.search.Objective."""

    @property
    def name(self) -> str: ...
    @property
    def direction(self) -> str: ...
    @property
    def metric(self) -> Metric | None: ...


def front_table(rows: Sequence[FrontRow], metrics: Mapping[str, Metric]) -> pandas.DataFrame:
    """One line a trial, in the order of `rows`: its place, validation and test figures, then its searched values."""
    import pandas

    lines = []
    for row in rows:
        last, test = row.record.last, row.record.test
        line: dict[str, object] = {"trial_id": row.record.trial_id, "pareto": row.pareto, "pareto_rank": row.rank}
        line["knee"] = row.knee
        line["sparsity"] = last.sparsity if last is not None else None
        for name in metrics:
            line[name] = last.metrics.get(name) if last is not None else None
        for name in metrics:
            line[f"test_{name}"] = test.metrics.get(name) if test is not None else None
        line["seeds"] = 1 + len(row.repeats)
        first = selecting(metrics)
        line[f"{first}_mean"], line[f"{first}_std"] = validation_of(row, first)
        line[f"test_{first}_mean"], line[f"test_{first}_std"] = test_of(row, first)
        line |= dict(last.footprint) if last is not None else {}
        line["infeasible"] = "; ".join(row.violations)
        line |= {"epochs": last.epoch + 1 if last is not None else 0, "dataset": row.record.dataset}
        line |= {"arch": row.record.arch, "seed": row.record.seed, "checkpoint": row.record.checkpoint}
        lines.append(line | dict(row.record.values))
    return pandas.DataFrame(lines)


def _over_seeds(name: str, runs: Iterable[EpochMetrics | Evaluation | None]) -> tuple[float | None, float | None]:
    """Mean and sample standard deviation of a metric; None where there is too little to say."""
    known = [run.metrics[name] for run in runs if run is not None and name in run.metrics]
    return statistics.mean(known) if known else None, statistics.stdev(known) if len(known) > 1 else None


def front_title(rows: Sequence[FrontRow], name: str) -> str:
    if not rows:
        return f"{name}: no finished trial yet"
    trials = sum(row.record.trial_id != BASELINE for row in rows)
    members = sum(row.pareto for row in rows)
    run = f"{rows[0].record.arch} on {rows[0].record.dataset}"
    return f"{name}: {run}, {trials} finished trial{'s' * (trials != 1)}, {members} of {len(rows)} points on the front"


def front_png(
    rows: Sequence[FrontRow],
    objectives: Sequence[Objective],
    metrics: Mapping[str, Metric],
    path: Path,
    title: str,
) -> None:
    """Draw the front into a PNG: see `draw_front`."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    buffer = io.BytesIO()
    FigureCanvasAgg(draw_front(rows, objectives, metrics, title)).print_png(buffer)
    write_atomically(path, buffer.getvalue())


def draw_front(
    rows: Sequence[FrontRow], objectives: Sequence[Objective], metrics: Mapping[str, Metric], title: str
) -> Figure:
    """Validation figures filled, test figures hollow; of several seeds the mean, and a bar for the deviation."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import EngFormatter, PercentFormatter

    x, y, colour = axes(objectives, metrics)
    known = known_figures(objectives, metrics)
    figure = Figure(figsize=(8, 5), dpi=150, layout="constrained")
    plot = figure.add_subplot()
    plot.set_title(title, fontsize=10, loc="left", wrap=True)
    plot.grid(color="#e6e8eb", linewidth=0.8)
    plot.set_axisbelow(True)
    for side in ("top", "right"):
        plot.spines[side].set_visible(False)
    dataset = rows[0].record.dataset if rows else ""
    plot.set_xlabel(axis_label(x, known, metrics, dataset))
    plot.set_ylabel(axis_label(y, known, metrics, dataset))
    for name, axis in ((x, plot.xaxis), (y, plot.yaxis)):
        if known[name].is_fraction:
            axis.set_major_formatter(PercentFormatter(1.0))
        elif known[name].is_large:
            axis.set_major_formatter(EngFormatter(sep=" "))

    drawn = [row for row in rows if row.record.last is not None]
    trials = [row for row in drawn if row.record.trial_id != BASELINE]
    front = [row for row in trials if row.pareto]
    rest = [row for row in trials if not row.pareto]
    dense = [row for row in drawn if row.record.trial_id == BASELINE]

    def scatter(chosen: Sequence[FrontRow], label: str, **style: Any) -> PathCollection | None:
        return plot.scatter(*_xy(chosen, x, y), label=label, **style) if chosen else None

    if colour is None:
        line = sorted((row for row in drawn if row.pareto), key=lambda row: figure_of(row, x))
        plot.plot(*_xy(line, x, y), color=FRONT, linewidth=1.2, alpha=0.6, zorder=2)
        scatter(rest, "dominated", s=26, color=REST, zorder=2)
        scatter(front, "Pareto front", s=44, color=FRONT, zorder=4)
    elif trials:
        shades = [figure_of(row, colour) for row in trials]
        edges = [DENSE if row.pareto else "none" for row in trials]
        points = scatter(
            trials, "trials (Pareto front ringed)", s=50, c=shades, cmap="viridis", edgecolors=edges, linewidths=1.3,
            zorder=4,
        )  # fmt: skip
        assert points is not None  # there are trials
        bar = figure.colorbar(points, ax=plot, label=axis_label(colour, known, metrics, dataset))
        if known[colour].is_fraction:
            bar.ax.yaxis.set_major_formatter(PercentFormatter(1.0))
        elif known[colour].is_large:
            bar.ax.yaxis.set_major_formatter(EngFormatter(sep=" "))
    scatter(dense, "dense baseline", s=90, color=DENSE, marker="*", zorder=5)
    scatter([row for row in drawn if row.knee], "knee", s=170, facecolors="none", edgecolors=KNEE, linewidths=1.8)
    tested = [row for row in drawn if row.record.test is not None]
    if y in metrics and tested:
        plot.scatter(
            [figure_of(row, x) for row in tested], [_or_nan(test_of(row, y)[0]) for row in tested],
            s=40, facecolors="none", edgecolors=FRONT, linewidths=1.1, label="front on the test split", zorder=3,
        )  # fmt: skip
    spread = [row for row in front if validation_of(row, y)[1] is not None]
    if spread:
        deviations = [_or_nan(validation_of(row, y)[1]) for row in spread]
        plot.errorbar(
            *_xy(spread, x, y), deviations, color=FRONT, linestyle="none", capsize=3, elinewidth=1.2, zorder=3,
            label=SPREAD,
        )  # fmt: skip
    plot.margins(0.06)
    if drawn:
        plot.legend(loc="best", fontsize=8, framealpha=0.9)
    else:
        plot.text(0.5, 0.5, "no finished trial yet", transform=plot.transAxes, ha="center", color="#777777")
    return figure


def axes(objectives: Sequence[Objective], metrics: Mapping[str, Metric]) -> tuple[str, str, str | None]:
    """The figures on the x and y axis and as colour.

    Of the first two, sparsity lies on x, else a metric lies on y; of two metrics the first.
    """
    names = [objective.name for objective in objectives]
    if len(names) < 2:
        y = names[0] if names and names[0] != "sparsity" else selecting(metrics)
        return "sparsity", y, None
    first, second = names[:2]
    turned = first == "sparsity" or (second in metrics and first not in metrics)
    x, y = (first, second) if turned else (second, first)
    return x, y, names[2] if len(names) > 2 else None


def known_figures(objectives: Sequence[Objective], metrics: Mapping[str, Metric]) -> dict[str, Metric]:
    """What every figure means that is drawn or told."""
    own = {objective.name: objective.metric for objective in objectives if objective.metric is not None}
    return {**metrics, **OF_NETWORK, **own}


def axis_label(name: str, known: Mapping[str, Metric], metrics: Mapping[str, Metric], dataset: str) -> str:
    if name not in metrics:
        return known[name].label or name
    return f"validation {metrics[name].label or name}" + (f" ({dataset})" if dataset else "")


def figure_of(row: FrontRow, name: str) -> float:
    """A validation figure of a row, objective or not; NaN where there is none. Objectives are means over its seeds."""
    if name in row.values:
        return float(row.values[name])
    return row.record.last.value(name) if row.record.last is not None else math.nan


def validation_of(row: FrontRow, name: str) -> tuple[float | None, float | None]:
    """Mean and deviation of a metric over a row's seeds; (None, None) of any other figure."""
    return _over_seeds(name, (run.last for run in (row.record, *row.repeats)))


def test_of(row: FrontRow, name: str) -> tuple[float | None, float | None]:
    """`_validation`'s, on the test split."""
    return _over_seeds(name, (run.test for run in (row.record, *row.repeats)))


def _or_nan(value: float | None) -> float:
    return math.nan if value is None else value


def with_spread(metric: Metric, mean: float, deviation: float | None) -> str:
    return shown(metric, mean) if deviation is None else f"{shown(metric, mean)} ± {shown(metric, deviation)}"


def _xy(rows: Sequence[FrontRow], x: str, y: str) -> tuple[list[float], list[float]]:
    return [figure_of(row, x) for row in rows], [figure_of(row, y) for row in rows]
