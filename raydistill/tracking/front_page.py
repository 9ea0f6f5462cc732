"""The front as one HTML page of some 20 kB: a picture to click in, the searched values, and what they matter.

It needs no network and no library. Its data stand in it as JSON; its script draws them.
"""

from __future__ import annotations

import html
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from raydistill.files import write_atomically
from raydistill.metrics import Metric, selecting, shown
from raydistill.records import BASELINE, Scalar
from raydistill.tracking.figures import (
    FrontRow,
    Objective,
    axes,
    axis_label,
    figure_of,
    known_figures,
    test_of,
    validation_of,
    with_spread,
)

_LEAST_TRIALS = 5
"""With fewer finished trials nothing is said of what a value matters."""


def front_html(
    rows: Sequence[FrontRow],
    objectives: Sequence[Objective],
    metrics: Mapping[str, Metric],
    path: Path,
    title: str,
    name: str = "",
) -> None:
    """Draw the front: a click on a point gives its trial, figures, values and how to load it; below, every searched
    value and objective as parallel axes, coloured by a figure, and how much each value mattered. name: the sweep's.
    """
    data = page_data(rows, objectives, metrics, title, name)
    text = json.dumps(data, allow_nan=False).replace("<", "\\u003c")
    page = Path(__file__).with_suffix(".html").read_text(encoding="utf-8")
    write_atomically(path, page.replace("@TITLE@", html.escape(title, quote=False)).replace("@DATA@", text))


def page_data(
    rows: Sequence[FrontRow],
    objectives: Sequence[Objective],
    metrics: Mapping[str, Metric],
    title: str,
    name: str,
) -> dict[str, object]:
    """What the page draws, as plain values. Figures are of the validation split, means over seeds; None: not known."""
    x, y, colour = axes(objectives, metrics)
    known = known_figures(objectives, metrics)
    dataset = rows[0].record.dataset if rows else ""
    drawn = [row for row in rows if row.record.last is not None]
    names = list(dict.fromkeys([x, y, *([colour] if colour else []), *(o.name for o in objectives), "sparsity"]))
    names += [
        one for one in {**metrics, **known} if one not in names and any(_figure(row, one) is not None for row in drawn)
    ]
    dimensions = list(dict.fromkeys(path for row in drawn for path in row.record.values))
    trials = [row for row in drawn if row.record.trial_id != BASELINE]
    first = selecting(metrics)
    return {
        "title": title,
        "name": name,
        "dataset": dataset,
        "axes": [x, y],
        "first": first,
        "figures": [
            {
                "name": one, "label": axis_label(one, known, metrics, dataset), "direction": known[one].direction,
                "fraction": known[one].is_fraction, "large": known[one].is_large,
            }
            for one in names
        ],
        "objectives": [objective.name for objective in objectives],
        "dimensions": dimensions,
        "importance": {
            objective.name: importance(trials, dimensions, objective.name) for objective in objectives
        },
        "rows": [
            {
                "id": row.record.trial_id,
                "dense": row.record.trial_id == BASELINE,
                "pareto": row.pareto,
                "knee": row.knee,
                "seeds": 1 + len(row.repeats),
                "violations": list(row.violations),
                "figures": {one: _figure(row, one) for one in names},
                "deviation": {one: _finite(validation_of(row, one)[1]) for one in metrics},
                "test": None if row.record.test is None else {one: _finite(test_of(row, one)[0]) for one in metrics},
                "lines": _lines(row, objectives, metrics, known),
                "values": {path: _plain(value) for path, value in row.record.values.items()},
                "checkpoint": row.record.checkpoint,
                "arch": row.record.arch,
            }
            for row in drawn
        ],
    }  # fmt: skip


def importance(trials: Sequence[FrontRow], dimensions: Sequence[str], figure: str) -> dict[str, float]:
    """How much each searched value mattered for a figure, in [0, 1]: of numbers the size of Spearman's rank
    correlation, of choices the correlation ratio of the figure's ranks. Of fewer than five trials nothing.
    """
    import numpy as np
    from scipy.stats import rankdata

    found: dict[str, float] = {}
    for path in dimensions:
        pairs = [(row.record.values[path], _figure(row, figure)) for row in trials if path in row.record.values]
        known = [(value, result) for value, result in pairs if result is not None]
        if len(known) < _LEAST_TRIALS:
            continue
        results = rankdata([result for _, result in known])
        if results.std() == 0:
            continue
        if all(isinstance(value, int | float) and not isinstance(value, bool) for value, _ in known):
            values = rankdata([float(value) for value, _ in known])
            if values.std() > 0:
                found[path] = abs(float(np.corrcoef(values, results)[0, 1]))
            continue
        kinds = {str(value) for value, _ in known}
        groups = [results[[str(value) == kind for value, _ in known]] for kind in kinds]
        between = sum(len(group) * (group.mean() - results.mean()) ** 2 for group in groups)
        found[path] = math.sqrt(float(between / ((results - results.mean()) ** 2).sum()))
    return found


def _lines(
    row: FrontRow, objectives: Sequence[Objective], metrics: Mapping[str, Metric], known: Mapping[str, Metric]
) -> list[str]:
    """Its figures in words, each with its deviation where there are several seeds."""
    first = selecting(metrics)
    names = dict.fromkeys([*(objective.name for objective in objectives), "sparsity", first])
    lines = [f"{one}: {with_spread(known[one], figure_of(row, one), validation_of(row, one)[1])}" for one in names]
    mean, deviation = test_of(row, first)
    lines += [f"test {first}: {with_spread(metrics[first], mean, deviation)}"] if mean is not None else []
    cost = row.record.last.footprint if row.record.last is not None else {}
    lines += [f"{one}: {_counted(known.get(one), value)}" for one, value in cost.items() if one not in names]
    return lines + ([f"{1 + len(row.repeats)} seeds"] if row.repeats else [])


def _counted(metric: Metric | None, value: float) -> str:
    return f"{value:,.0f}" if metric is not None and metric.is_large else shown(metric, value)


def _figure(row: FrontRow, name: str) -> float | None:
    return _finite(figure_of(row, name))


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _plain(value: Scalar) -> Scalar:
    return value if not isinstance(value, float) or math.isfinite(value) else str(value)
