"""A sweep in MLflow: the parent run, a child run a trial, their figures as they come.

Every method returns at once; a background thread delivers. Calling one twice with the same record changes nothing.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from raydistill.errors import Fault, StorageError, TrackingError
from raydistill.masking import masked
from raydistill.metrics import Metric
from raydistill.records import FAILED, FINISHED, STOPPED, EpochMetrics, Evaluation, TrialRecord
from raydistill.tracking import models, pages
from raydistill.tracking.figures import FrontRow, Objective
from raydistill.tracking.front_files import write_front
from raydistill.tracking.keys import key, param_text, registered_name, tag_text
from raydistill.tracking.models import KNEE_ALIAS, LoggedMember
from raydistill.tracking.serving import serve_boxes
from raydistill.tracking.sink import PARENT, MlflowSink, RunCard
from raydistill.tracking.store import OPTION, locate, undisturbed
from raydistill.tracking.writer import Action, Broken, Point, TrackingWriter, Unavailable, batches

if TYPE_CHECKING:
    import numpy as np
    import torch
    from mlflow import MlflowClient

PENDING = "mlflow_pending"
"""Folder in the storage for exported models that MLflow does not have yet."""


@dataclass(frozen=True)
class DatasetCard:
    """name, digest: of the data, as MLflow names a dataset."""

    name: str
    digest: str


class SweepLog:
    """Writes one sweep.

    uri: MLflow's tracking URI; None is the embedded SQLite store in `storage`. name: of the experiment, of the parent
    run and of the registered model. sweep_id: unique to this sweep, the same when it is resumed. params, tags: the
    parent's. report: called with one line for each thing the user should know (from another thread). lent: gives a
    trial's file by its name in the records, to read; None: the names are paths. artifacts: where a database without a
    server keeps its artifacts; None is a folder in `storage`. dataset: what every run is trained on.
    run_name: of the parent run, where that is not the experiment's. pending: where models wait for MLflow; None: in
    `storage`, which is then this sweep's alone.
    """

    def __init__(
        self,
        uri: str | None,
        storage: Path,
        name: str,
        sweep_id: str,
        params: Mapping[str, object] | None = None,
        tags: Mapping[str, object] | None = None,
        report: Callable[[str], None] | None = None,
        lent: Callable[[str], AbstractContextManager[Path]] | None = None,
        artifacts: str | None = None,
        dataset: DatasetCard | None = None,
        run_name: str | None = None,
        pending: Path | None = None,
    ) -> None:
        self.name, self.sweep_id, self.storage = name, sweep_id, Path(storage).absolute()
        self._asked_uri, self._report = uri, report
        self._lent, self._artifacts, self._dataset = lent, artifacts, dataset
        self._run_name = run_name or name
        self._pending = (pending or self.storage).absolute() / PENDING
        self._params, self._tags = dict(params or {}), dict(tags or {})
        self._cards: dict[str, RunCard] = {}
        self._last: dict[str, EpochMetrics] = {}
        self._front_tags: dict[str, dict[str, str]] = {}
        self._tested: set[str] = set()
        self._stack = contextlib.ExitStack()
        self._writer: TrackingWriter | None = None
        self._sink: MlflowSink | None = None
        self._front: _Front | None = None
        self._registered: dict[str, str] = {}

    @property
    def registered(self) -> str:
        """The name under which MLflow has taken the knee; "" as long as it has not."""
        return self._registered.get(KNEE_ALIAS, "")

    @property
    def aliases(self) -> dict[str, str]:
        """Of each alias that MLflow has taken, the name of its model."""
        return dict(self._registered)

    @property
    def broken(self) -> bool:
        """Whether the store takes nothing any more, whatever one waits for."""
        return self._live()[0].broken

    @property
    def uri(self) -> str:
        """The tracking URI in use, for ``mlflow ui --backend-store-uri``."""
        return self._live()[1].place.uri

    @property
    def front_page(self) -> str:
        """The address of the front in MLflow's interface, which ``mlflow ui`` serves where there is no server; "" as
        long as there is no experiment."""
        _, sink = self._live()
        return pages.front_page(self.uri, sink.experiment_id, self.sweep_id) if sink.experiment_id else ""

    @property
    def errors(self) -> list[str]:
        """What went wrong so far, one line each."""
        return list(self._live()[0].errors)

    def connect(self) -> None:
        """Check that the store is there; makes no run yet, so that a sweep can first write down who it is.

        The embedded store's tables (4 s) are made in the background; any other store is opened here, to fail early.

        Raises:
            TrackingError: the store cannot be reached or cannot be used.
        """
        place = locate(self._asked_uri, self.storage, self._artifacts)
        self._stack.enter_context(undisturbed())
        self._sink = MlflowSink(place, self.name, self.sweep_id, self._card)
        self._writer = TrackingWriter(self._sink, self._report, lambda line: masked(line, place.uri))
        if not place.embedded:
            try:
                self._sink.open()
            except (Broken, Unavailable) as error:
                self._stack.close()
                rule, way_out = (
                    f"the store cannot be used ({masked(str(error), place.uri)})",
                    "mend it or choose another",
                )
                raise TrackingError(Fault(OPTION, rule, masked(place.uri), way_out)) from error

    def start(self) -> None:
        """Open the parent run; connects first where that was not done.

        Raises:
            TrackingError: the store cannot be reached or cannot be used.
        """
        if self._writer is None:
            self.connect()
        writer, _ = self._live()
        self._cards[PARENT] = RunCard(self._run_name, now_ms())
        writer.start()
        self._reopen(PARENT)
        writer.put(PARENT, Action("its parameters", self._send_params))
        self._put(PARENT, tags={**self._tags, "state": "running"})

    def trial_started(self, record: TrialRecord) -> None:
        """Open the trial's run, or reopen it when a sweep is resumed; the baseline's is one like any other."""
        tags = {"dataset": record.dataset, "arch": record.arch, "seed": record.seed, "state": record.state}
        tags |= {"confirms": record.confirms} if record.confirms else {}
        tags |= record.extra
        texts = {name: tag_text(value) for name, value in tags.items()}
        self._cards[record.trial_id] = RunCard(record.trial_id, record.started_ms or now_ms(), texts)
        self._reopen(record.trial_id)
        self._put(record.trial_id, params=record.values, tags=tags)

    def epoch(self, trial_id: str, metrics: EpochMetrics) -> None:
        """Log one epoch, at the record's own time and with its epoch as step."""
        self._last[trial_id] = metrics
        shown = {**pages.first_charts(metrics), **metrics.scalars}
        self._put(trial_id, metrics=shown, step=metrics.epoch, timestamp_ms=metrics.timestamp_ms)

    def run_epoch(self, metrics: EpochMetrics) -> None:
        """Log one epoch of the parent run itself: a single run has no trials."""
        self.epoch(PARENT, metrics)

    def run_result(self, evaluation: Evaluation, last: EpochMetrics, artifacts: Sequence[Path] = ()) -> None:
        """Log what a single run has come to: figures of a split, what its network costs, and its files."""
        metrics = {**evaluation.named_by_split, **last.footprint}
        self._put(PARENT, metrics=metrics, step=last.epoch, timestamp_ms=last.timestamp_ms)
        for path in artifacts:
            if path.exists():
                self._live()[0].put(PARENT, Action(f"file '{path.name}'", _upload_file(path), replaces=path.name))

    def trial_ended(self, record: TrialRecord, artifacts: Sequence[str | Path] = ()) -> None:
        """Log what the trial has come to, upload its files, end its run.

        FINISHED, also for a trial that was stopped early (its tag ``state`` says so), FAILED, or KILLED for one that
        was interrupted. artifacts: as `lent` knows them; what does not exist is left out.
        """
        if record.trial_id not in self._cards:
            self.trial_started(record)
        tags: dict[str, object] = {"state": record.state, "end_reason": record.reason, **record.extra}
        tags |= {"trial_id": record.trial_id, "dataset": record.dataset, "arch": record.arch, "seed": record.seed}
        if record.state != FINISHED:
            tags["pareto"] = False
        self._put(record.trial_id, params=record.values, tags=tags)
        if record.last is not None:
            self.epoch(record.trial_id, record.last)  # a reused baseline has no other; sent twice it is still one
            # each layer's sparsity is in sparsity.csv: as metrics they would stand before all that has a course
            cost, last = record.last.footprint, record.last
            self._put(record.trial_id, metrics=cost, step=last.epoch, timestamp_ms=last.timestamp_ms)
        self._log_test(record)
        writer, _ = self._live()
        for artifact in map(str, artifacts):
            name = artifact.rpartition("/")[2]
            if self._lent is not None:
                upload = _upload_lent(artifact, self._lent)
            elif Path(artifact).exists():
                upload = _upload_file(Path(artifact))
            else:
                continue
            writer.put(record.trial_id, Action(f"file '{name}'", upload, replaces=name))
        status = {FINISHED: "FINISHED", STOPPED: "FINISHED", FAILED: "FAILED"}.get(record.state, "KILLED")
        self._end(record.trial_id, status, record.ended_ms or now_ms())

    def front(
        self,
        rows: Sequence[FrontRow],
        objectives: Sequence[Objective],
        metrics: Mapping[str, Metric],
        progress: Mapping[str, float] | None = None,
    ) -> None:
        """Write pareto.csv, pareto.png and pareto.html into the storage and the parent run, and tag the children.

        progress: figures of the front as a whole, metrics of the parent run, step by step of finished trials.

        Drawn by the background thread (0.6 s); of fronts that come faster than that only the latest is drawn.
        """
        front = _Front(tuple(rows), tuple(objectives), metrics, self.storage, self.name)
        self._front = front

        def draw_and_upload(client: MlflowClient, run_id: str) -> None:
            for path in front.draw():
                client.log_artifact(run_id, str(path))

        def describe(client: MlflowClient, run_id: str) -> None:
            _, sink = self._live()
            runs = f"#/experiments/{sink.experiment_id}/runs/"
            text = pages.note(
                self.name, self._params, rows, objectives, metrics, lambda trial_id: runs + sink.run_id(trial_id),
                self.registered,
            )  # fmt: skip
            client.set_tag(run_id, pages.NOTE_TAG, tag_text(text))
            state = pages.view(self.sweep_id, objectives, metrics)
            client.set_experiment_tag(sink.experiment_id, pages.SHARED_VIEW + pages.view_key(self.sweep_id), state)

        self._live()[0].put(PARENT, Action("the front's files", draw_and_upload, replaces="front"))
        self._live()[0].put(PARENT, Action("the front's page", describe, replaces="page"))
        if progress:
            self._put(PARENT, metrics=progress, step=len(rows), timestamp_ms=now_ms())
        for row in rows:
            trial_id = row.record.trial_id
            tags = {"pareto": tag_text(row.pareto), "pareto_rank": tag_text(row.rank), "knee": tag_text(row.knee)}
            tags |= {"feasible": tag_text(not row.violations)}
            if self._front_tags.get(trial_id) != tags:
                self._front_tags[trial_id] = tags
                self._put(trial_id, tags=tags)
            self._log_test(row.record)

    def log_model(
        self,
        trial_id: str,
        model: torch.nn.Module,
        input_example: np.ndarray,
        metrics: Mapping[str, float] | None = None,
        params: Mapping[str, object] | None = None,
        metadata: Mapping[str, object] | None = None,
    ) -> LoggedMember:
        """Export `model` (on the CPU) here and send it as an MLflow model of the trial's run, or of the parent's.

        input_example: of images (2, C, H, W) float32. metadata: plain values beside the model, such as preprocessing.

        Raises:
            TrackingError: torch.export cannot trace the model.
            StorageError: the storage cannot take it.
        """
        return self._log_model(
            trial_id, lambda folder: models.export(model, input_example, folder, metadata), metrics, params
        )

    def log_detector(
        self,
        trial_id: str,
        network: bytes,
        input_example: np.ndarray,
        metrics: Mapping[str, float] | None = None,
        params: Mapping[str, object] | None = None,
        metadata: Mapping[str, object] | None = None,
    ) -> LoggedMember:
        """The same for what finds boxes: network is its ONNX file, input_example one image, (3, H, W) float32 in
        [0, 1]; see `tracking.served_boxes`.

        Raises:
            StorageError: the storage cannot take it.
        """
        return self._log_model(
            trial_id, lambda folder: serve_boxes(network, folder, input_example, metadata or {}), metrics, params
        )

    def _log_model(
        self,
        trial_id: str,
        export: Callable[[Path], None],
        metrics: Mapping[str, float] | None,
        params: Mapping[str, object] | None,
    ) -> LoggedMember:
        writer, sink = self._live()
        member = models.member_of(self.name if trial_id else self._run_name, trial_id)
        pending = self._pending
        try:
            pending.mkdir(parents=True, exist_ok=True)
            # A folder of its own: an earlier export of the same trial may be on its way just now.
            folder = Path(tempfile.mkdtemp(prefix=f"{trial_id or 'run'}-", dir=pending)) / "model"
            export(folder)
        except OSError as error:
            rule = f"the exported model cannot be written ({error.strerror or error})"
            raise StorageError(Fault(str(pending), rule, way_out="free some space, then resume")) from error
        last = self._last.get(trial_id)
        step, timestamp_ms = (last.epoch, last.timestamp_ms) if last is not None else (0, now_ms())
        figures = {key(name): float(value) for name, value in (metrics or {}).items()}
        texts = {key(name): param_text(value) for name, value in (params or {}).items()}

        def send(client: MlflowClient, run_id: str) -> None:
            experiment_id = sink.experiment_id
            models.upload(
                client, experiment_id, run_id, self.sweep_id, member, folder, figures, texts, step, timestamp_ms
            )

        writer.put(trial_id, Action("its model", send, replaces="model"))
        return member

    def register(
        self,
        member: LoggedMember,
        alias: str = KNEE_ALIAS,
        about: models.VersionCard | None = None,
        name: str | None = None,
    ) -> str:
        """Register the member's model with an alias, under the sweep's name or another.

        about: what its page says. Returns the name as the registry has it (without slashes and colons):
        ``models:/<name>@pareto-knee``.
        """
        writer, sink = self._live()
        registered = registered_name(name or self.name)

        def send(client: MlflowClient, run_id: str) -> None:
            models.register(client, sink.experiment_id, run_id, self.sweep_id, member, registered, alias, about)
            self._registered[alias] = registered

        writer.put(member.trial_id, Action("registering its model", send, replaces=f"registration as {alias}"))
        return registered

    def withdraw(self, alias: str = KNEE_ALIAS, name: str | None = None) -> None:
        """Take an alias from a model of this sweep's; another sweep's keeps it."""
        registered = registered_name(name or self.name)

        def send(client: MlflowClient, run_id: str) -> None:
            models.withdraw(client, self.sweep_id, registered, alias)
            self._registered.pop(alias, None)

        replaces = f"withdrawal of {registered}@{alias}"
        self._live()[0].put(PARENT, Action("withdrawing an alias", send, replaces=replaces))

    def withdraw_all_but(self, kept: Collection[str], name: str | None = None) -> None:
        """Take all other aliases that this sweep has given; those that somebody else has given stay."""
        registered, kept = registered_name(name or self.name), frozenset(kept)

        def send(client: MlflowClient, run_id: str) -> None:
            for alias in models.withdraw_all_but(client, self.sweep_id, registered, kept):
                self._registered.pop(alias, None)

        replaces = f"withdrawal of others of {registered}"
        self._live()[0].put(PARENT, Action("withdrawing aliases", send, replaces=replaces))

    def finish(self, state: str = FINISHED, timeout_s: float = 60.0) -> int:
        """End the parent run (FINISHED, FAILED, or KILLED if interrupted), deliver what waits, stop the thread.

        Returns the number of operations that could not be delivered in time; a resumed sweep sends them again. The
        front's files are in the storage in any case, unless timeout_s is 0: that is for leaving at once.

        Raises:
            StorageError: the front's files cannot be written.
        """
        writer, _ = self._live()
        status = {FINISHED: "FINISHED", FAILED: "FAILED"}.get(state, "KILLED")
        self._put(PARENT, tags={"state": state})
        self._end(PARENT, status, now_ms())
        left = writer.close(timeout_s)
        self._stack.close()
        if self._front is not None and timeout_s > 0:
            self._front.draw()
        if not left:
            shutil.rmtree(self._pending, ignore_errors=True)
        return left

    def flush(self, timeout_s: float) -> int:
        """Wait until everything has been delivered, for at most `timeout_s`; the number that still waits."""
        return self._live()[0].flush(timeout_s)

    def _live(self) -> tuple[TrackingWriter, MlflowSink]:
        if self._writer is None or self._sink is None:
            raise RuntimeError("SweepLog.start() has not been called")
        return self._writer, self._sink

    def _card(self, run: str) -> RunCard:
        return self._cards.get(run) or RunCard(run, now_ms())

    def _put(
        self,
        run: str,
        metrics: Mapping[str, float] | None = None,
        params: Mapping[str, object] | None = None,
        tags: Mapping[str, object] | None = None,
        step: int = 0,
        timestamp_ms: int = 0,
    ) -> None:
        points = tuple(Point(key(name), float(value), timestamp_ms, step) for name, value in (metrics or {}).items())
        texts = tuple((key(name), param_text(value)) for name, value in (params or {}).items())
        marks = tuple((key(name), tag_text(value)) for name, value in (tags or {}).items())
        self._live()[0].put(run, *batches(points, texts, marks))

    def _log_test(self, record: TrialRecord) -> None:
        """Test-split figures, once: only front members have them."""
        if record.test is None or record.trial_id in self._tested:
            return
        self._tested.add(record.trial_id)
        step, timestamp_ms = (record.last.epoch, record.last.timestamp_ms) if record.last is not None else (0, 0)
        self._put(record.trial_id, metrics=record.test.named_by_split, step=step, timestamp_ms=timestamp_ms)

    def _reopen(self, run: str) -> None:
        writer, sink = self._live()

        def reopen(client: MlflowClient, run_id: str) -> None:
            if sink.was_there(run):
                client.update_run(run_id, status="RUNNING")
            if self._dataset is not None:
                _log_dataset(client, run_id, self._dataset)

        writer.put(run, Action("opening", reopen))

    def _end(self, run: str, status: str, ended_ms: int) -> None:
        def end(client: MlflowClient, run_id: str) -> None:
            client.set_terminated(run_id, status, ended_ms)

        self._live()[0].put(run, Action("ending", end))

    def _send_params(self, client: MlflowClient, run_id: str) -> None:
        """Params cannot change in MLflow: where a resumed sweep differs (more samples), the new value is a tag."""
        from mlflow.entities import Param, RunTag

        present = client.get_run(run_id).data.params
        wanted = {key(name): param_text(value) for name, value in self._params.items()}
        new = [Param(name, text) for name, text in wanted.items() if name not in present]
        changed = [RunTag(f"resumed.{n}", tag_text(t)) for n, t in wanted.items() if present.get(n, t) != t]
        for i in range(0, max(len(new), len(changed)), 100):
            client.log_batch(run_id, params=new[i : i + 100], tags=changed[i : i + 100])


class _Front:
    """One state of the front, drawn at most once, by whichever thread comes first."""

    def __init__(
        self,
        rows: Sequence[FrontRow],
        objectives: Sequence[Objective],
        metrics: Mapping[str, Metric],
        folder: Path,
        name: str,
    ) -> None:
        self._arguments = (rows, objectives, metrics, folder, name)
        self._lock = threading.Lock()
        self._paths: list[Path] = []

    def draw(self) -> list[Path]:
        with self._lock:
            if not self._paths:
                self._paths = write_front(*self._arguments)
            return self._paths


def _log_dataset(client: MlflowClient, run_id: str, card: DatasetCard) -> None:
    from mlflow.entities import Dataset, DatasetInput, InputTag

    source = json.dumps({"name": card.name})
    dataset = Dataset(card.name[:500], card.digest[:36], "raydistill", source)
    client.log_inputs(run_id, [DatasetInput(dataset, [InputTag("mlflow.data.context", "training")])])


def now_ms() -> int:
    return int(time.time() * 1000)


def _upload_lent(name: str, lent: Callable[[str], AbstractContextManager[Path]]) -> Callable[[MlflowClient, str], None]:
    def upload(client: MlflowClient, run_id: str) -> None:
        with lent(name) as path:
            if path.exists():
                _upload_file(path)(client, run_id)

    return upload


def _upload_file(path: Path) -> Callable[[MlflowClient, str], None]:
    def upload(client: MlflowClient, run_id: str) -> None:
        if path.is_dir():
            client.log_artifacts(run_id, str(path), path.name)
        else:
            client.log_artifact(run_id, str(path))

    return upload
