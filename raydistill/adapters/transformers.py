"""transformers: a callback that makes a ``Trainer`` one trial of a sweep.

    def train(trial):
        callback = CompressionCallback(trial)
        trainer = Trainer(
            trial.network(), TrainingArguments(output_dir=callback.folder, num_train_epochs=trial.epochs),
            train_dataset=train, eval_dataset=validation, compute_metrics=metrics, callbacks=[callback],
        )
        callback.train(trainer)

The metrics that the task names must be among those of the evaluation; ``loss`` is the Trainer's own ``eval_loss``.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

import transformers
from torch import nn

from raydistill.adapters.packed import packed, unpacked
from raydistill.compression import CompressionScheduler
from raydistill.errors import ConfigError, Fault
from raydistill.training import Trial

if TYPE_CHECKING:
    from torch.optim import Optimizer
    from transformers import TrainerControl, TrainerState, TrainingArguments
    from typing_extensions import Unpack

_KEY = "transformers"


class _Named(TypedDict, total=False):
    """What the Trainer hands a callback besides, as far as it is used here."""

    model: nn.Module
    optimizer: Optimizer
    metrics: Mapping[str, float]


class CompressionCallback(transformers.TrainerCallback):
    """Runs a trial's schedule inside the Trainer's loop; each epoch is evaluated, kept and reported.

    folder: for the Trainer's ``output_dir``; it is gone when training ends. With ``gradient_accumulation_steps`` a
    schedule's minibatch is one step of the optimizer.
    """

    def __init__(self, trial: Trial, example_input: Sequence[object] | None = None) -> None:
        self._trial, self._example = trial, example_input
        self._scheduler: CompressionScheduler | None = None
        self._metrics: Mapping[str, float] = {}
        self._epoch = self._step = 0
        self._steps = 1
        self.folder = tempfile.mkdtemp(prefix="raydistill-transformers-")

    def train(self, trainer: transformers.Trainer) -> None:
        """``trainer.train()``, from the last epoch that was reported.

        Raises:
            ConfigError: the Trainer evaluates nothing, or writes elsewhere.
        """
        if trainer.eval_dataset is None:
            raise ConfigError(Fault("train", "needs an eval_dataset: its metrics are what is searched"))
        if Path(str(trainer.args.output_dir)) != Path(self.folder):
            rule = "must write to the callback's folder"
            raise ConfigError(Fault("output_dir", rule, trainer.args.output_dir, "output_dir=callback.folder"))
        own_loss = trainer.compute_loss

        def compute_loss(model: nn.Module, *args: object, **named: object) -> Any:
            found = own_loss(model, *args, **named)
            if not model.training:
                return found
            loss, *others = found if isinstance(found, tuple) else (found,)
            total = self._schedule.before_backward(self._epoch, self._step, self._steps, loss)
            return (total, *others) if others else total

        trainer.compute_loss = compute_loss
        kept = self._trial.kept_state()
        try:
            if _KEY in kept:
                begun = unpacked(kept[_KEY], Path(self.folder) / "resumed")
                trainer.train(resume_from_checkpoint=str(begun))
            else:
                trainer.train()
        finally:
            del trainer.compute_loss
            shutil.rmtree(self.folder, ignore_errors=True)

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **named: Unpack[_Named]
    ) -> None:
        optimizer: Optimizer = named["optimizer"]
        optimizer = getattr(optimizer, "optimizer", optimizer)  # accelerate's wrapper
        self._scheduler = self._trial.begin(named["model"], optimizer, self._example, random_state=False)
        self._steps = max(1, round(state.max_steps / args.num_train_epochs))

    def on_epoch_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **named: Unpack[_Named]
    ) -> None:
        self._epoch, self._step = round(state.epoch or 0), 0
        self._schedule.on_epoch_begin(self._epoch)

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **named: Unpack[_Named]
    ) -> None:
        self._schedule.on_minibatch_begin(self._epoch, self._step, self._steps)

    def on_pre_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **named: Unpack[_Named]
    ) -> None:
        self._schedule.before_parameter_optimization(self._epoch, self._step, self._steps)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **named: Unpack[_Named]
    ) -> None:
        self._schedule.on_minibatch_end(self._epoch, self._step, self._steps)
        self._step += 1

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **named: Unpack[_Named]
    ) -> None:
        self._schedule.before_validation(self._epoch)
        control.should_evaluate = control.should_save = True

    def on_evaluate(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **named: Unpack[_Named]
    ) -> None:
        measured = {name.removeprefix("eval_"): value for name, value in named["metrics"].items()}
        self._metrics = {name: float(measured[name]) for name in self._trial.task.metrics if name in measured}

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **named: Unpack[_Named]
    ) -> None:
        self._schedule.on_epoch_end(self._epoch, **self._metrics)
        written = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        self._trial.state[_KEY] = packed(written)
        shutil.rmtree(written, ignore_errors=True)
        self._trial.report(self._metrics)

    @property
    def _schedule(self) -> CompressionScheduler:
        assert self._scheduler is not None  # since on_train_begin
        return self._scheduler
