"""A `Sweep` and its model become trials: what each draws, its schedule, its run. Checked before anything starts."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch
from torch import nn

from raydistill import models, tasks
from raydistill.compression import weights
from raydistill.compression.names import names_of
from raydistill.errors import ConfigError, Fault
from raydistill.parts import Optimizer
from raydistill.parts.training import Precision
from raydistill.records import Scalar
from raydistill.schedule import (
    Names,
    Targets,
    dump_schedule,
    naming_weights,
    parse_schedule,
    with_values,
)
from raydistill.search import PerLayer, SearchSpace, expand
from raydistill.search.searchers import Searcher
from raydistill.sweep.file.load import BRANCH_AT, LOOP, TRAINING, TRUNK, Sweep, relocate, training_values
from raydistill.sweep.file.warm_entries import auto_of
from raydistill.sweep.planning.checks import (
    check_baseline,
    check_curves,
    check_figures,
    check_hidden,
    check_loop,
    check_schedule,
    idle_bounds,
    trunk_levels,
)
from raydistill.sweep.planning.common_start import common_start, shared_epochs
from raydistill.sweep.planning.methods import compared_too_early, make_placed, make_searcher, make_trial_scheduler
from raydistill.sweep.planning.runs import distillation_of, run_config
from raydistill.sweep.planning.seeds import Seeds
from raydistill.sweep.planning.warm_start import WarmStart, resolve_warm_starts
from raydistill.tasks import TaskShape
from raydistill.training import RunConfig
from raydistill.training.optimizer import make_optimizer

_NEAR = 5e-4
"""What is lost of a sparsity where whole weights are counted."""
_FEW = 16
"""Trials that are drawn and checked before the data are read; all are with them."""


@dataclass(frozen=True)
class TrialPlan:
    """One trial. run: without init_from, out_dir, threads and device, which the driver fills in (`placed`).

    origin: where a warm start is from, "" for a drawn trial. branch: the number of the trunk's epochs behind which it
    branches off; None: it starts from the baseline. planned: other figures that it is bound for, see `foresight`.
    fork: a checkpoint of its first epochs, which it has in common with others; None: it trains them itself.
    """

    trial_id: str
    values: Mapping[str, Scalar]
    run: RunConfig
    planned_sparsity: float
    origin: str = ""
    branch: int | None = None
    planned: Mapping[str, float] = field(default_factory=dict)
    fork: str | None = None

    @property
    def schedule_text(self) -> str:
        """Written when it is asked for: PyYAML takes longer than all else about a trial."""
        return dump_schedule(self.run.schedule) if self.run.schedule is not None else ""

    def placed(
        self,
        baseline: str,
        out_dir: str,
        threads: int | None,
        device: str,
        precision: Precision,
        branches: Mapping[int, str] | None = None,
        statistics_dir: str | None = None,
    ) -> TrialPlan:
        """baseline, out_dir: references into the sweep's storage. precision: what ``auto`` stands for here, so that no
        trial is faster or coarser than another. branches: the trunk's networks, by numbers of its epochs.
        statistics_dir: see `RunConfig`, for all trials of the sweep.
        """
        start = baseline if self.branch is None or branches is None else branches[self.branch]
        run = replace(self.run, init_from=start, out_dir=out_dir, statistics_dir=statistics_dir)
        run = replace(run, threads=threads, device=device)
        if run.distillation is not None and run.distillation.checkpoint is None:  # the baseline teaches
            run = replace(run, distillation=replace(run.distillation, checkpoint=baseline))
        return replace(self, run=replace(run, precision=precision) if run.precision == "auto" else run)

    def repeated(self, trial_id: str, seed: int, out_dir: str) -> TrialPlan:
        """Its values once more, under another name. With another seed it has no epoch in common with others."""
        fork = self.fork if seed == self.run.seed else None
        return replace(self, trial_id=trial_id, run=replace(self.run, seed=seed, out_dir=out_dir), fork=fork)


@dataclass(frozen=True)
class Plan:
    """What the space expanded to, and the trials that are known before any result. weights: (name, shape) of each.

    trials: the warm starts, then all others with a searcher that does not learn, else those of its start. count: how
    many there will be at most. searcher: asked for the others. draw: a trial's number and values to its plan.
    warnings: lines about the schedule, the warm starts and the trial scheduler. branches: the sparsity that the trunk
    is bound for after each number of its epochs that is kept; {} where there is no trunk. first: a trial, real or with
    the lowest values, that has the `common_start` first epochs in common with the others; 0 where they have none.
    """

    space: SearchSpace
    trials: tuple[TrialPlan, ...]
    weights: tuple[tuple[str, tuple[int, ...]], ...]
    count: int
    searcher: Searcher
    draw: Callable[[int, Mapping[str, Scalar]], TrialPlan]
    warnings: tuple[str, ...] = ()
    branches: Mapping[int, float] = field(default_factory=dict)
    first: TrialPlan | None = None
    common_start: int = 0

    @property
    def warm(self) -> tuple[TrialPlan, ...]:
        """The trials from warm starts, the first ones."""
        return tuple(trial for trial in self.trials if trial.origin)


def shares_the_start(plan: Plan, trial: TrialPlan) -> bool:
    """Whether a trial begins with the epochs that the others have in common."""
    if not plan.common_start or plan.first is None:
        return False
    return shared_epochs(plan.first, trial) >= plan.common_start


def trial_name(number: int) -> str:
    return f"t{number:04d}"


def trial_number(trial_id: str) -> int:
    return int(trial_id[1:])


def plan_sweep(
    sweep: Sweep,
    task: TaskShape,
    seeds: Seeds | None = None,
    at_most: int | None = None,
) -> Plan:
    """Draw the trials that are known beforehand, behind the warm starts, and check each against the model.

    task: builds the network; some pruners look at how layers follow each other. seeds: see `resolve_warm_starts`.
    at_most: draw no more than so many; None: all that are known beforehand.

    Raises:
        ConfigError: weights the model lacks, arguments no pruner takes, values out of range: all of it at once.
    """
    sections = sweep.sections
    inputs = task.example_input()
    with _kept_rng():
        model = task.network(sections.model.arch, sections.model.args, f"{sweep.file}: model.arch")
        models.check_input(model, inputs, sections.model.arch, f"{sweep.file}: model.arch")
    named = tuple((name, tuple(weight.shape)) for name, weight in weights(model))
    offered = names_of(model)
    faults = _Faults()
    with faults.collecting():
        said = sweep.schedule
        sweep = replace(sweep, schedule=naming_weights(said, offered))
    faults.collect(check_schedule, sweep, sweep.schedule, model, inputs)
    faults.collect(check_baseline, sweep, model, inputs)
    branches: Mapping[int, float] = faults.collect(trunk_levels, sweep, model, inputs) or {}
    faults.collect(check_loop, sweep)
    faults.collect(check_hidden, sweep, model)
    faults.collect(check_figures, sweep, model, inputs)
    dimensions = list(sweep.dimensions)
    with faults.collecting():
        dimensions += expand(sweep.per_layer, [name for name, _ in named], _meaning(offered))
    with faults.collecting():
        space = SearchSpace(tuple(dimensions))
    faults.stop()
    of_weights = {d.path: (d.weight, d.argument) for d in dimensions if d.weight and d.argument}
    drawn_trial = partial(_trial, sweep, model, inputs, of_weights, branches)
    ends = [
        faults.collect(drawn_trial, which, values, context=f"with the {which} values of 'search'")
        for which, values in zip(("lowest", "highest"), space.ends(), strict=True)
    ]
    faults.stop()
    with faults.collecting():
        starts = resolve_warm_starts(sweep, space, seeds)
    faults.stop()
    section, where = sections.searcher, f"{sweep.file}: searcher"
    if (placing := auto_of(sweep.warm_start)) is not None:
        count_of = (sections.seed, sections.num_samples, placing.pool)
        searcher: Searcher = faults.collect(make_placed, section, space, *count_of, where)
        faults.stop()
    else:
        searcher = make_searcher(section, space, sections.seed, sections.num_samples, where)
    if searcher.wants_curves:
        faults.collect(check_curves, sweep, space, searcher)
    with faults.collecting():
        where = f"{sweep.file}: trial_scheduler"
        make_trial_scheduler(sections.trial_scheduler, sweep.objectives, sections.training.epochs, where)
    faults.stop()
    count, warm = sections.num_samples, len(starts)
    count = min(count, warm + searcher.size)
    trials = [_warm_trial(sweep, model, inputs, branches, number, start, faults) for number, start in enumerate(starts)]
    for number in range(warm, count if at_most is None else min(count, warm + at_most)):
        if number - warm >= searcher.startup:
            break
        drawn = searcher.suggest(number - warm, (), ())
        if drawn is None:  # nothing is left to try
            count = number
            break
        context = f"with the values of trial {trial_name(number)}"
        trials.append(faults.collect(drawn_trial, trial_name(number), drawn, context=context))
    faults.stop()

    def draw(number: int, values: Mapping[str, Scalar]) -> TrialPlan:
        return drawn_trial(trial_name(number), values)

    warnings = (*sweep.schedule.warnings, *(line for start in starts for line in start.warnings))
    known = tuple(trial for trial in trials if trial is not None)
    schedules = [sweep.schedule, *(trial.run.schedule for trial in known if trial.run.schedule is not None)]
    where = f"{sweep.file}: trial_scheduler"
    early = compared_too_early(sections.trial_scheduler, sections.training.epochs, schedules, where)
    warnings = (*warnings, *early, *idle_bounds(sweep, searcher))
    shared = common_start(sweep, [*ends, *known])
    return Plan(space, known, named, count, searcher, draw, warnings, branches, ends[0], shared)


def check_plan(sweep: Sweep) -> None:
    """`plan_sweep` before the data are read, where their name says their classes and their shape. Of other data, and of
    those that given or published weights want in their own way, nothing is assumed: what is right for them may be wrong
    for CIFAR's.
    """
    known = tasks.foreseen(sweep.task, sweep.dataset, f"{sweep.file}: task")
    given = sweep.sections.baseline.checkpoint is not None or sweep.sections.model.args.get("pretrained")
    if known is not None and not given:
        plan_sweep(sweep, known, at_most=_FEW)


def _meaning(offered: Names) -> Callable[[PerLayer], Sequence[str]]:
    """The weights that an entry of ``per_layer`` stands for."""
    held = [one for one in offered.weights if one.weight]
    return lambda entry: Targets(entry.weights, entry.types, entry.excluded).names(held, entry.where, strict=True)


def _trial(
    sweep: Sweep,
    model: nn.Module,
    inputs: tuple[torch.Tensor, ...],
    of_weights: Mapping[str, tuple[str, str]],
    branches: Mapping[int, float],
    trial_id: str,
    values: Mapping[str, Scalar],
) -> TrialPlan:
    """One trial from its drawn values; `model` only lends its weights' names and shapes. of_weights: by a path the
    (weight, argument) that is searched there. branches: see `Plan`.
    """
    source = sweep.schedule.source
    of_training = {path: value for path, value in values.items() if path.startswith(TRAINING)}
    training = training_values(sweep.sections.training, of_training, str(sweep.file))
    of_schedule = {path: value for path, value in values.items() if not path.startswith((TRAINING, LOOP, TRUNK))}
    schedule = parse_schedule(
        with_values(sweep.schedule.mapping, of_schedule, f"{sweep.file}: search", of_weights), source
    )
    planned = check_schedule(sweep, schedule, model, inputs)
    if training.optimizer != Optimizer():
        make_optimizer(model, training, f"{sweep.file}: training")
    run = replace(run_config(sweep, training, schedule, values), distillation=distillation_of(sweep))
    if not branches:
        return TrialPlan(trial_id, values, run, planned)
    wanted = float(values[BRANCH_AT])
    branch = next((epochs for epochs in sorted(branches) if branches[epochs] >= wanted - _NEAR), max(branches))
    return TrialPlan(trial_id, values, run, max(planned, branches[branch]), branch=branch)


def _warm_trial(
    sweep: Sweep,
    model: nn.Module,
    inputs: tuple[torch.Tensor, ...],
    branches: Mapping[int, float],
    number: int,
    start: WarmStart,
    faults: _Faults,
) -> TrialPlan | None:
    """A trial from a warm start: of the sweep's schedule with its values, or of its own schedule as it is."""
    trial_id = trial_name(number)
    with faults.collecting(f"as a warm start of {sweep.file.name}"):
        if start.schedule is None:
            return replace(_trial(sweep, model, inputs, {}, branches, trial_id, start.values), origin=start.origin)
        planned = check_schedule(sweep, start.schedule, model, inputs)
        run = replace(run_config(sweep, sweep.sections.training, start.schedule), distillation=distillation_of(sweep))
        return TrialPlan(trial_id, start.values, run, planned, start.origin)
    return None


@contextlib.contextmanager
def _kept_rng() -> Iterator[None]:
    """Building a model draws from torch's generator; the caller's stays as it was."""
    state = torch.get_rng_state()
    try:
        yield
    finally:
        torch.set_rng_state(state)


class _Faults:
    """Collects what goes wrong; each (place, rule) once, with the values that first showed it."""

    def __init__(self) -> None:
        self._found: dict[tuple[str, str], Fault | str] = {}

    def collect(self, make: Any, *arguments: Any, context: str = "") -> Any:
        with self.collecting(context):
            return make(*arguments)

    @contextlib.contextmanager
    def collecting(self, context: str = "") -> Iterator[None]:
        try:
            yield
        except ConfigError as error:
            for fault in relocate(error.faults):
                if isinstance(fault, Fault):
                    key = (fault.where, fault.rule)
                    rule = f"{fault.rule} ({context})" if context else fault.rule
                    fault = Fault(fault.where, rule, fault.value, fault.way_out)
                else:
                    key = (fault, "")
                self._found.setdefault(key, fault)

    def stop(self) -> None:
        if self._found:
            raise ConfigError(*self._found.values())
