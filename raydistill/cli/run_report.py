"""Where one run's lines go: the console, ``run.log`` beside the checkpoint, and MLflow."""

from __future__ import annotations

import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from raydistill.cli import lines
from raydistill.cli.tables import first_in_words, percent
from raydistill.errors import ABSENT, Fault, RaydistillError, StorageError
from raydistill.files import write_atomically
from raydistill.masking import masked
from raydistill.metrics import LOSS, Metric

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

    from raydistill.records import EpochMetrics, Evaluation
    from raydistill.sweep.results.logged_model import Delivered
    from raydistill.tasks import Task
    from raydistill.tracking import SweepLog


_NOT_THERE = "the run's model is not in MLflow"
EXPERIMENT = "compress"
"""All single runs of a store are in one: there they can be compared."""


class RunReport:
    """Prints and appends to ``folder/run.log``; with `uri` or the embedded store, also to MLflow.

    metrics: the task's. mlflow: False keeps MLflow out. uri: a tracking URI; None is the store in the folder above this
    run's.
    """

    def __init__(
        self,
        console: Console,
        folder: Path,
        mlflow: bool,
        uri: str | None,
        params: Mapping[str, object],
        metrics: Mapping[str, Metric],
    ) -> None:
        self.console = console
        self._metrics = metrics
        self._folder = folder
        self._log: SweepLog | None = None
        self._state = "interrupted"
        folder.mkdir(parents=True, exist_ok=True)
        if mlflow:
            from raydistill.tracking import SweepLog

            tags = {"kind": "compress"}
            identity = self._identity()
            self._log = SweepLog(
                uri, folder.parent, EXPERIMENT, identity, params, tags, self.warn, run_name=folder.name, pending=folder
            )

    def __enter__(self) -> RunReport:
        if self._log is not None:
            self._log.start()
        self._append(f"--- {time.strftime('%Y-%m-%d %H:%M:%S')}")
        return self

    def say(self, text: RenderableType, style: str | None = None) -> None:
        """One line, or a table, on the console and in the file."""
        text = masked(text) if isinstance(text, str) else text
        self.console.print(text, style=style, soft_wrap=isinstance(text, str), markup=False)
        if isinstance(text, str):
            self._append(text)
            return
        with self.console.capture() as captured:
            self.console.print(text)
        self._append(captured.get().rstrip("\n"))

    def warn(self, text: str) -> None:
        text = masked(text)
        lines.warn(self.console, text)
        self._append(f"warning: {text}")

    def epoch(self, metrics: EpochMetrics) -> None:
        speed = (
            f"  {metrics.samples_per_second:,.0f}/s" if metrics.samples_per_second else ""
        )  # an own loop counts none
        trained = "" if metrics.train_loss is None else f" (train {metrics.train_loss:.4f})"
        self.say(
            f"{metrics.epoch + 1:>3}/{metrics.epochs}  loss {metrics.metrics[LOSS]:.4f}"
            f"{trained}  {first_in_words(metrics.metrics, self._metrics)}  "
            f"sparsity {percent(metrics.sparsity)} %{speed}"
        )
        if self._log is not None:
            self._log.run_epoch(metrics)

    def result(self, evaluation: Evaluation, last: EpochMetrics, checkpoint: Path, arch: str, task: Task) -> None:
        """The run's last epoch: its test-split figures, and to MLflow its network too, as a sweep sends a member's."""
        if self._log is None:
            return
        files = [self._folder / name for name in ("schedule.yaml", "sparsity.csv")]
        found = self._delivered(checkpoint, arch, task)
        if found is not None:
            last = replace(last, footprint=found.figures)
        self._log.run_result(evaluation, last, files)
        if found is not None:
            from raydistill.tracking import PARENT

            try:
                found.log(self._log, PARENT, last, evaluation, {"arch": arch})
            except RaydistillError as error:
                self.warn(f"{_NOT_THERE}: {error.faults[0]}")

    def _delivered(self, checkpoint: Path, arch: str, task: Task) -> Delivered | None:
        from raydistill.sweep.results.logged_model import delivered

        try:
            found = delivered(task, checkpoint, arch)
        except RaydistillError as error:
            self.warn(f"{_NOT_THERE}: {error.faults[0]}")
            return None
        if found is None:
            self.warn(f"{_NOT_THERE}: {arch} is not called with one tensor, as MLflow's models are")
        return found

    def finished(self) -> None:
        """The run has come to its end; without this call MLflow shows it as killed."""
        self._state = "finished"

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._log is None:
            return
        stopped = kind is not None and issubclass(kind, KeyboardInterrupt)
        state = "failed" if kind is not None and not stopped else self._state
        left = self._log.finish(state, timeout_s=10.0 if stopped else 60.0)
        if left:
            self.warn(f"{left} records did not reach MLflow; the same command sends later ones")

    def _append(self, text: str) -> None:
        path = self._folder / "run.log"
        try:
            with path.open("a", encoding="utf-8") as file:
                file.write(text + "\n")
        except OSError as error:
            rule = f"cannot be written ({error.strerror or error})"
            raise StorageError(Fault(str(path), rule, ABSENT, "free some space, then repeat the command")) from error

    def _identity(self) -> str:
        """The same for all parts of an interrupted run, another for another run under this name."""
        path = self._folder / "mlflow_run"
        if not path.exists():
            write_atomically(path, uuid.uuid4().hex)
        return path.read_text().strip()


def best_lines(best: Sequence[EpochMetrics], metrics: Mapping[str, Metric]) -> list[str]:
    return [
        f"best {rank}: epoch {epoch.epoch + 1}, sparsity {percent(epoch.sparsity)} %, "
        f"{first_in_words(epoch.metrics, metrics)}"
        for rank, epoch in enumerate(best, 1)
    ]
