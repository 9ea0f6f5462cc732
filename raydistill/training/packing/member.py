"""One run of several that a process trains side by side: what is its own."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from functools import partial

from torch import Tensor, nn

from raydistill.compression.quantizers import quantization_of
from raydistill.compression.ranks import Ranks
from raydistill.errors import TrainingError
from raydistill.tasks import Feed, Loading, Task
from raydistill.training import memory
from raydistill.training.config import RunConfig
from raydistill.training.events import EventLog
from raydistill.training.loop import Run
from raydistill.training.packing.chance import Chance
from raydistill.training.packing.stack import shapes_of
from raydistill.training.start import prepared_for


class Member:
    """key: how its caller knows it. epoch: the one that it trains next.

    error: what ended it; the others never hear of it. alone: why it trains by itself for good, "" where it need not.
    """

    def __init__(
        self,
        key: int,
        config: RunConfig,
        task: Task,
        same_task: Callable[[Task, RunConfig], Task],
        feed: Callable[[Task, str, Loading], Feed],
    ) -> None:
        """same_task, feed: what members share.

        Raises what `fit` raises before its first epoch.
        """
        outside = Chance()
        try:
            with memory.said_plainly("before the first epoch", config.batch_size):
                prepared = same_task(prepared_for(config, task), config)
                self.run = Run(config, prepared, None, Ranks(), partial(feed, prepared))
            self.run.settle()
            self.chance = Chance()
        finally:
            outside.put_back()
        self.key = key
        self.epoch = self.run.first_epoch
        self.error: BaseException | None = None
        self.alone = always_alone(config) or ("its network is quantized" if quantization_of(self.network) else "")
        self.train_loss = 0.0
        self._draws = True
        self._opened = contextlib.ExitStack()
        folder = self.run.folder if config.tensorboard else None
        self.events = self._opened.enter_context(EventLog(folder, self.epoch))

    @property
    def network(self) -> nn.Module:
        return self.run.model

    @property
    def ended(self) -> bool:
        return self.error is not None or self.epoch >= self.run.config.epochs

    def kind(self) -> tuple[object, ...]:
        """Members of one kind can be one network: the same code and shapes, batches of the same sizes."""
        run, feed = self.run, self.run.train_feed
        config = run.config
        validation = (run.validation_feed.samples, run.validation_feed.batches)
        batches = (config.batch_size, feed.samples, feed.batches, config.effective_train_size, validation)
        code = (config.arch, repr(sorted(run.arguments.items())), repr(run.scheduler.structure))
        return (code, shapes_of(self.network), batches, run.precision, id(run.task))

    def hooked(self) -> bool:
        """Whether somebody looks into the network while it computes: hooks are told of single networks only."""
        kinds = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
        return any(getattr(module, kind, None) for module in self.network.modules() for kind in kinds)

    def begin_epoch(self) -> None:
        with self.guarded(), self.chance.in_force():
            self.run.begin_epoch(self.epoch)
        self.train_loss = 0.0
        self._draws = self.run.scheduler.may_draw(self.epoch)

    def at_minibatch(self) -> AbstractContextManager[None]:
        """The random states that its policies draw from at a minibatch, should any act there."""
        return self.chance.in_force() if self._draws else contextlib.nullcontext()

    def check_loss(self, total: float, index: int) -> None:
        """total: the sum of the epoch's losses so far."""
        if not math.isfinite(total):
            self.error = TrainingError(self.run.not_finite(self.epoch, f"the training loss (minibatch {index})", total))

    @contextlib.contextmanager
    def guarded(self) -> Iterator[None]:
        """What goes wrong in the block ends this member alone."""
        try:
            with memory.said_plainly(f"epoch {self.epoch}", self.run.config.batch_size):
                yield
        except (Exception, SystemExit) as error:  # the latter: code of the user's that ends the process
            self.error = error

    def loss_of(self, value: Tensor, step: int, steps: int, weight: float) -> tuple[Tensor, Tensor]:
        """(the loss with what its policies add, what is to be differentiated)."""
        with self.at_minibatch():
            loss = self.run.scheduler.before_backward(self.epoch, step, steps, value)
        return loss, self.run.stepping.scaled(loss if weight == 1.0 else loss * weight)

    def close(self) -> None:
        with contextlib.suppress(Exception):
            self._opened.close()


def always_alone(config: RunConfig) -> str:
    """Why such a run is never one of several; "" where that depends on its network."""
    if config.distillation is not None:
        return "its teacher watches each network by itself"
    if not config.epochs or not config.trains:
        return "nothing is trained"
    return ""
