"""A schedule's values become a running `CompressionScheduler`; every fault is reported at once.

The constructor is the schema: arguments are bound to the class's signature, values are checked by its ``__init__``.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer, lr_scheduler

from raydistill.compression import pruners
from raydistill.compression.masks import MaskSet, pruned_count
from raydistill.compression.policies import LRPolicy, Policy, PruningPolicy
from raydistill.compression.scheduler import CompressionScheduler, ScheduledPolicy
from raydistill.compression.sparsity import from_counts, weights
from raydistill.errors import ABSENT, ConfigError, Fault, close_match
from raydistill.resolve import resolve
from raydistill.schedule import InstanceSpec, PolicySpec, ScheduleSpec

_LR_MENU = {
    name: cls
    for name, cls in vars(lr_scheduler).items()
    if inspect.isclass(cls) and issubclass(cls, lr_scheduler.LRScheduler) and not name.startswith("_")
}
_MENUS: dict[str, tuple[str, Mapping[str, Any]]] = {
    "pruners": ("pruner class", pruners.MENU),
    "regularizers": ("regularizer class", {}),
    "quantizers": ("quantizer class", {}),
    "lr_schedulers": ("LR scheduler class", _LR_MENU),
    "extensions": ("extension class", {}),
}


def build(spec: ScheduleSpec, model: nn.Module, optimizer: Optimizer) -> CompressionScheduler:
    """Build the scheduler of `model` from a schedule.

    Raises:
        ConfigError: unknown classes, wrong arguments, weights that the model lacks; one fault each.
    """
    faults: list[Fault] = []
    objects = {
        (instance.section, instance.name): _instance(instance, spec.source, model, optimizer, faults)
        for instance in spec.instances
    }
    masks = MaskSet(model)
    policies = []
    for policy in spec.policies:
        if policy.args:
            key = next(iter(policy.args))
            faults.append(Fault(f"{spec.source}: {policy.path}.{policy.kind}.args.{key}", "unknown argument", ABSENT))
        target = objects.get((spec.instance(policy.kind, policy.instance_name).section, policy.instance_name))
        if target is not None and not faults:
            policies.append(ScheduledPolicy(_policy(policy, target, model, masks), policy))
    if faults:
        raise ConfigError(*faults)
    return CompressionScheduler(model, policies, masks)


def check(spec: ScheduleSpec, model: nn.Module) -> None:
    """Raise what `build` would raise; needs no optimizer and leaves no trace."""
    build(spec, model, torch.optim.SGD(model.parameters(), lr=0.1))


def planned_sparsity(spec: ScheduleSpec, model: nn.Module) -> tuple[float, dict[str, float]]:
    """What the schedule is bound for: total sparsity at its end, and each pruned weight's own.

    For each weight the policy that acts last decides. A pruner that does not know its level beforehand counts as 0.
    """
    scheduler = build(spec, model, torch.optim.SGD(model.parameters(), lr=0.1))
    sizes = {name: weight.numel() for name, weight in weights(model)}
    levels: dict[str, tuple[int, float]] = {}
    for scheduled in scheduler.scheduled:
        if not isinstance(scheduled.policy, PruningPolicy):
            continue
        last = scheduled.spec.active_epochs()[-1]
        for name in scheduled.policy.pruner.weights:
            level = scheduled.policy.pruner.level(name, scheduled.when(last)) or 0.0
            if name in sizes and last >= levels.get(name, (-1, 0.0))[0]:
                levels[name] = (last, level)
    counts = {name: (pruned_count(levels.get(name, (0, 0.0))[1], size), size) for name, size in sizes.items()}
    total, by_weight = from_counts(counts)
    return total, {name: by_weight[name] for name in levels}


def _instance(
    instance: InstanceSpec, source: str, model: nn.Module, optimizer: Optimizer, faults: list[Fault]
) -> object | None:
    where = f"{source}: {instance.path}"
    what, menu = _MENUS[instance.section]
    try:
        cls = resolve(instance.class_name, menu, f"{where}.class", what)
    except ConfigError as error:
        faults.extend(fault for fault in error.faults if isinstance(fault, Fault))
        return None
    args = copy.deepcopy(dict(instance.args))
    if instance.section == "lr_schedulers":
        return _construct(cls, (optimizer,), args, where, faults)
    built = _construct(cls, (instance.name,), args, where, faults)
    if built is not None and not isinstance(built, pruners.Pruner):
        faults.append(Fault(f"{where}.class", "is not a Pruner", instance.class_name, "derive it from Pruner"))
        return None
    if isinstance(built, pruners.Pruner):
        _check_weights(built, model, instance, where, faults)
    return built


def _construct(
    cls: Callable[..., Any], given: tuple[Any, ...], args: dict[str, Any], where: str, faults: list[Fault]
) -> Any:
    """Call a class with arguments from a file; what it does not accept becomes faults, and None is returned."""
    parameters = list(inspect.signature(cls).parameters.values())
    open_ended = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters)
    named = [p for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)][len(given) :]
    names = [parameter.name for parameter in named]
    before = len(faults)
    for key in args:
        if key not in names and not open_ended:
            faults.append(Fault(f"{where}.{key}", "unknown argument", ABSENT, close_match(key, names)))
    for parameter in named:
        if parameter.default is parameter.empty and parameter.name not in args:
            faults.append(Fault(f"{where}.{parameter.name}", "is missing", ABSENT, f"add '{parameter.name}:'"))
    if len(faults) > before:
        return None
    try:
        return cls(*given, **args)
    except ConfigError as error:
        for fault in error.faults:
            if isinstance(fault, Fault):
                faults.append(Fault(f"{where}.{fault.where}", fault.rule, fault.value, fault.way_out))
            else:
                faults.append(Fault(where, fault))
    except Exception as error:  # torch's and users' own classes refuse values in ways of their own
        faults.append(Fault(where, f"{type(error).__name__}: {error}"))
    return None


def _check_weights(
    pruner: pruners.Pruner, model: nn.Module, instance: InstanceSpec, where: str, faults: list[Fault]
) -> None:
    known = dict(model.named_parameters())
    argument = next((key for key in ("weights", "levels") if key in instance.args), "weights")
    for name in pruner.weights:
        if name not in known:
            way_out = close_match(name, known)
            faults.append(Fault(f"{where}.{argument}", "the model has no such weight", name, way_out))
        elif known[name].numel() == 0:
            faults.append(Fault(f"{where}.{argument}", "the weight is empty", name))


def _policy(policy: PolicySpec, target: Any, model: nn.Module, masks: MaskSet) -> Policy:
    if policy.kind == "pruner":
        return PruningPolicy(target, model, masks)
    return LRPolicy(target)
