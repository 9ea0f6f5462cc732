"""Operations into MLflow: the experiment, the runs of a sweep by their tags, and what an error means.

A run is known by its tags, never by a remembered id: whoever sends the same records again, after a crash or a lost
answer, finds the run it made before.
"""

from __future__ import annotations

import getpass
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from raydistill.tracking.keys import tag_text
from raydistill.tracking.store import Place, hush
from raydistill.tracking.writer import Batch, Broken, Operation, Refused, Unavailable

if TYPE_CHECKING:
    from mlflow import MlflowClient

SWEEP_TAG = "raydistill.sweep_id"
TRIAL_TAG = "raydistill.trial_id"
PARENT = ""
"""The key of a sweep's parent run; a child's is its trial id."""

_PERMANENT = frozenset({
    "INVALID_PARAMETER_VALUE", "BAD_REQUEST", "RESOURCE_DOES_NOT_EXIST", "RESOURCE_ALREADY_EXISTS", "INVALID_STATE",
    "NOT_IMPLEMENTED", "ENDPOINT_NOT_FOUND", "MALFORMED_REQUEST",
})  # fmt: skip
_FULL = ("disk is full", "no space left on device", "disk quota exceeded")
_DAMAGED = ("disk image is malformed", "file is not a database", "malformed database schema")
_NOT_LIMITS = (FileNotFoundError, IsADirectoryError, NotADirectoryError, PermissionError)


@dataclass(frozen=True)
class RunCard:
    """What a run is created with."""

    name: str
    start_ms: int
    tags: dict[str, str] = field(default_factory=dict)


class MlflowSink:
    """Used from one thread at a time. Importing MLflow and making the database's tables (4 to 7 s) wait for `open`."""

    def __init__(self, place: Place, experiment: str, sweep_id: str, card: Callable[[str], RunCard]) -> None:
        self.place = place
        self._experiment = experiment
        self._sweep_id = sweep_id
        self._card = card
        self._client: MlflowClient | None = None
        self._experiment_id = ""
        self._runs: dict[str, str] = {}
        self._found: set[str] = set()
        self._stale = True

    def open(self) -> None:
        """Connect, make the experiment, find the runs that this sweep has already.

        Raises:
            Unavailable: try again later.
            Broken: this store or this experiment cannot be used.
        """
        try:
            from mlflow import MlflowClient
            from mlflow.exceptions import MlflowException
        except ModuleNotFoundError as error:
            raise Broken(f"MLflow cannot be imported ({error})") from error
        except (ImportError, AttributeError) as error:  # somebody else's thread is in the middle of the same import
            raise Unavailable(first_line(error)) from error

        hush()
        try:
            client = MlflowClient(tracking_uri=self.place.uri, registry_uri=self.place.uri)
            experiment = client.get_experiment_by_name(self._experiment)
            if experiment is None:
                self._experiment_id = client.create_experiment(self._experiment, self.place.artifacts)
            elif experiment.lifecycle_stage != "active":
                raise Broken(f"experiment '{self._experiment}' was deleted there; restore it, or choose another name")
            else:
                self._experiment_id = experiment.experiment_id
        except MlflowException as error:
            if is_full(error):
                raise self._full(error) from error
            if is_damaged(error):
                raise self._damaged() from error
            if is_permanent(error) or "out-of-date" in str(error):
                raise Broken(first_line(error)) from error
            raise Unavailable(root_cause(error)) from error
        except OSError as error:
            raise Unavailable(root_cause(error)) from error
        self._client = client

    def send(self, run: str, operation: Operation) -> None:
        if self._client is None:
            self.open()
        try:
            run_id = self.run_id(run)
            if isinstance(operation, Batch):
                self._log(run_id, operation)
            else:
                operation.do(self._client, run_id)
        except (Unavailable, Refused, Broken):
            raise
        except Exception as error:
            if is_full(error):  # reading still works there, which says nothing of writing
                raise self._full(error) from error
            if is_damaged(error):
                raise self._damaged() from error
            if is_permanent(error):
                raise Refused(first_line(error)) from error
            raise Unavailable(root_cause(error), alive=self._answers()) from error

    @property
    def experiment_id(self) -> str:
        return self._experiment_id

    @property
    def _opened(self) -> MlflowClient:
        assert self._client is not None, "open() comes first"
        return self._client

    def run_id(self, run: str) -> str:
        """The run's id in MLflow; made if the sweep does not have it yet."""
        if self._stale:
            self._find_runs()
        if run not in self._runs:
            card = self._card(run)
            tags = {**card.tags, SWEEP_TAG: self._sweep_id, "mlflow.runName": card.name, **_origin()}
            if run != PARENT:
                tags |= {TRIAL_TAG: run, "mlflow.parentRunId": self.run_id(PARENT)}
            self._stale = True  # if the answer is lost the run may be there all the same: look before another try
            created = self._opened.create_run(self._experiment_id, card.start_ms, tags, card.name)
            self._runs[run] = created.info.run_id
            self._stale = False
        return self._runs[run]

    def was_there(self, run: str) -> bool:
        """Whether the run was made by an earlier process."""
        return run in self._found

    def _find_runs(self) -> None:
        token = None
        while True:
            page = self._opened.search_runs(
                [self._experiment_id], f"tags.`{SWEEP_TAG}` = '{self._sweep_id}'", max_results=1000,
                order_by=["attributes.start_time ASC"], page_token=token,
            )  # fmt: skip
            for found in page:
                trial_id = found.data.tags.get(TRIAL_TAG, PARENT)
                if trial_id not in self._runs:
                    self._runs[trial_id] = found.info.run_id
                    self._found.add(trial_id)
            token = page.token
            if not token:
                break
        self._stale = False

    def _log(self, run_id: str, batch: Batch) -> None:
        from mlflow.entities import Metric, Param, RunTag

        self._opened.log_batch(
            run_id,
            metrics=[Metric(p.key, p.value, p.timestamp_ms, p.step) for p in batch.metrics],
            params=[Param(key, value) for key, value in batch.params],
            tags=[RunTag(key, value) for key, value in batch.tags],
        )

    def _full(self, error: BaseException) -> Unavailable:
        where = getattr(error, "filename", None) or self.place.shown
        return Unavailable(f"{where}: the disk is full; free some space there", trouble="cannot write")

    def _damaged(self) -> Broken:
        way_out = "bring a copy back, or remove it: --resume sends all records again"
        return Broken(f"{self.place.shown}: the database is damaged; {way_out}")

    def _answers(self) -> bool:
        try:
            self._opened.get_experiment(self._experiment_id)
        except Exception:
            return False
        return True


def is_permanent(error: Exception) -> bool:
    """Whether trying again is of no use: the request is wrong, not the moment."""
    code = getattr(error, "error_code", None)  # MlflowException's
    if code is not None:
        return code in _PERMANENT
    if isinstance(error, OSError):  # a full disk and the errors of `requests` among them
        return isinstance(error, _NOT_LIMITS)
    return not type(error).__module__.startswith(("sqlalchemy", "urllib3", "requests"))


def is_full(error: BaseException | None) -> bool:
    """Whether a store has no space left: SQLite's words, those of the operating system, or a server's of either."""
    while error is not None:
        if any(words in str(error).lower() for words in _FULL):
            return True
        error = error.__cause__ or error.__context__
    return False


def is_damaged(error: BaseException | None) -> bool:
    """Whether a database is damaged inside: SQLite's words, or a server's of them."""
    while error is not None:
        if any(words in str(error).lower() for words in _DAMAGED):
            return True
        error = error.__cause__ or error.__context__
    return False


def first_line(error: BaseException) -> str:
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0]


def root_cause(error: BaseException) -> str:
    """What is at the bottom of MLflow's, requests' and urllib3's wrappers: "Connection refused", not 300 characters."""
    while error.__cause__ is not None or error.__context__ is not None:
        error = error.__cause__ or error.__context__  # type: ignore[assignment]
    return first_line(error)


def _origin() -> dict[str, str]:
    try:
        user = getpass.getuser()
    except (OSError, KeyError):  # no such user in a container
        user = str(os.getuid())
    return {"mlflow.user": tag_text(user), "mlflow.source.name": "raydistill", "mlflow.source.type": "LOCAL"}
