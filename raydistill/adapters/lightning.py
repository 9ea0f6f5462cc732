"""Lightning: a callback that makes a ``trainer.fit`` one trial of a sweep.

    def train(trial):
        module = MyModule(trial.network(), lr=trial.args["lr"])
        callback = CompressionCallback(trial, module.net)
        trainer = lightning.Trainer(max_epochs=trial.epochs, callbacks=[callback])
        trainer.fit(module, MyData(), ckpt_path=callback.checkpoint())

The metrics that the task names must be logged, in ``validation_step`` say, under the task's names.
"""

from __future__ import annotations

import contextlib
import functools
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import lightning
from torch import Tensor, nn

from raydistill.adapters.packed import packed, unpacked
from raydistill.compression import CompressionScheduler
from raydistill.errors import ConfigError, Fault
from raydistill.training import Trial
from raydistill.training.trial import TRAIN_LOSS

_KEY = "lightning"


class CompressionCallback(lightning.Callback):
    """Runs a trial's schedule inside the trainer's loop, and reports an epoch when Lightning ends it.

    model: what is compressed and delivered, the module itself if left out; its names are the schedule's. What policies
    add to the loss (regularizers, a teacher) is added to what ``training_step`` returns. With
    ``accumulate_grad_batches`` a schedule's minibatch is one step of the optimizer.
    """

    def __init__(
        self, trial: Trial, model: nn.Module | None = None, example_input: Sequence[object] | None = None
    ) -> None:
        self._trial, self._model, self._example = trial, model, example_input
        self._scheduler: CompressionScheduler | None = None
        self._place = Path(tempfile.mkdtemp(prefix="raydistill-lightning-"))

    def checkpoint(self) -> str | None:
        """For ``trainer.fit(ckpt_path=...)``, called right before it: the state of the last epoch that was reported,
        torch's random state too. None where there is none.
        """
        kept = self._trial.kept_state()
        if _KEY not in kept:
            return None
        self._trial.set_random_state()
        return str(unpacked(kept[_KEY], self._place / "resumed"))

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        if len(trainer.optimizers) != 1:
            raise ConfigError(Fault("train", "needs a module with one optimizer", len(trainer.optimizers)))
        model = pl_module if self._model is None else self._model
        self._scheduler = self._trial.begin(model, trainer.optimizers[0], self._example, random_state=False)
        own_step = pl_module.training_step

        @functools.wraps(own_step)
        def training_step(*args: object, **named: object) -> object:
            output = own_step(*args, **named)
            if isinstance(output, Tensor):
                return self._with_penalties(trainer, output)
            if isinstance(output, Mapping) and isinstance(output.get("loss"), Tensor):
                return {**output, "loss": self._with_penalties(trainer, output["loss"])}
            return output

        pl_module.training_step = training_step  # type: ignore[method-assign]

    def on_train_epoch_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        self._schedule.on_epoch_begin(trainer.current_epoch)

    def on_train_batch_start(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, batch: object, batch_idx: int
    ) -> None:
        self._index = batch_idx
        if batch_idx % trainer.accumulate_grad_batches == 0:
            self._schedule.on_minibatch_begin(*self._step(trainer))

    def on_before_optimizer_step(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, optimizer: object
    ) -> None:
        self._schedule.before_parameter_optimization(*self._step(trainer))

    def on_train_batch_end(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        outputs: object,
        batch: object,
        batch_idx: int,
    ) -> None:
        ends = (batch_idx + 1) % trainer.accumulate_grad_batches == 0 or batch_idx + 1 == trainer.num_training_batches
        if ends:
            self._schedule.on_minibatch_end(*self._step(trainer))

    def on_validation_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        if not trainer.sanity_checking and trainer.is_last_batch:  # of several within an epoch, the one that counts
            self._schedule.before_validation(trainer.current_epoch)

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        epoch = trainer.current_epoch
        if epoch < self._trial.first_epoch:
            return  # Lightning ends the epoch once more that its checkpoint was written in
        names = (*self._trial.task.metrics, TRAIN_LOSS)
        logged = trainer.callback_metrics
        metrics = {name: float(logged[name]) for name in names if name in logged}
        self._schedule.on_epoch_end(epoch, **metrics)
        file = self._place / "epoch.ckpt"
        trainer.save_checkpoint(file)
        self._trial.state[_KEY] = packed(file)
        self._trial.report(metrics)

    def on_train_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        self._end(pl_module)

    def on_exception(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, exception: BaseException
    ) -> None:
        self._end(pl_module)

    def _end(self, module: lightning.LightningModule) -> None:
        with contextlib.suppress(AttributeError):
            del module.training_step
        shutil.rmtree(self._place, ignore_errors=True)

    @property
    def _schedule(self) -> CompressionScheduler:
        assert self._scheduler is not None  # since on_train_start
        return self._scheduler

    def _step(self, trainer: lightning.Trainer) -> tuple[int, int, int]:
        """(epoch, step, steps of an epoch)."""
        each = trainer.accumulate_grad_batches
        return trainer.current_epoch, self._index // each, -(-int(trainer.num_training_batches) // each)

    def _with_penalties(self, trainer: lightning.Trainer, loss: Tensor) -> Tensor:
        return self._schedule.before_backward(*self._step(trainer), loss)
