"""What is wrong with a sweep that only its network can tell; each raises ConfigError, or says what it has found."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import nn

from raydistill.compression import CompressionScheduler, check
from raydistill.compression.build import planned_of, rehearsed
from raydistill.compression.hidden_states import unknown_modules
from raydistill.compression.names import names_of
from raydistill.compression.timeline import timeline
from raydistill.errors import ABSENT, ConfigError, Fault, TrainingError
from raydistill.schedule import ScheduleSpec, naming_weights, policies_beyond
from raydistill.search import SearchSpace
from raydistill.search.figures import own_figure
from raydistill.search.searchers import Searcher
from raydistill.search.searchers.damages import is_level
from raydistill.sweep.file.load import Sweep
from raydistill.sweep.file.warm_entries import auto_of
from raydistill.sweep.planning.runs import baseline_config, trunk_config
from raydistill.training.ending import ending_faults
from raydistill.training.footprint import measured
from raydistill.training.optimizer import make_optimizer
from raydistill.training.own_loop import loop_of


def check_schedule(sweep: Sweep, schedule: ScheduleSpec, model: nn.Module, inputs: tuple[torch.Tensor, ...]) -> float:
    """The sparsity that a schedule is bound for, if it fits."""
    training = sweep.sections.training
    faults = policies_beyond(schedule, training.epochs, "training.epochs")

    def read(scheduler: CompressionScheduler) -> float:
        faults.extend(ending_faults(scheduler, training.epochs, training.optimizer))
        return planned_of(scheduler)[0]

    planned = 0.0
    try:
        planned = rehearsed(schedule, model, inputs, read)
    except ConfigError as error:
        faults += error.faults
    if faults:
        raise ConfigError(*faults)
    return planned


def check_baseline(sweep: Sweep, model: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
    """Raises ConfigError where the baseline's optimizer or schedule cannot be built: minutes before it is trained."""
    run = baseline_config(sweep)
    make_optimizer(model, run, f"{sweep.file}: training")
    if run.schedule is not None:
        check(run.schedule, model, inputs)


def check_curves(sweep: Sweep, space: SearchSpace, searcher: Searcher) -> None:
    """Raises ConfigError where a searcher by the layers' damages has no layers, or not the two figures it weighs."""
    where, name, other = f"{sweep.file}: searcher", sweep.sections.searcher.name, "choose another searcher"
    if auto_of(sweep.warm_start) is not None:
        where, name, other = f"{sweep.file}: warm_start", "auto", "leave auto out"
    if not any(is_level(dimension) for dimension in space.dimensions):
        way_out = f"search a fraction with per_layer, or {other}"
        raise ConfigError(Fault(where, f"{name} is for levels of layers, and none is searched", ABSENT, way_out))
    of_network = sum(objective.of_network for objective in sweep.objectives)
    if (of_network, len(sweep.objectives)) != (1, 2):
        rule = f"{name} weighs one metric of the task against one figure of the network"
        said = [objective.name for objective in sweep.objectives]
        raise ConfigError(Fault(where, rule, said, "as in objectives: {top1: max, sparsity: max}"))
    figure = next(objective.name for objective in sweep.objectives if objective.of_network)
    if searcher.wants_bound and figure not in {bound.figure for bound in sweep.constraints}:
        sign = ">= 0.8" if figure == "sparsity" else "<= 0.5x"
        way_out = f"as in constraints: ['{figure} {sign}'], or protocol: accuracy-guaranteed"
        raise ConfigError(Fault(where, f"{name} wants a bound on {figure}", ABSENT, way_out))


def has_curves(sweep: Sweep, space: SearchSpace) -> bool:
    """Whether levels of layers are searched for one metric and one figure of the network, by the tool's own loop."""
    weighs = sorted(objective.of_network for objective in sweep.objectives) == [False, True]
    own = sweep.sections.train is not None or any(objective.path for objective in sweep.objectives)
    return weighs and not own and any(is_level(dimension) for dimension in space.dimensions)


def idle_bounds(sweep: Sweep, searcher: Searcher) -> list[str]:
    """A line for each bound that a searcher with a model of its own does not see."""
    blind = searcher.keeps_bounds and not searcher.bounds_beside
    names = {objective.name for objective in sweep.objectives}
    idle = [bound.figure for bound in sweep.constraints if blind and bound.of_network and bound.figure not in names]
    where, name = f"{sweep.file}: constraints", sweep.sections.searcher.name
    way_out = "it marks trials only; optimise it, or choose another searcher"
    return [str(Fault(where, f"{name} does not steer by a bound that is no objective", each, way_out)) for each in idle]


def trunk_levels(sweep: Sweep, model: nn.Module, inputs: tuple[torch.Tensor, ...]) -> dict[int, float]:
    """The sparsity after each number of epochs that is kept.

    Raises:
        ConfigError: the trunk's pruner does not fit the network.
    """
    section = sweep.sections.trunk
    if section is None:
        return {}
    run = trunk_config(sweep)
    assert run.schedule is not None
    try:
        planned = rehearsed(naming_weights(run.schedule, names_of(model)), model, inputs, timeline)
    except ConfigError as error:
        faults = [fault for fault in error.faults if isinstance(fault, Fault)]
        raise ConfigError(*(replace(f, where=f.where.replace(": pruners.trunk.", ".", 1)) for f in faults)) from error
    by_epoch = {epoch: action.sparsity for action in planned for epoch in range(action.epochs[0], action.epochs[1] + 1)}
    return {epochs: by_epoch[epochs - 1] for epochs in section.kept}


def check_loop(sweep: Sweep) -> None:
    """Raises ConfigError where the training loop of one's own cannot be had."""
    if sweep.sections.train is not None:
        several = sweep.sections.workers_per_trial > 1
        loop_of(baseline_config(sweep), f"{sweep.file}: train.name", several)


def check_hidden(sweep: Sweep, model: nn.Module) -> None:
    section = sweep.sections.distillation
    names = (section and section.hidden) or {}
    found = unknown_modules(names, model, "network")
    if found:
        raise ConfigError(*(replace(fault, where=f"{sweep.file}: {fault.where}") for fault in found))


def check_figures(sweep: Sweep, model: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
    """Raises ConfigError where a figure of one's own fails on the untrained network."""
    for path in sweep.own_figures:
        figure = own_figure(path, str(sweep.file), sweep.metrics)
        try:
            measured(figure, model, inputs)
        except TrainingError as error:
            raise ConfigError(*(f"{sweep.file}: {fault}" for fault in error.faults)) from error
