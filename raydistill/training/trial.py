"""What a training loop of one's own is given: a network, a CompressionScheduler for it, a place to keep it all.

    def train(trial):
        model = trial.network()
        optimizer = torch.optim.AdamW(model.parameters(), lr=trial.args["lr"])
        scheduler = trial.begin(model, optimizer)
        for epoch in trial.epochs_left():
            scheduler.on_epoch_begin(epoch)
            ...                                  # the loop that is drawn in `raydistill.compression.policies.base`
            scheduler.before_validation(epoch)
            metrics = {"top1": ..., "loss": ...}
            scheduler.on_epoch_end(epoch, **metrics)
            yield metrics

Of the metrics ``train_loss`` may be left out, and is not recorded then; those of the task may not. When
they are yielded the checkpoint is written; the code behind the ``yield`` runs only if the trial goes on. A loop
that nobody can make a generator of (a trainer with callbacks) is a plain function that calls `Trial.report`.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer

from raydistill.compression import CompressionScheduler, build, sparsity, weights
from raydistill.compression.ranks import Ranks
from raydistill.compression.structure import Change
from raydistill.compression.summaries import sparsity_csv
from raydistill.errors import ABSENT, CheckpointError, Fault, TrainingError, close_match
from raydistill.files import write_atomically
from raydistill.records import EpochMetrics
from raydistill.schedule import ScheduleSpec, dump_schedule
from raydistill.tasks import Task
from raydistill.tasks.of_checkpoint import asked_for
from raydistill.training import checkpoint as saved
from raydistill.training.calibration import calibration_of, kept_statistics
from raydistill.training.config import RunConfig
from raydistill.training.distiller_checkpoint import read_any
from raydistill.training.identity import run_identity
from raydistill.training.kept import Kept
from raydistill.training.optimizer import make_optimizer
from raydistill.training.replica import Replica, settle
from raydistill.training.start import removed_layers
from raydistill.training.teacher import add_teacher

TRAIN_LOSS = "train_loss"
_DENSE = ScheduleSpec(source="no schedule", instances=(), policies=(), mapping={})


class Trial:
    """One run of a loop of one's own.

    values: what the sweep drew, by key path. args: the loop's own arguments, with what was drawn of them
    (``train.args.NAME``). task: what the file says is trained; its feeds, loss and evaluation may be used or not.
    state: whatever else is to be kept in the checkpoint, tensors and plain values; `begin` brings it back.

    On several workers each has a trial, in one group of `torch.distributed`; ranks: for the task's own feeds
    (``Loading(ranks=trial.ranks)``). What a loop draws of torch's, numpy's and Python's random state, it draws alike on
    all of them at the start of each epoch. `state` that is kept is the first worker's.
    """

    def __init__(self, config: RunConfig, task: Task, device: torch.device, ranks: Ranks | None = None) -> None:
        self.config, self.task, self.device = config, task, device
        self.ranks = ranks or Ranks()
        self.values: Mapping[str, bool | int | float | str] = dict(config.values)
        self.args: Mapping[str, Any] = {} if config.train is None else dict(config.train.args)
        self.epochs, self.batch_size, self.seed = config.epochs, config.batch_size, config.seed
        self.state: dict[str, Any] = {}
        self.history: list[EpochMetrics] = []
        self.reported: Callable[[Mapping[str, float]], None] | None = None
        self._start = None if config.init_from is None else read_any(config.init_from)
        arguments = {**removed_layers(self._start), **config.model_args}
        self._arguments = arguments
        self._identity = run_identity(config, task, self._start, arguments)
        self._schedule_text = "" if config.schedule is None else dump_schedule(config.schedule)
        self._begun: tuple[Change, ...] = ()
        self._engine: Kept | None = None
        self._dense_sizes: Mapping[str, int] = {}
        self._clock = time.perf_counter()

    @property
    def rank(self) -> int:
        """This worker's number, from 0; as in ``DistributedSampler(data, trial.workers, trial.rank)``."""
        return self.ranks.rank

    @property
    def workers(self) -> int:
        """How many train this network together; 1: this process alone."""
        return self.ranks.world

    @property
    def folder(self) -> Path:
        """The trial's own; empty at its start but for what an earlier leg of it has left."""
        return Path(str(self.config.out_dir)).resolve()

    @property
    def _path(self) -> Path:
        return self.folder / saved.FILE_NAME

    @property
    def is_dense(self) -> bool:
        """Whether nothing is pruned: the baseline of a sweep."""
        return self.config.schedule is None

    @property
    def first_epoch(self) -> int:
        """Known after `begin`."""
        return self.history[-1].epoch + 1 if self.history else 0

    def epochs_left(self) -> range:
        return range(self.first_epoch, self.epochs)

    def network(self) -> nn.Module:
        """The file's network on the device, with the weights that the run starts from (in a sweep the baseline's)."""
        model = self.task.network(self.config.arch, self._arguments, fetch=self._start is None)
        self._dense_sizes = {name: weight.numel() for name, weight in weights(model)}
        if self._start is not None:
            self._begun = saved.load_weights(model, self._start, str(self.config.init_from))
        return model.to(self.device)

    def optimizer(self, model: nn.Module) -> Optimizer:
        """The one of the file's ``training`` section."""
        return make_optimizer(model, self.config)

    def replica(self, model: nn.Module) -> Replica:
        """What to call in the place of the model in a minibatch; its `exchange` after the backward pass gives every
        worker the gradient of the mean over their losses. In one process it is the model itself.

        `torch.nn.parallel.DistributedDataParallel` does as well where nothing is thinned or quantized meanwhile; batch
        norm is of each worker's rows with that, of all workers' with this.
        """
        return Replica(model, self.ranks)

    def kept_state(self) -> Mapping[str, Any]:
        """What `state` was in the last epoch that was kept, before `begin`; {} where the trial has not begun."""
        return self._own_state(self._kept())

    def set_random_state(self) -> None:
        """Torch's, numpy's and Python's, as they were at the end of the last epoch that was kept."""
        content = self._kept()
        if content.get("rng") is not None:
            saved.set_rng_state(content["rng"])
        saved.same_rng_state(self.ranks, self.device)

    def begin(
        self,
        model: nn.Module,
        optimizer: Optimizer,
        example_input: Sequence[object] | None = None,
        random_state: bool = True,
    ) -> CompressionScheduler:
        """The scheduler of this trial's schedule for a model and its optimizer; where the trial was interrupted, both
        have the state of its last epoch then, and torch's random state is that too. On several workers all of them
        call it, and get the first one's weights and decisions.

        model: `network`'s, or the same layers by other means. example_input: left out, the task's. random_state: False
        leaves that to the caller (`set_random_state`).

        Raises:
            ConfigError: the schedule does not fit. CheckpointError: the checkpoint is of another run.
        """
        model = _unwrapped(model)
        if not self._dense_sizes:
            self._dense_sizes = {name: weight.numel() for name, weight in weights(model)}
        inputs = self.task.example_input() if example_input is None else tuple(example_input)
        calibration = calibration_of(self.task, self.config, self.device)
        said = self.config.schedule or _DENSE
        settle(itertools.chain(model.named_parameters(), model.named_buffers()), self.ranks)
        kept = kept_statistics(self.config, self.device)
        scheduler = build(said, model, optimizer, inputs, self.config.strict, self.ranks, calibration, kept)
        scheduler.structure = (*self._begun, *scheduler.structure)
        if self.config.distillation is not None:
            self._identity["distillation"] = add_teacher(self.config, self.task, model, scheduler, self.device)
        self._engine = Kept(
            model, optimizer, scheduler, self.task, self._identity, self._schedule_text, type(optimizer).__name__,
            asked_for(self.config.task, self.config.dataset),
        )  # fmt: skip
        content = self._kept()
        if content:
            self.history = self._engine.resume(content, str(self._path), random_state=random_state)
            self.state = dict(self._own_state(content))
        if random_state:
            saved.same_rng_state(self.ranks, self.device)
        self._clock = time.perf_counter()
        return scheduler

    def report(self, metrics: Mapping[str, float]) -> None:
        """For a loop that is no generator, at the end of each epoch; it does not come back where the trial ends."""
        if self.reported is None:
            raise RuntimeError("a loop that yields its metrics does not report them")
        self.reported(metrics)

    def check_epoch(self) -> None:
        """Raises TrainingError where the trial has all of its epochs."""
        if self.first_epoch >= self.epochs:
            rule = f"yields more than the {self.epochs} epochs of a trial"
            raise TrainingError(Fault("train", rule, self.first_epoch + 1))

    def keep(self, metrics: Mapping[str, float] | None) -> EpochMetrics:
        """Write down an epoch: its checkpoint, its figures. The engine calls it for whatever is yielded or reported.

        On several workers all of them call it, and the figures are their mean; one that has none (None, or an empty
        mapping) leaves them to the others.

        Raises:
            TrainingError: the figures are not the task's, or not finite; or the loop did not begin; or the workers have
            other weights or masks than each other.
            StorageError: the checkpoint could not be written.
        """
        epoch = self.first_epoch
        figures = self.ranks.mean(self.ranks.together(lambda: self._of_worker(metrics, epoch)))
        figures = self._checked(figures, epoch)
        assert self._engine is not None
        model, optimizer = self._engine.model, self._engine.optimizer
        self._settle(model, f"epoch {epoch}")
        total, by_layer = sparsity(model, self._dense_sizes)
        seconds = time.perf_counter() - self._clock
        self._clock = time.perf_counter()
        path = None if self.config.out_dir is None else self._path
        found = EpochMetrics(
            epoch=epoch,
            epochs=self.epochs,
            train_loss=figures.pop(TRAIN_LOSS, None),
            metrics=figures,
            learning_rate=float(optimizer.param_groups[0]["lr"]),
            sparsity=total,
            layer_sparsity=by_layer,
            samples_per_second=0.0,
            seconds=seconds,
            timestamp_ms=time.time_ns() // 1_000_000,
            checkpoint=None if path is None else str(path),
        )
        self.history.append(found)
        if path is not None:
            self.ranks.by_first(lambda: self._write(path, epoch))
        return found

    def _write(self, path: Path, epoch: int) -> None:
        assert self._engine is not None
        precision = "fp32" if self.config.precision == "auto" else self.config.precision
        saved.write_checkpoint(path, self._engine.content(precision, self.history, own=self.state))
        write_atomically(path.with_name("sparsity.csv"), sparsity_csv(self._engine.model))
        if self._schedule_text and epoch == 0:
            write_atomically(path.with_name("schedule.yaml"), self._schedule_text)

    def _settle(self, model: nn.Module, where: str) -> None:
        """Have all workers learned the same? What else differs between them is the first one's from here on."""
        if not self.ranks.several:
            return
        assert self._engine is not None
        masks = self._engine.scheduler.masks
        way_out = "average the gradients: trial.replica(model), or DistributedDataParallel"
        self.ranks.same(model.named_parameters(), where, "the weights", way_out)
        self.ranks.same(((name, masks[name]) for name in sorted(masks.names())), where, "the masks", way_out)
        settle(model.named_buffers(), self.ranks)
        saved.same_rng_state(self.ranks, self.device)

    def _of_worker(self, metrics: Mapping[str, float] | None, epoch: int) -> dict[str, float]:
        if self._engine is None:
            raise TrainingError(Fault("train", "must call trial.begin(model, optimizer) before its first epoch"))
        return {} if self.ranks.several and not metrics else self._checked(metrics, epoch)

    def _checked(self, metrics: object, epoch: int) -> dict[str, float]:
        known = (*self.task.metrics, TRAIN_LOSS)
        if not isinstance(metrics, Mapping):
            way_out = f"yield a mapping with {', '.join(self.task.metrics)}"
            raise TrainingError(Fault("train", "yields no metrics", type(metrics).__name__, way_out))
        for name in metrics:
            if name not in known:
                raise TrainingError(
                    Fault("train", "yields a metric that the task does not know", name, close_match(name, known))
                )
        for name in self.task.metrics:
            if name not in metrics:
                raise TrainingError(Fault("train", f"yields no '{name}'", list(metrics), "the task names its metrics"))
        figures = {name: float(metrics[name]) for name in known if name in metrics}
        for name, value in figures.items():
            if not math.isfinite(value):
                raise TrainingError(Fault(f"epoch {epoch}", f"{name} must be finite", value, "lower the learning rate"))
        return figures

    def _own_state(self, content: Mapping[str, object]) -> Mapping[str, object]:
        own = content.get("own", {})
        if not isinstance(own, dict):
            raise CheckpointError(Fault(str(self.folder), "is damaged: its 'own' is not what it must be", ABSENT))
        return own

    def _kept(self) -> Mapping[str, Any]:
        there = self.config.out_dir is not None and self.config.resume and self._path.exists()
        return saved.read_checkpoint(self._path) if there else {}


def _unwrapped(model: nn.Module) -> nn.Module:
    """The network that a schedule names the weights of."""
    return model.module if isinstance(model, DistributedDataParallel) else model
