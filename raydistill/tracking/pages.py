"""What MLflow's pages show of a sweep: the note of its parent run, the view of its front, the links to both.

A view that is shared in MLflow's interface is a tag of the experiment (`SHARED_VIEW` and a key) and a key in the page's
address; so the front opens with its filter, its order and its columns.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from urllib.parse import urlencode, urlsplit, urlunsplit

from raydistill.metrics import OF_NETWORK, Metric, selecting, shown
from raydistill.records import EpochMetrics
from raydistill.tracking.figures import FrontRow, Objective
from raydistill.tracking.keys import key
from raydistill.tracking.sink import SWEEP_TAG

NOTE_TAG = "mlflow.note.content"
SHARED_VIEW = "mlflow.sharedViewState."
LOCAL = "http://127.0.0.1:5000"
"""Where ``mlflow ui`` answers unless it is told otherwise."""

FIRST_CHARTS = "epoch by epoch"
"""The section of a run's charts that stands first."""

_ROWS = 20


def view_key(sweep_id: str) -> str:
    return f"front-{sweep_id[:12]}"


def view(sweep_id: str, objectives: Sequence[Objective], metrics: Mapping[str, Metric]) -> str:
    """The runs of the front, the sparsest last, with the figures that were optimised."""
    first = selecting(metrics)
    names = list(dict.fromkeys([first, "sparsity", *(objective.name for objective in objectives), f"test_{first}"]))
    columns = ["attributes.`Models`", *(f"metrics.`{key(name)}`" for name in names), "tags.`knee`"]
    state = {
        "searchFilter": _filter(sweep_id), "orderByKey": "metrics.`sparsity`", "orderByAsc": True, "startTime": "ALL",
        "lifecycleFilter": "Active", "modelVersionFilter": "All Runs", "datasetsFilter": [],
        "selectedColumns": columns, "runsExpanded": {}, "runsPinned": [], "runsHidden": [],
        "runsHiddenMode": "FIRST_20_RUNS", "runsVisibilityMap": {}, "viewMaximized": True, "runListHidden": False,
        "groupBy": None, "groupsExpanded": {}, "useGroupedValuesInCharts": True, "hideEmptyCharts": True,
        "isAccordionReordered": False, "autoRefreshEnabled": True,
        "globalLineChartConfig": {"xAxisKey": "step", "lineSmoothness": 0, "selectedXAxisMetricKey": ""},
    }  # fmt: skip
    return json.dumps(state)


def first_charts(metrics: EpochMetrics) -> dict[str, float]:
    """What a run's page is to show first, once more: its charts stand in the order of their names, those whose names
    have a prefix before all others."""
    first = selecting(metrics.metrics)
    return {f"{FIRST_CHARTS}/{name}": metrics.value(name) for name in (first, "sparsity")}


def front_page(uri: str, experiment_id: str, sweep_id: str) -> str:
    """The address of the front in MLflow's interface, in its mode for models that are trained. uri: of tracking."""
    base = LOCAL
    if uri.startswith(("http://", "https://")):
        parts = urlsplit(uri)
        host = parts.netloc.rpartition("@")[2]  # a browser asks for the password itself
        base = urlunsplit((parts.scheme, host, parts.path.rstrip("/"), "", ""))
    said = urlencode({"workflowType": "machine_learning", "viewStateShareKey": view_key(sweep_id)})
    return f"{base}/#/experiments/{experiment_id}/runs?{said}"


def _filter(sweep_id: str) -> str:
    return f"tags.pareto = 'true' and tags.`{SWEEP_TAG}` = '{sweep_id}'"


def note(
    name: str,
    about: Mapping[str, object],
    rows: Sequence[FrontRow],
    objectives: Sequence[Objective],
    metrics: Mapping[str, Metric],
    link: Callable[[str], str],
    registered: str,
) -> str:
    """The description of a parent run, in Markdown. about: what was searched. link: from a trial to its run's page."""
    first, known = selecting(metrics), {**metrics, **OF_NETWORK}
    known |= {objective.name: objective.metric for objective in objectives if objective.metric is not None}
    names = list(dict.fromkeys([first, "sparsity", *(objective.name for objective in objectives)]))
    lines = [f"**{name}**: " + ", ".join(f"{objective.name} {objective.direction}" for objective in objectives), ""]
    front = [row for row in rows if row.pareto]
    heads = ["trial", *(f"{one} (validation)" if one in metrics else one for one in names), f"{first} (test)", ""]
    lines += [f"The Pareto front, {len(front)} of {len(rows)} finished:", ""]
    lines += ["| " + " | ".join(heads) + " |", "|" + " --- |" * len(heads)]
    for row in front[:_ROWS]:
        last, test = row.record.last, row.record.test
        values = [last.value(one) if last is not None else float("nan") for one in names]
        cells = [f"[{row.record.trial_id}]({link(row.record.trial_id)})"]
        cells += [shown(known.get(one), value) for one, value in zip(names, values, strict=True)]
        cells += [shown(metrics[first], test.metrics[first]) if test is not None else "", "knee" if row.knee else ""]
        lines.append("| " + " | ".join(cells) + " |")
    if len(front) > _ROWS:
        lines += ["", f"and {len(front) - _ROWS} more, in pareto.csv"]
    if registered:
        load = f'mlflow.pyfunc.load_model("models:/{registered}@pareto-knee")'
        lines += ["", "Each is a logged model of its run, thinned and folded. The knee:", "", f"    {load}"]
        lines += [f"    mlflow models serve -m models:/{registered}@pareto-knee --env-manager local"]
        lines += ["", f"As a folder to take away: `raydistill pick {name} --trial TRIAL`"]
    searched = {path.removeprefix("search."): text for path, text in about.items() if path.startswith("search.")}
    if searched:
        lines += ["", "Searched:", "", *(f"- `{path}`: {text}" for path, text in list(searched.items())[:_ROWS])]
        lines += [f"- and {len(searched) - _ROWS} more"] if len(searched) > _ROWS else []
    return "\n".join(lines)
