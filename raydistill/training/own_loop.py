"""A training loop of one's own as `fit` is: a generator of the epochs, each when its checkpoint is written."""

from __future__ import annotations

import inspect
import queue
import threading
from collections.abc import Callable, Generator, Iterator, Mapping
from typing import Any

import torch

from raydistill.compression.ranks import Ranks
from raydistill.errors import ABSENT, ConfigError, Fault, TrainingError
from raydistill.records import EpochMetrics
from raydistill.resolve import in_folder, resolve
from raydistill.tasks import Task
from raydistill.training import memory
from raydistill.training.config import RunConfig
from raydistill.training.determinism import seed_everything, training_environment
from raydistill.training.start import prepared_for
from raydistill.training.trial import Trial
from raydistill.training.watched import WatchedRanks

_END_S = 30.0


class StopTraining(BaseException):
    """The trial ends here, stopped by the search or by the user. It is no error: let it pass."""


def loop_of(config: RunConfig, where: str = "train.name", several: bool = False) -> Callable[[Trial], Any]:
    """The user's function. several: it is to run on several workers.

    Raises:
        ConfigError: it cannot be imported, or takes anything but a trial, or is for one process.
    """
    assert config.train is not None
    found = resolve(config.train.name, {}, where, "training loop")
    if not callable(found):
        raise ConfigError(Fault(where, "must be a function of a trial", config.train.name))
    try:
        inspect.signature(found).bind(object())
    except TypeError as error:
        rule = f"must be a function of a trial ({error})"
        raise ConfigError(Fault(where, rule, config.train.name, "as in def train(trial): ...")) from error
    except ValueError:  # of C code
        pass
    if several and not _is_generator(found):
        rule = "must be a generator to train on several workers: one that calls trial.report trains in one process"
        raise ConfigError(Fault(where, rule, config.train.name, "yield the metrics of each epoch, or use one worker"))
    return found  # type: ignore[no-any-return]


def own_epochs(config: RunConfig, task: Task | None = None, ranks: Ranks | None = None) -> Iterator[EpochMetrics]:
    """See `raydistill.training.fit`."""
    from raydistill.training.loop import device_of

    ranks = WatchedRanks(ranks or Ranks())
    if config.continue_from is not None:
        raise ConfigError(Fault("continue_from", "is not for a loop of one's own", config.continue_from, "init_from"))
    with training_environment(config.threads, config.deterministic), ranks.failing_together(), ranks:

        def begin() -> tuple[Callable[[Trial], Any], Trial]:
            loop = loop_of(config, several=ranks.several)
            prepared = prepared_for(config, task)
            seed_everything(config.seed)
            return loop, Trial(config, prepared, device_of(config.device), ranks)

        loop, trial = ranks.together(begin)
        with memory.said_plainly("training", config.batch_size):
            yielded = _yielded(loop, trial) if _is_generator(loop) else _reported(loop, trial)
            try:
                yield from _kept(yielded, trial, ranks)
            finally:
                yielded.close()


def _is_generator(loop: Callable[..., Any]) -> bool:
    return inspect.isgeneratorfunction(loop) or inspect.isgeneratorfunction(getattr(loop, "__call__", None))  # noqa: B004


def _kept(metrics: Iterator[Mapping[str, float]], trial: Trial, ranks: WatchedRanks) -> Iterator[EpochMetrics]:
    for found in metrics:
        trial.check_epoch()
        kept = trial.keep(found)
        ranks.where = f"epoch {kept.epoch + 1}"
        yield kept
    if trial.first_epoch < trial.epochs:  # at once: the other workers may wait for this one where nothing can be said
        rule = f"ended after {trial.first_epoch} of {trial.epochs} epochs"
        raise TrainingError(Fault("train", rule, ABSENT, "yield once an epoch, from trial.first_epoch on"))
    ranks.meet("the end")  # one that goes on says so


def _yielded(loop: Callable[[Trial], Any], trial: Trial) -> Generator[Mapping[str, float], None, None]:
    with in_folder():
        made = loop(trial)
    try:
        yield from made
    finally:
        made.close()


def _reported(loop: Callable[[Trial], Any], trial: Trial) -> Generator[Mapping[str, float], None, None]:
    """A plain function, in a thread of its own that stands still while an epoch is looked at."""
    told: queue.Queue[tuple[str, Any]] = queue.Queue()
    go_on: queue.Queue[bool] = queue.Queue()
    threads = torch.get_num_threads()

    def report(metrics: Mapping[str, float]) -> None:
        told.put(("metrics", metrics))
        if not go_on.get():
            raise StopTraining

    def run() -> None:
        torch.set_num_threads(threads)  # OpenMP counts them a thread
        try:
            with in_folder():
                loop(trial)
            told.put(("end", None))
        except StopTraining:
            told.put(("end", None))
        except BaseException as error:
            told.put(("error", error))

    trial.reported = report
    thread = threading.Thread(target=run, name="training", daemon=True)
    thread.start()
    waiting = False
    try:
        while True:
            kind, value = told.get()
            if kind == "end":
                return
            if kind == "error":
                raise value
            waiting = True
            yield value
            waiting = False
            go_on.put(True)
    finally:
        if waiting:
            go_on.put(False)
        thread.join(_END_S)
