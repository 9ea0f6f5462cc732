"""Learning-rate schedules as a policy: any class of `torch.optim.lr_scheduler`."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Mapping

from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from raydistill.compression.policies.base import Policy
from raydistill.compression.rates import PolicyTime
from raydistill.errors import ConfigError, Fault
from raydistill.metrics import LOSS, MIN


class LRPolicy(Policy):
    """Steps an LR scheduler at the end of each scheduled epoch.

    Epochs are the run's, not the policy's, as schedule files mean them: a policy from epoch 24 with milestone 30 steps
    at epoch 30. ReduceLROnPlateau is stepped with the validation loss (mode min) or with the metric that selects, the
    first of them (mode max).
    """

    def __init__(self, lr_scheduler: LRScheduler) -> None:
        self.lr_scheduler = lr_scheduler
        self._takes_epoch = "epoch" in inspect.signature(lr_scheduler.step).parameters

    def says(self, when: PolicyTime) -> str:
        return "steps the learning rate"

    def on_epoch_end(self, when: PolicyTime, metrics: Mapping[str, float]) -> None:
        with warnings.catch_warnings():
            # torch wants schedulers stepped without an epoch; only the epoch gives files' absolute milestones.
            warnings.filterwarnings("ignore", message=".*epoch parameter in.*")
            warnings.filterwarnings("ignore", message=".*before `optimizer.step.*")
            if isinstance(self.lr_scheduler, ReduceLROnPlateau):
                self.lr_scheduler.step(metrics[_watched(metrics, self.lr_scheduler.mode)])
            elif self._takes_epoch:
                self.lr_scheduler.step(epoch=when.epoch + 1)
            else:
                self.lr_scheduler.step()

    def state_dict(self) -> dict[str, object]:
        """The scheduler's counters: plain numbers and lists of them; what its constructor made is made again."""
        return {key: value for key, value in self.lr_scheduler.state_dict().items() if _is_plain(value)}

    def load_state_dict(self, state: Mapping[str, object]) -> None:
        self.lr_scheduler.load_state_dict({**self.lr_scheduler.state_dict(), **state})


def _watched(metrics: Mapping[str, float], mode: str) -> str:
    """The name of what ReduceLROnPlateau is stepped with."""
    name = LOSS if mode == MIN else next((name for name in metrics if name != LOSS), "metric")
    if name not in metrics:
        rule = f"ReduceLROnPlateau needs the validation {name}"
        raise ConfigError(Fault("on_epoch_end", rule, sorted(metrics), f"pass {name}=... to on_epoch_end"))
    return name


def _is_plain(value: object) -> bool:
    if isinstance(value, list):
        return all(_is_plain(entry) for entry in value)
    return value is None or type(value) in (bool, int, float, str)
