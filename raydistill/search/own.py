"""A user's own searcher and trial scheduler, ``pkg.mod:Class``: looked up, built, and watched while they are asked.

Whatever they do wrong is one line, at load or when it happens; Ray Tune's loop never sees an exception of theirs.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TypeVar

import numpy as np

from raydistill.errors import ABSENT, ConfigError, Fault, close_match, users_code
from raydistill.records import Scalar
from raydistill.resolve import argument_faults, resolve_class
from raydistill.search.decisions import GO_ON, PAUSE, STOP, Figures, Measure, TrialScheduler, Verdict
from raydistill.search.observations import Observation
from raydistill.search.points import typed
from raydistill.search.searchers.base import Searcher
from raydistill.search.space import SearchSpace

T = TypeVar("T")


def searcher_class(name: str, args: Mapping[str, object], where: str) -> Callable[..., Searcher]:
    """A class that is made as ``Class(space, seed, **args)``; nothing is called. where: its section.

    Raises:
        ConfigError: it is no `Searcher`, or does not take these arguments.
    """
    return _own_class(name, args, Searcher, where, "searcher", 2)


def trial_scheduler_class(name: str, args: Mapping[str, object], where: str) -> Callable[..., TrialScheduler]:
    """A class that is made as ``Class(measure, max_epochs=epochs, **args)``; nothing is called. where: its section.

    Raises:
        ConfigError: it is no `TrialScheduler`, or does not take these arguments.
    """
    return _own_class(name, args, TrialScheduler, where, "trial scheduler", 1, "max_epochs")


def own_searcher(name: str, args: Mapping[str, object], space: SearchSpace, seed: int, where: str) -> Searcher:
    """Raises ConfigError: as `searcher_class`, or it cannot be made."""
    cls = searcher_class(name, args, where)
    return _WatchedSearcher(_watched(lambda: cls(space, seed, **args), where, name), space, where)


def own_trial_scheduler(
    name: str, args: Mapping[str, object], measure: Measure, max_epochs: int, where: str
) -> TrialScheduler:
    """Raises ConfigError: as `trial_scheduler_class`, or it cannot be made."""
    cls = trial_scheduler_class(name, args, where)
    return _WatchedTrialScheduler(_watched(lambda: cls(measure, max_epochs=max_epochs, **args), where, name), where)


def _own_class(
    name: str, args: Mapping[str, object], base: type[T], where: str, what: str, given: int, *named: str
) -> Callable[..., T]:
    cls = resolve_class(name, {}, base, f"{where}.name", what)
    faults = argument_faults(cls, args, f"{where}.args", given, named)
    if faults:
        raise ConfigError(*faults)
    return cls


def _watched(call: Callable[[], T], where: str, what: str) -> T:
    with users_code(where, what):
        return call()


class _WatchedSearcher(Searcher):
    def __init__(self, own: Searcher, space: SearchSpace, where: str) -> None:
        self._own, self._where = own, where
        self._distributions = {dimension.path: dimension.distribution for dimension in space.dimensions}
        self.startup = own.startup

    def suggest(self, trial: int, seen: Sequence[Observation], stages: Sequence[int]) -> Mapping[str, Scalar] | None:
        what = f"suggest() for trial {trial}"
        values = _watched(lambda: self._own.suggest(trial, seen, stages), self._where, what)
        if values is None:
            return None
        if not isinstance(values, Mapping):
            raise ConfigError(Fault(self._where, f"{what} must give a mapping of key paths to values", values))
        return {path: self._value(path, values, what) for path in dict.fromkeys((*self._distributions, *values))}

    def _value(self, path: str, values: Mapping[str, object], what: str) -> Scalar:
        if path not in self._distributions:
            way_out = close_match(path, self._distributions)
            raise ConfigError(Fault(self._where, f"{what} gives '{path}', which is not searched", ABSENT, way_out))
        if path not in values:
            raise ConfigError(Fault(self._where, f"{what} gives no value for '{path}'", ABSENT, "all are needed"))
        value = values[path]
        value = value.item() if isinstance(value, np.generic) else value
        drawn = typed(self._distributions[path], value)
        if drawn is None:
            rule = f"{what}: '{path}' must be one that the search can draw, {self._distributions[path].describe()}"
            raise ConfigError(Fault(self._where, rule, value))
        return drawn


class _WatchedTrialScheduler(TrialScheduler):
    def __init__(self, own: TrialScheduler, where: str) -> None:
        self._own, self._where = own, where

    def result(self, trial: int, epochs_done: int, figures: Figures) -> Verdict:
        what = f"result() for trial {trial}"
        verdict = _watched(lambda: self._own.result(trial, epochs_done, figures), self._where, what)
        if not isinstance(verdict, Verdict) or verdict.action not in (GO_ON, STOP, PAUSE):
            raise ConfigError(Fault(self._where, f"{what} must give a Verdict: go on, stop or pause", verdict))
        return verdict

    def promotable(self, paused: Collection[int], drained: bool) -> int | None:
        chosen = _watched(lambda: self._own.promotable(paused, drained), self._where, "promotable()")
        if chosen is not None and chosen not in paused:
            raise ConfigError(Fault(self._where, "promotable() must give one of the paused trials or None", chosen))
        return chosen

    def promoted(self, trial: int) -> None:
        _watched(lambda: self._own.promoted(trial), self._where, "promoted()")

    def failed(self, trial: int) -> None:
        _watched(lambda: self._own.failed(trial), self._where, "failed()")

    def until(self, trial: int, epochs_done: int) -> int | None:
        return _watched(lambda: self._own.until(trial, epochs_done), self._where, "until()")

    def why_not_promoted(self, trial: int) -> str:
        return str(_watched(lambda: self._own.why_not_promoted(trial), self._where, "why_not_promoted()"))
