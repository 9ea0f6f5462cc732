"""One training run as a generator: it yields one `EpochMetrics` an epoch and knows nobody who listens."""

from __future__ import annotations

import contextlib
import itertools
import math
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from raydistill.compression import CompressionScheduler, build, sparsity, weights
from raydistill.compression.quantizers import quantization_of
from raydistill.compression.ranks import Ranks
from raydistill.compression.structure import Change
from raydistill.compression.summaries import sparsity_csv
from raydistill.datasets.config import DatasetConfig
from raydistill.errors import ABSENT, ConfigError, Fault, TrainingError
from raydistill.files import write_atomically
from raydistill.metrics import LOSS
from raydistill.parts import out_of_bounds, pixel_faults
from raydistill.records import EpochMetrics, Evaluation
from raydistill.schedule import ScheduleSpec, dump_schedule
from raydistill.tasks import TRAIN, VALIDATION, Feed, Loading, Task, Weights
from raydistill.tasks.of_checkpoint import asked_for
from raydistill.training import checkpoint as saved
from raydistill.training import memory
from raydistill.training import precision as arithmetic
from raydistill.training.allocator import keep_freed_memory
from raydistill.training.average import AveragedWeights
from raydistill.training.calibration import calibration_of, kept_statistics
from raydistill.training.config import RunConfig
from raydistill.training.determinism import epoch_seed, seed_everything, training_environment
from raydistill.training.distiller_checkpoint import read_any
from raydistill.training.ending import ending, ending_faults
from raydistill.training.events import EventLog
from raydistill.training.identity import run_identity
from raydistill.training.kept import Kept
from raydistill.training.optimizer import check_optimization, make_optimizer
from raydistill.training.replica import Replica
from raydistill.training.start import prepared_for, removed_layers
from raydistill.training.stepping import Stepping
from raydistill.training.teacher import add_teacher, check_distillation
from raydistill.training.untrained import as_run, check_acts, check_untrained

_EMPTY = ScheduleSpec(source="no schedule", instances=(), policies=(), mapping={})
OnStep = Callable[[int, int, int, float], None]
Feeds = Callable[[str, Loading], Feed]
LOOK_EVERY = 50
"""Steps between looks at the loss on a GPU, where each look waits for the device; a CPU is looked at every step."""


def fit(
    config: RunConfig, *, task: Task | None = None, on_step: OnStep | None = None, ranks: Ranks | None = None
) -> Iterator[EpochMetrics]:
    """Train, prune and validate; yield the metrics of each epoch when its checkpoint is written.

    task: one that is loaded already; else ``config.task`` is loaded. on_step: called after each minibatch whose
    loss was looked at (every one on a CPU) with (epoch, minibatch, minibatches, mean loss of the epoch so far). With
    ``config.resume`` the run goes on after the epoch that ``out_dir/checkpoint.pt`` holds; `checkpoint.read_history`
    gives the epochs before it. Closing the generator ends the run and puts torch's settings back.

    ranks: of several processes that each call this with the same arguments, and get the same metrics. ``batch_size`` is
    of all of them together: they learn what one process would, to rounding (dropout draws anew on each). The first one
    writes, the others must see its ``out_dir``. on_step is called by the first one, with the loss of its own rows.

    Raises:
        ConfigError, DataError: something cannot be run as asked; nothing was written.
        CheckpointError: the checkpoint to resume or start from does not fit this run.
        StorageError: a checkpoint could not be written; the one before it is whole.
        TrainingError: the loss became NaN or infinite, or memory ran out.
        LostWorker: another rank's process died.
    """
    config = as_run(config)
    check_run(config)
    ranks = ranks or Ranks()
    if config.train is not None:
        from raydistill.training.own_loop import own_epochs  # it needs what is here

        yield from own_epochs(config, task, ranks)
        return
    with training_environment(config.threads, config.deterministic), ranks.failing_together():

        def begin() -> Run:
            with memory.said_plainly("before the first epoch", config.batch_size):
                prepared = prepared_for(config, task)
                return Run(config, prepared, on_step, ranks)

        run = ranks.together(begin)
        run.settle()
        folder = run.folder if config.tensorboard and ranks.first else None
        steps = run.train_feed.batches if config.trains else 0
        with EventLog(folder, run.first_epoch, steps) as events:
            for epoch in range(run.first_epoch, config.epochs):
                yield run.train_epoch(epoch, events)


def device_of(name: str) -> torch.device:
    """``auto`` is the first GPU where there is one, else the CPU.

    Raises:
        ConfigError: no such device here.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ConfigError(Fault("device", "is not known", name, "use auto, cpu, cuda or cuda:N")) from error
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        found = f"{torch.cuda.device_count()} GPUs are here"
        raise ConfigError(Fault("device", f"is not here ({found})", name, "use auto or cpu"))
    return device


def evaluate_checkpoint(
    path: str | Path,
    task: Task,
    split: str,
    device: str = "auto",
    batch_size: int = 1024,
    fraction: float = 1.0,
    arch: str | None = None,
    data: DatasetConfig | None = None,
) -> Evaluation:
    """Evaluate a checkpoint's model once on (a fraction of) a split, "validation" or "test".

    The data are prepared as the checkpoint says, unless `data` says otherwise, and the task's arguments are those of
    its run. arch: see `checkpoint.load_model`.
    """
    target = device_of(device)
    content = read_any(path)
    saved.require(content, str(path), "precision")
    model = saved.model_of(content, str(path), arch).to(target).to(memory_format=torch.channels_last)
    task = task.wanted_by(Weights.of_checkpoint(content, str(path), arch), data).as_trained(content["run"])
    loading = Loading(target, batch_size, fraction=fraction, precision=content["precision"])
    feed = task.feed(split, loading)
    return Evaluation(split=split, metrics=task.evaluate(model, feed, loading), samples=feed.samples)


class Run:
    """The state of one run between epochs: what `fit` builds once and each epoch moves on."""

    def __init__(
        self, config: RunConfig, task: Task, on_step: OnStep | None, ranks: Ranks, feeds: Feeds | None = None
    ) -> None:
        """task: its data are as the run's weights want them. feeds: in the place of the task's own.

        Waits for no other rank: what goes wrong on one of them only must not leave the others waiting.
        """
        feeds = feeds or task.feed
        self.config = config
        self.ranks = ranks
        self.on_step = on_step
        self.device = device_of(config.device)
        if self.device.type == "cpu":
            keep_freed_memory()
        elif ranks.several and self.device.index is not None:
            torch.cuda.set_device(self.device)  # what travels between ranks as objects goes through the present one
        self.folder = Path(config.out_dir).resolve() if config.out_dir is not None else None
        self.path = self.folder / saved.FILE_NAME if self.folder is not None else None
        start = read_any(config.init_from) if config.init_from is not None else None
        before = read_any(config.continue_from) if config.continue_from is not None else None
        given = start if before is None else before
        self.task = task
        self.arguments = {**removed_layers(given), **config.model_args}
        self.identity = run_identity(config, self.task, given, self.arguments)
        self.schedule = config.schedule or _EMPTY
        self.schedule_text = dump_schedule(config.schedule) if config.schedule is not None else ""
        seed_everything(config.seed)
        fresh = start is None and before is None
        model = self.task.network(config.arch, self.arguments, fetch=fresh)
        begun: tuple[Change, ...] = ()
        self.dense_sizes = {name: weight.numel() for name, weight in weights(model)}
        if start is not None:
            begun = saved.load_weights(model, start, str(config.init_from))
        self.model: nn.Module = model.to(self.device).to(memory_format=torch.channels_last)
        self.optimizer: Optimizer = make_optimizer(self.model, config)
        self.scheduler: CompressionScheduler = build(
            self.schedule, self.model, self.optimizer, self.task.example_input(), config.strict, ranks,
            calibration_of(task, config, self.device), kept_statistics(config, self.device),
        )  # fmt: skip
        self.scheduled = len(self.scheduler.scheduled)
        if not config.trains:
            check_acts(self.scheduler)
        if faults := ending_faults(self.scheduler, config.epochs, config.optimizer):
            raise ConfigError(*faults)
        self.scheduler.structure = (*begun, *self.scheduler.structure)
        self.stepping = Stepping(self.model, self.optimizer, config.optimizer, self.device)
        decay = config.optimizer.ema
        self.average = None if decay is None else AveragedWeights(self.model, decay, self.scheduler.masks)
        if config.distillation is not None:
            self.identity["distillation"] = add_teacher(config, self.task, self.model, self.scheduler, self.device)
        self.kept = Kept(
            self.model, self.optimizer, self.scheduler, self.task, self.identity, self.schedule_text,
            config.optimizer.name, asked_for(config.task, config.dataset),
        )  # fmt: skip
        for name, mask in (start or {}).get("masks", {}).items():  # of Distiller's
            self.scheduler.masks.set(name, mask)
        self.history: list[EpochMetrics] = []
        self.first = 0
        if before is not None:
            self._continue(before)
        resumed = self._resume() if config.resume and self.path is not None and self.path.exists() else None
        quantized = quantization_of(self.model) is not None or bool(ending(self.scheduler))
        measured = config.trains and not quantized  # bf16 has 8 bits itself, and what is not trained takes no time
        wanted = "fp32" if not measured and config.precision == "auto" else config.precision
        rows = min(-(-config.batch_size // ranks.world), 256)
        self.precision = (
            resumed
            if resumed is not None
            else arithmetic.choose(
                wanted,
                self.model,
                self.device,
                self.task.example_input(rows),
                config.deterministic,
                self._example_loss(rows),
            )
        )
        self.stepping.compute_in(self.precision)
        loading = Loading(self.device, config.batch_size, config.seed, config.effective_train_size, ranks=ranks)
        self.train_feed = feeds(TRAIN, loading)
        self.validating = replace(
            loading, batch_size=max(config.batch_size, 1024), fraction=config.effective_valid_size
        )
        self.validation_feed = feeds(VALIDATION, self.validating)
        self.replica = Replica(self.model, ranks)
        self._checked = -1
        if self.folder is not None and self.schedule_text and ranks.first:
            write_atomically(self.folder / "schedule.yaml", self.schedule_text)

    def _example_loss(self, rows: int) -> Callable[[nn.Module], Tensor] | None:
        batch = self.task.example_batch(rows, self.device) if self.config.precision == "auto" else None
        return None if batch is None else lambda network: self.task.loss(network, batch)

    def settle(self) -> None:
        """Make sure that all ranks begin at the same place.

        Raises:
            TrainingError: they do not.
        """
        self.precision = self.ranks.of_first(self.precision)  # measured where nobody said it
        begun = self.ranks.gather(self.first_epoch)
        if len(set(begun)) > 1:
            rule = f"must be the same folder on every worker, their checkpoints are of epochs {begun}"
            raise TrainingError(Fault("out_dir", rule, self.config.out_dir, "give one that all of them see"))
        self._check_same("the start", everything=True)

    @property
    def first_epoch(self) -> int:
        return self.history[-1].epoch + 1 if self.history else self.first

    def train_epoch(self, epoch: int, events: EventLog) -> EpochMetrics:
        """Train and validate one epoch, then write the checkpoint and the events."""
        start = time.perf_counter()
        with memory.said_plainly(f"epoch {epoch}", self.config.batch_size):
            self.begin_epoch(epoch)
        return self.rest_of_epoch(epoch, start, events)

    def begin_epoch(self, epoch: int) -> None:
        """What policies do before its first minibatch."""
        if not self.ranks.first:  # its dropout must not draw what the first one's does, nor depend on what came before
            seed_everything(epoch_seed(self.config.seed, epoch, self.ranks.rank))
        self.scheduler.on_epoch_begin(epoch)
        self._check_same(f"epoch {epoch}")

    def rest_of_epoch(self, epoch: int, start: float, events: EventLog) -> EpochMetrics:
        """Train and validate an epoch that was begun at `start`."""
        with memory.said_plainly(f"epoch {epoch}", self.config.batch_size):
            train_loss = None
            if self.config.trains:
                train_loss = self._minibatches(epoch, events)
            else:
                self._look(epoch)
            seconds = time.perf_counter() - start
            learning_rate = self.stepping.learning_rate
            self.replica.settle_buffers()
            self.scheduler.before_validation(epoch)
            loading = replace(self.validating, precision=self.precision)
            with self.as_delivered():
                validated = self.task.evaluate(self.model, self.validation_feed, loading)
        return self.end_epoch(epoch, train_loss, learning_rate, validated, seconds, start, events)

    def end_epoch(
        self,
        epoch: int,
        train_loss: float | None,
        learning_rate: float,
        validated: Mapping[str, float],
        seconds: float,
        start: float,
        events: EventLog,
    ) -> EpochMetrics:
        """What policies do after an epoch, and what is written of it. seconds: of training alone."""
        if not math.isfinite(validated[LOSS]):
            raise TrainingError(self.not_finite(epoch, "the validation loss", validated[LOSS]))
        self.scheduler.on_epoch_end(epoch, **validated)
        self._check_same(f"epoch {epoch}", everything=True)
        with self.as_delivered():
            total, by_layer = sparsity(self.model, self.dense_sizes)  # what thinning has removed counts as zero
        metrics = EpochMetrics(
            epoch=epoch,
            epochs=self.config.epochs,
            train_loss=train_loss,
            metrics=validated,
            learning_rate=learning_rate,
            sparsity=total,
            layer_sparsity=by_layer,
            samples_per_second=self.train_feed.samples / seconds if self.config.trains else 0.0,
            seconds=time.perf_counter() - start,
            timestamp_ms=time.time_ns() // 1_000_000,
            checkpoint=str(self.path) if self.path is not None else None,
        )
        self.history.append(metrics)
        self.ranks.by_first(lambda: self._write(metrics, events))
        return metrics

    def _write(self, metrics: EpochMetrics, events: EventLog) -> None:
        epoch = metrics.epoch
        last = epoch + 1 == self.config.epochs
        if self.path is not None and (last or (epoch + 1) % self.config.checkpoint_every == 0):
            trained = {} if self.average is None else self.average.trained(self.model.state_dict())
            with self.as_delivered():
                saved.write_checkpoint(self.path, self._state(trained))
                write_atomically(self.path.with_name("sparsity.csv"), sparsity_csv(self.model))
        events.write(metrics)
        with self.as_delivered():
            events.structures(self.model, epoch)
        if self.config.parameter_histograms:
            events.parameters(self.model, epoch)

    def as_delivered(self) -> AbstractContextManager[None]:
        """While it lasts the model has the weights that are validated and kept."""
        return contextlib.nullcontext() if self.average is None else self.average.in_place()

    def _check_same(self, where: str, everything: bool = False) -> None:
        """All ranks must have the same masks, and with `everything` the same weights and buffers."""
        masks = self.scheduler.masks
        if everything:
            self.ranks.same(self.model.state_dict().items(), where, "the weights")
        if masks.changes != self._checked:
            self.ranks.same(((name, masks[name]) for name in sorted(masks.names())), where, "the masks")
            self._checked = masks.changes

    def _minibatches(self, epoch: int, events: EventLog) -> float:
        """Mean loss of one pass over the training split."""
        optimizer, scheduler, ranks, stepping = self.optimizer, self.scheduler, self.ranks, self.stepping
        self.model.train()
        count, trained = self.train_feed.batches, 0
        steps = stepping.steps(count)
        total = torch.zeros((), device=self.device)
        look_every = 1 if self.device.type == "cpu" else LOOK_EVERY
        for index, batch in enumerate(self.train_feed.epoch(epoch)):
            rows, _ = self.train_feed.rows(index)
            of_step = stepping.rows(self.train_feed, index, count)
            step, begins, ends = stepping.place(index, count)
            ranks.idle = not rows
            if begins:
                scheduler.on_minibatch_begin(epoch, step, steps)
                optimizer.zero_grad(set_to_none=True)
            with arithmetic.autocast(self.precision, self.device):
                loss = self.task.loss(self.replica, batch)
            loss = scheduler.before_backward(epoch, step, steps, loss)
            # the mean over ranks is then the mean over the rows of all of them, and a penalty counts once
            weight = rows * ranks.world / of_step
            stepping.backward(loss if weight == 1.0 else loss * weight)
            self.replica.exchange()
            if ends:
                stepping.gradients_are_whole()
                scheduler.before_parameter_optimization(epoch, step, steps)
                stepping.step(epoch + (step + 1) / steps)
                scheduler.on_minibatch_end(epoch, step, steps)
                if self.average is not None:
                    self.average.update()
            total += loss.detach().float() * rows
            trained += rows
            if index % look_every == 0 or index + 1 == count:
                self._check_loss(total, epoch, index)
                events.step(epoch, index, float(total), trained, stepping.learning_rate)
                if self.on_step is not None and ranks.first:
                    self.on_step(epoch, index, count, float(total) / trained)
        return float(ranks.sum(total)) / max(1, self.train_feed.samples)

    def _look(self, epoch: int) -> None:
        """Show policies the minibatches that they wait for where nothing is trained: the network is as it is validated,
        and stays so."""
        wanted, gradients = self.scheduler.waits(epoch)
        count = min(wanted, self.train_feed.batches)
        self.model.eval()
        for index, batch in enumerate(itertools.islice(self.train_feed.epoch(epoch), count)):
            self.scheduler.on_minibatch_begin(epoch, index, count)
            with torch.set_grad_enabled(gradients):
                with arithmetic.autocast(self.precision, self.device):
                    loss = self.task.loss(self.replica, batch)
                if gradients:
                    own, together = self.train_feed.rows(index)
                    (loss * (own * self.ranks.world / together)).backward()
                    self.replica.exchange()
            self.scheduler.before_parameter_optimization(epoch, index, count)
            self.optimizer.zero_grad(set_to_none=True)
            self.scheduler.on_minibatch_end(epoch, index, count)

    def _check_loss(self, total: Tensor, epoch: int, index: int) -> None:
        value = float(total)
        if not math.isfinite(value):
            raise TrainingError(self.not_finite(epoch, f"the training loss (minibatch {index})", value))

    def not_finite(self, epoch: int, what: str, value: float) -> Fault:
        way_out = f"lower lr ({self.stepping.learning_rate:g}) or prune less"
        return Fault(f"epoch {epoch}", f"{what} must be finite", value, way_out)

    def _state(self, trained: Mapping[str, Tensor]) -> dict[str, object]:
        """trained: the weights that training goes on with, where those that are kept are others."""
        averaged = {} if self.average is None else {"trained": dict(trained), "average": self.average.state_dict()}
        return self.kept.content(self.precision, self.history, stepping=self.stepping.state_dict(), **averaged)

    def _continue(self, content: dict[str, Any]) -> None:
        """Take up another run's weights, optimizer and masks; its policies too if this run has the same schedule."""
        where = str(self.config.continue_from)
        saved.require(content, where, "epoch", "optimizer", "schedule_hash", "scheduler", "rng")
        self.first = int(content["epoch"]) + 1
        if self.first >= self.config.epochs:
            rule = f"must be above {self.first}, the epochs that {where} has trained already"
            way_out = "raise epochs, or start again at epoch 0 (init_from, --reset-optimizer)"
            raise ConfigError(Fault("training.epochs", rule, self.config.epochs, way_out))
        self._take_weights(content, where)
        state, why_fresh = self.kept.optimizer_state(content, where)
        if state is not None:
            self.optimizer.load_state_dict(state)
        else:
            warnings.warn(why_fresh, stacklevel=2)
        if content["schedule_hash"] == saved.schedule_hash(self.schedule_text):
            # A teacher, which has no state, may be there in one of the two runs only.
            policies = content["scheduler"]["policies"][: self.scheduled]
            policies += [{}] * (len(self.scheduler.scheduled) - self.scheduled)
            self.scheduler.load_state_dict({**content["scheduler"], "policies": policies})
        else:
            self.scheduler.masks.load_state_dict(content["scheduler"]["masks"])
            self.scheduler.masks.apply()
        if content["rng"] is not None:
            saved.set_rng_state(content["rng"])

    def _take_weights(self, content: Mapping[str, Any], where: str) -> None:
        """A checkpoint's weights, those that training goes on with; its scale of fp16 and its average."""
        kept = content["model"]
        trained = {**content, "model": {**kept, **content.get("trained", {})}}
        self.kept.take_weights(trained, where)
        self.stepping.compute_in(content["precision"])
        self.stepping.load_state_dict(content.get("stepping", {}))
        if self.average is not None and "average" in content:
            self.average.load(kept, content["average"], where)
        elif self.average is not None:
            self.average.begin()

    def _resume(self) -> str:
        """Take up the state of ``checkpoint.pt``; returns the precision it was trained in."""
        content, where = saved.read_checkpoint(str(self.path)), str(self.path)
        saved.require(content, where, "precision")
        self.history = self.kept.resume(content, where, self._take_weights)
        return content["precision"]


def check_run(config: RunConfig) -> None:
    """Raises ConfigError with all that is wrong, as far as it shows without network and data."""
    faults: list[Fault | str] = [*out_of_bounds(config, "training."), *check_optimization(config)]
    faults += pixel_faults(config)
    if config.mean is not None and config.init_from is None and config.continue_from is None:
        way_out = "leave it out: what is trained anew has the data's own"
        faults.append(Fault("mean", "is for weights that a run starts from, and there are none", ABSENT, way_out))
    if config.init_from is not None and config.continue_from is not None:
        faults.append(Fault("init_from", "cannot stand beside continue_from", config.init_from, "keep one of the two"))
    if config.distillation is not None:
        faults += check_distillation(config.distillation, config.epochs)
    if not config.trains:
        faults += check_untrained(config)
    if config.nesterov and not config.momentum:
        faults.append(Fault("training.nesterov", "needs momentum", config.momentum, "give momentum, such as 0.9"))
    if config.out_dir is not None and Path(config.out_dir).is_file():
        faults.append(Fault("out_dir", "is a file", config.out_dir, "give a folder"))
    if faults:
        raise ConfigError(*faults)
