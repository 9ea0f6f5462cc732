"""Reading a sweep back from MLflow: the trials that were ranked, by the tags that `SweepLog` gives them.

Nothing is made or changed in the store. Nothing waits for longer than 10 s for a server that is not there.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from raydistill.errors import ABSENT, Fault, TrackingError, close_match
from raydistill.masking import masked
from raydistill.records import BASELINE, FINISHED
from raydistill.tracking.sink import SWEEP_TAG, TRIAL_TAG, first_line, root_cause
from raydistill.tracking.store import DATABASES, check_port, check_server, hush, undisturbed

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

_TIMEOUT_S = "5"
"""Of each request, in which a server sends at most `_PAGE` runs; the health check before it takes 5 s at most."""
_PAGE = 200


@dataclass(frozen=True)
class RankedTrial:
    """params: the searched values as MLflow has them, key (see `keys.key`) to text. rank: 0 is the front.

    origin: the trial's tag ``warm_start``, "" for one that was drawn.
    """

    trial_id: str
    params: Mapping[str, str]
    rank: int
    sparsity: float
    origin: str = ""


@dataclass(frozen=True)
class RankedSweep:
    """The latest sweep of a name. state: as its parent run says; "finished" if it ran to its end."""

    name: str
    state: str
    trials: tuple[RankedTrial, ...]


def ranked_trials(uri: str, name: str, where: str) -> RankedSweep:
    """The trials of sweep `name` that have a Pareto rank, in the order of their ids; without the dense baseline.

    Of several sweeps of this name the latest is taken that has such trials, finished ones before others. uri: MLflow's
    tracking URI. where: the key path that asks, for errors.

    Raises:
        TrackingError: no such store, server or sweep, or the sweep has no front.
    """
    _check(uri, where)
    shown = masked(uri)
    with _reading():
        from mlflow import MlflowClient
        from mlflow.exceptions import MlflowException

        hush()
        try:
            client = MlflowClient(tracking_uri=uri, registry_uri=uri)
            experiment = client.get_experiment_by_name(name)
            if experiment is None or experiment.lifecycle_stage != "active":
                names = [other.name for other in client.search_experiments() if other.name != "Default"]
                way_out = close_match(name, names) if names else "it holds no sweep at all"
                raise TrackingError(Fault(f"{where}.sweep", f"no such sweep in {shown}", name, way_out))
            runs = _runs(client, experiment.experiment_id)
        except MlflowException as error:
            raise TrackingError(_unreadable(where, shown, masked(first_line(error), uri))) from error
        except OSError as error:  # of requests, too
            raise TrackingError(_unreadable(where, shown, masked(root_cause(error), uri))) from error
    parents = [run for run in runs if TRIAL_TAG not in run.data.tags]
    parents.sort(key=lambda run: (run.data.tags.get("state") == FINISHED, run.info.start_time or 0), reverse=True)
    for parent in parents:
        sweep_id = parent.data.tags[SWEEP_TAG]
        found = [_trial(run) for run in runs if run.data.tags[SWEEP_TAG] == sweep_id]
        trials = sorted((trial for trial in found if trial is not None), key=lambda trial: trial.trial_id)
        if trials:
            return RankedSweep(name, parent.data.tags.get("state", "unknown"), tuple(trials))
    if not parents:
        rule, way_out = f"an experiment in {shown} that raydistill did not write", "name a sweep"
        raise TrackingError(Fault(f"{where}.sweep", rule, name, way_out))
    rule = f"has no front in {shown}, none of its trials has finished"
    raise TrackingError(Fault(f"{where}.sweep", rule, name, "finish it, or name another sweep"))


def _runs(client: MlflowClient, experiment_id: str) -> list[Run]:
    found, token = [], None
    while True:
        page = client.search_runs([experiment_id], f"tags.`{SWEEP_TAG}` != ''", max_results=_PAGE, page_token=token)
        found += page
        token = page.token
        if not token:
            return found


def _trial(run: Run) -> RankedTrial | None:
    tags = run.data.tags
    trial_id, rank = tags.get(TRIAL_TAG, BASELINE), tags.get("pareto_rank", "")
    if trial_id == BASELINE or "confirms" in tags or not rank.isdigit():  # -1: figures that are not finite
        return None
    sparsity = float(run.data.metrics.get("sparsity", 0.0))
    return RankedTrial(trial_id, dict(run.data.params), int(rank), sparsity, tags.get("warm_start", ""))


def _check(uri: str, where: str) -> None:
    """Ends in seconds where MLflow would try for minutes, and keeps it from making tables in a file that is not its."""
    parts = urlsplit(uri)
    scheme = parts.scheme.split("+")[0].lower()
    option = f"{where}.tracking_uri"
    if scheme == "sqlite":
        _check_tables(Path(uri.partition(":///")[2]), uri, option)
    elif scheme in ("http", "https"):
        check_server(uri, option)
    elif scheme in DATABASES:
        check_port(uri, DATABASES[scheme], option)
    elif scheme not in ("databricks", "databricks-uc"):
        way_out = "use http(s)://host:port, sqlite:///file.db or postgresql://..."
        raise TrackingError(Fault(option, "not a tracking URI that MLflow can keep runs in", uri, way_out))


def _check_tables(path: Path, uri: str, where: str) -> None:
    if not path.is_file():
        raise TrackingError(Fault(where, "no such database", uri, "as in sqlite:///sweeps/NAME/mlflow.db"))
    try:
        with contextlib.closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=5)) as tables:
            known = tables.execute("SELECT 1 FROM sqlite_master WHERE name = 'experiments'").fetchone()
    except sqlite3.Error as error:
        raise TrackingError(Fault(where, f"cannot be read ({error})", uri, "name a database of MLflow's")) from error
    if known is None:
        raise TrackingError(Fault(where, "is not a database of MLflow's", uri, "name a mlflow.db"))


@contextlib.contextmanager
def _reading() -> Iterator[None]:
    with undisturbed():
        os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"] = _TIMEOUT_S
        yield


def _unreadable(where: str, uri: str, why: str) -> Fault:
    way_out = "start it or mend it, or take the entry out"
    return Fault(f"{where}.tracking_uri", f"{uri} cannot be read ({why})", ABSENT, way_out)
