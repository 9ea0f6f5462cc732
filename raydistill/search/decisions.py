"""What a trial scheduler answers, and the figures that it is asked about: shared by all of them.

A `TrialScheduler` is a plain object without Ray: its `result` is told of every trained epoch and says whether the trial
goes on, stops, or pauses at its rung. The same results in the same order give the same answers, so the
journal of a sweep is all of its state.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

from raydistill.errors import ConfigError, Fault
from raydistill.search.constraints import Constraint
from raydistill.search.objectives import Objective

GO_ON, STOP, PAUSE = "go on", "stop", "pause"

Figures = Mapping[str, float]
"""An epoch's figures by name (the task's metrics, sparsity, ...), and ``planned_sparsity``, the trial's final one; with
``planned_macs`` and the like where a sweep foresees them."""

Measure = Callable[[Figures], tuple[float, ...]]
"""Figures to the numbers that are compared, the larger the better."""


@dataclass(frozen=True)
class Verdict:
    """why: in words, for every verdict but `GO_ON`."""

    action: str
    why: str = ""


class TrialScheduler(ABC):
    """Trials are numbered from 0 in the order they were drawn.

    One's own is named in a sweep file as ``pkg.mod:Class`` and made as ``Class(measure, max_epochs=epochs, **args)``,
    where `measure` is `by_objectives`'. What never pauses a trial derives from `Stopping` and has `result` only.
    """

    @abstractmethod
    def result(self, trial: int, epochs_done: int, figures: Figures) -> Verdict:
        """Enter one trained epoch. Entering the same again changes nothing and goes on."""

    @abstractmethod
    def promotable(self, paused: Collection[int], drained: bool) -> int | None:
        """The one of the paused trials that should go on next. drained: nothing runs and nothing is left to draw."""

    @abstractmethod
    def promoted(self, trial: int) -> None:
        """A paused trial goes on."""

    @abstractmethod
    def failed(self, trial: int) -> None:
        """The trial died. Whoever is next best has its place at the rungs that it had come to."""

    @abstractmethod
    def until(self, trial: int, epochs_done: int) -> int | None:
        """How many epochs the trial may have trained when it next pauses; None: it does not."""

    @abstractmethod
    def why_not_promoted(self, trial: int) -> str:
        """Why a paused trial was never promoted, in words."""


class Stopping(TrialScheduler):
    """The part of a trial scheduler that never pauses a trial."""

    def promotable(self, paused: Collection[int], drained: bool) -> int | None:
        return None

    def promoted(self, trial: int) -> None:
        return None

    def failed(self, trial: int) -> None:
        return None

    def until(self, trial: int, epochs_done: int) -> int | None:
        return None

    def why_not_promoted(self, trial: int) -> str:
        return ""


class RunAll(Stopping):
    """No trial scheduler: every trial trains to its end."""

    def result(self, trial: int, epochs_done: int, figures: Figures) -> Verdict:
        return Verdict(GO_ON)


PLANNED = "planned_sparsity"
"""What a trial will be pruned to."""


def planned_name(figure: str) -> str:
    """What a figure of the network is called before training has come to its end."""
    return f"planned_{figure}"


def by_objectives(objectives: Sequence[Objective], constraints: Sequence[Constraint] = ()) -> Measure:
    """What a rung compares: quality as it is now, and the figures of the network that the trial is bound for.

    Every objective that pruning drives (sparsity, MACs, parameters, size, latency) is known only when pruning is done,
    and early sparsity says more of a schedule's pace than of its end. ``planned_macs`` and the like stand for them;
    where one is not foreseen, ``planned_sparsity`` does, once. What is bound to break a constraint on such a figure is
    worse in everything, by how much it breaks it (after Deb 2000, "An efficient constraint handling method", section
    3): it never stands before one that keeps it, and the way back is known.
    """
    quality = [objective for objective in objectives if not objective.of_network]
    pruned = [objective for objective in objectives if objective.of_network]
    sign = -1.0 if any(o.name == "sparsity" and not o.maximise for o in objectives) else 1.0
    bounds = [constraint for constraint in constraints if constraint.of_network]

    def measure(figures: Figures) -> tuple[float, ...]:
        found = [figures[o.name] if o.maximise else -figures[o.name] for o in quality]
        foreseen = [o for o in pruned if o.name != "sparsity" and planned_name(o.name) in figures]
        found += [figures[planned_name(o.name)] * (1.0 if o.maximise else -1.0) for o in foreseen]
        if len(foreseen) < len(pruned):
            found.append(sign * figures[PLANNED])
        known = [(bound, figures.get(planned_name(bound.figure))) for bound in bounds]
        broken = sum(bound.excess(value) for bound, value in known if value is not None)
        return tuple(value - broken * max(1.0, abs(value)) for value in found) if broken else tuple(found)

    return measure


def by_score(weights: Mapping[str, float]) -> Measure:
    """One number: a weighted sum of figures. Bare top1 would stop whatever prunes hard.

    What it gives raises ConfigError where one of them is not there: train_loss, which a loop of one's own need not say.
    """

    def measure(figures: Figures) -> tuple[float, ...]:
        for name in weights:
            if name not in figures:
                rule, way_out = f"weighs '{name}', which the trials do not report", f"yield {name}, or weigh another"
                raise ConfigError(Fault("trial_scheduler.score", rule, list(figures), way_out))
        return (float(sum(weight * float(figures[name]) for name, weight in weights.items())),)

    return measure
