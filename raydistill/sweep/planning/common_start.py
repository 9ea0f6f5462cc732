"""How many epochs all trials of a sweep begin with alike: they are trained once, and trials fork where they end.

Trials that train alike and whose schedules differ from some epoch on only are the same run until then: the baseline
fine-tuned before the first pruner that is searched acts, say.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from raydistill.schedule import ScheduleSpec
from raydistill.sweep.file.load import Sweep
from raydistill.sweep.planning.methods import grace_period
from raydistill.training import RunConfig

if TYPE_CHECKING:
    from raydistill.sweep.planning.plan import TrialPlan

_ACTS_WHEN_ASKED = frozenset({"pruners", "regularizers"})
"""Sections whose instances leave network, optimizer and loss as they are until a policy calls on them."""


def common_start(sweep: Sweep, trials: Sequence[TrialPlan]) -> int:
    """How many first epochs these trials share, 0 where there is nothing to gain. trials: the first is what others are
    held against.

    A trial scheduler that stops trials sees none of them between two epochs that are shared: what is recorded of a
    stopped trial is of the network that it keeps.
    """
    sections = sweep.sections
    epochs = sections.training.epochs
    if sections.num_samples < 2 or not trials or sections.trial_scheduler.own:
        return 0
    most = epochs - 1
    if sections.trial_scheduler.name != "none":
        most = min(most, grace_period(sections.trial_scheduler, epochs))
    return min([most, *(shared_epochs(trials[0], other) for other in trials[1:])])


def shared_epochs(one: TrialPlan, other: TrialPlan) -> int:
    """How many of their first epochs are the same, however their runs are placed."""
    if one.branch is not None or other.branch is not None:
        return 0
    first, second = one.run, other.run
    if first.train is not None or not first.trains or first.schedule is None or second.schedule is None:
        return 0
    if _unplaced(first) != _unplaced(second):
        return 0
    return _until_they_differ(first.schedule, second.schedule, first.epochs)


def _unplaced(run: RunConfig) -> RunConfig:
    return replace(run, schedule=None, out_dir=None, values={})


def _until_they_differ(one: ScheduleSpec, other: ScheduleSpec, epochs: int) -> int:
    if _standing(one) != _standing(other):
        return 0
    first, second = Counter(_acting(one)), Counter(_acting(other))
    differ = [*(first - second), *(second - first)]
    return min([epochs, *(start for start, _ in differ)])


def _standing(schedule: ScheduleSpec) -> list[object]:
    """What a schedule is from its start on: all of what changes a run before it acts, of the rest the classes."""
    return [
        (each.section, each.name, each.class_name, None if each.section in _ACTS_WHEN_ASKED else repr(each.args))
        for each in schedule.instances
    ]


def _acting(schedule: ScheduleSpec) -> list[tuple[int, str]]:
    """Of each policy its first epoch, and all that it does."""
    found = []
    for policy in schedule.policies:
        what = schedule.instance(policy.kind, policy.instance_name)
        does = (policy.kind, policy.instance_name, policy.args, policy.active_epochs(), what.class_name, what.args)
        found.append((min(policy.active_epochs(), default=policy.starting_epoch), repr(does)))
    return found
