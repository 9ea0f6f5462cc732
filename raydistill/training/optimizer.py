"""A run's optimizer from what its `raydistill.parts.Optimizer` says."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import nn

from raydistill.compression.layer_kinds import kind_of
from raydistill.errors import ABSENT, ConfigError, Fault, close_match
from raydistill.parts import Optimization, out_of_bounds
from raydistill.parts.optimizer import SGD
from raydistill.resolve import argument_faults, resolve_class

NORMS, BIASES = "norms", "biases"
_NOT_HERE = {
    "LBFGS": "evaluates the loss several times a step, which no training loop of minibatches does",
    "SparseAdam": "takes sparse gradients only",
}


class _Menu(Mapping[str, type[torch.optim.Optimizer]]):
    """torch.optim's classes by name."""

    def __getitem__(self, name: str) -> type[torch.optim.Optimizer]:
        return self._classes()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._classes())

    def __len__(self) -> int:
        return len(self._classes())

    def _classes(self) -> dict[str, type[torch.optim.Optimizer]]:
        base = torch.optim.Optimizer
        return {
            name: found
            for name, found in sorted(vars(torch.optim).items())
            if isinstance(found, type) and issubclass(found, base) and found is not base
        }


MENU = _Menu()


def learning_rate(of: Optimization, where: str = "training") -> float:
    """The rate that training begins with, before any schedule.

    Raises:
        ConfigError: no such optimizer, or one without a rate of its own where none is given.
    """
    return float(_settings(of, f"{where}.optimizer")["lr"])


def make_optimizer(model: nn.Module, of: Optimization, where: str = "training") -> torch.optim.Optimizer:
    """The optimizer over all parameters of a model.

    A parameter that no group names is in the first group; one that `no_decay` names is in a group without weight decay.

    Raises:
        ConfigError: everything that is wrong with the section, in one error.
    """
    place = f"{where}.optimizer"
    faults = check_optimization(of, where)
    if faults:
        raise ConfigError(*faults)
    settings = _settings(of, place)
    groups = _groups(model, of, place)
    cls = _class_of(of, place)
    try:
        return cls(groups if len(groups) > 1 else groups[0]["params"], **settings)
    except (TypeError, ValueError, RuntimeError) as error:  # torch's own checks of values
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ConfigError(Fault(place, f"{of.optimizer.name} does not take it ({reason})", settings)) from error


def order_of(model: nn.Module, optimizer: torch.optim.Optimizer) -> list[str]:
    """The names of an optimizer's parameters in its order, which its state is kept in; of one that is not the model's
    its place."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    return [names.get(id(parameter), f"#{place}") for place, parameter in enumerate(parameters)]


def check_optimization(of: Optimization, where: str = "training") -> list[Fault | str]:
    """What is wrong with the section, as far as it shows without a model."""
    place, said = f"{where}.optimizer", of.optimizer
    faults: list[Fault | str] = [*out_of_bounds(said, f"{place}.")]
    defaults = {field.name: field.default for field in fields(Optimization)}
    sgd = {name: getattr(of, name) for name in ("lr", "momentum", "weight_decay", "nesterov")}
    given = {name: value for name, value in sgd.items() if value != defaults[name]}
    if said.name != SGD:
        faults += [
            Fault(f"{where}.{name}", f"is SGD's, the optimizer is {said.name}", value, f"say it in {place}")
            for name, value in given.items()
        ]
    else:
        twice = [name for name in given if name in said.args or getattr(said, name, None) is not None]
        faults += [
            Fault(f"{where}.{name}", f"stands in {place} too", given[name], "keep one of the two") for name in twice
        ]
    if said.name in _NOT_HERE:
        return [*faults, Fault(f"{place}.name", _NOT_HERE[said.name], said.name, "choose another, such as AdamW")]
    try:
        cls = _class_of(of, place)
    except ConfigError as error:
        return [*faults, *error.faults]
    faults += [
        Fault(f"{place}.args.{name}", "has a key of its own", said.args[name], f"say it in {place}.{name}")
        for name in ("lr", "weight_decay")
        if name in said.args
    ]
    accepted = inspect.signature(cls).parameters
    named = [name for name in ("lr", "weight_decay") if name in accepted]
    others = {name: value for name, value in said.args.items() if name not in ("lr", "weight_decay")}
    faults += argument_faults(cls, others, f"{place}.args", given=1, named=named)
    for name in ("lr", "weight_decay"):
        if getattr(said, name) is not None and name not in accepted:
            faults.append(Fault(f"{place}.{name}", f"{said.name} has none", getattr(said, name), "leave it out"))
    for index, group in enumerate(said.groups):
        faults += _group_faults(cls, group, f"{place}.groups[{index}]")
    return faults


def _group_faults(cls: type[torch.optim.Optimizer], group: Mapping[str, object], where: str) -> list[Fault]:
    globs = group.get("parameters")
    if not isinstance(globs, (list, tuple)) or not globs or not all(isinstance(glob, str) for glob in globs):
        return [Fault(f"{where}.parameters", "must be a list of names or globs", globs, "such as ['fc*']")]
    known = [name for name in inspect.signature(cls).parameters if name != "params"]
    return [
        Fault(f"{where}.{name}", "unknown argument", value, close_match(name, known))
        for name, value in group.items()
        if name != "parameters" and name not in known
    ]


def _class_of(of: Optimization, place: str) -> type[torch.optim.Optimizer]:
    cls: type[torch.optim.Optimizer] = resolve_class(
        of.optimizer.name, MENU, torch.optim.Optimizer, f"{place}.name", "optimizer"
    )
    return cls


def _settings(of: Optimization, place: str) -> dict[str, Any]:
    """The keyword arguments of the optimizer's class."""
    said = of.optimizer
    parameters = inspect.signature(_class_of(of, place)).parameters
    found: dict[str, Any] = {}
    if said.name == SGD:
        found = {name: getattr(of, name) for name in ("lr", "momentum", "weight_decay", "nesterov")}
    found |= {name: getattr(said, name) for name in ("lr", "weight_decay") if getattr(said, name) is not None}
    found |= {key: tuple(value) if isinstance(value, list) else value for key, value in said.args.items()}
    if "lr" not in found:
        default: object = parameters["lr"].default if "lr" in parameters else None
        if not isinstance(default, (int, float, torch.Tensor)):
            raise ConfigError(Fault(f"{place}.lr", f"{said.name} has no rate of its own", ABSENT, "give lr"))
        found["lr"] = float(default)
    return found


def _groups(model: nn.Module, of: Optimization, place: str) -> list[dict[str, Any]]:
    """torch's parameter groups, in the order of the model's parameters; empty ones are left out."""
    said = of.optimizer
    named = dict(model.named_parameters())
    plain = _without_decay(model, said.no_decay)
    of_group: dict[tuple[int, bool], list[nn.Parameter]] = {}
    reached = [0] * len(said.groups)
    for name, parameter in named.items():
        number = next((i for i, group in enumerate(said.groups) if _matches(name, group["parameters"])), -1)
        if number >= 0:
            reached[number] += 1
        of_group.setdefault((number, name in plain), []).append(parameter)
    faults = [
        Fault(f"{place}.groups[{i}].parameters", "match no parameter", said.groups[i]["parameters"], _near(named))
        for i, count in enumerate(reached)
        if not count
    ]
    faults += [
        Fault(f"{place}.no_decay", "matches no parameter", word, f"use {NORMS}, {BIASES} or a glob. {_near(named)}")
        for word in said.no_decay
        if word not in (NORMS, BIASES) and not any(_matches(name, (word,)) for name in named)
    ]
    if faults:
        raise ConfigError(*faults)
    found = []
    for (number, without_decay), parameters in sorted(of_group.items()):
        own = {key: value for key, value in said.groups[number].items() if key != "parameters"} if number >= 0 else {}
        found.append({"params": parameters, **own, **({"weight_decay": 0.0} if without_decay else {})})
    return found


def _matches(name: str, globs: Sequence[str]) -> bool:
    return any(fnmatchcase(name, glob) for glob in globs)


def _near(named: Mapping[str, object]) -> str:
    return f"the model's begin with {', '.join(list(named)[:3])}"


def _without_decay(model: nn.Module, words: Sequence[str]) -> set[str]:
    """Names of the parameters that these words leave without weight decay."""
    found: set[str] = set()
    for prefix, module in model.named_modules():
        is_norm = kind_of(module).norm or "Norm" in type(module).__name__
        for name, _ in module.named_parameters(recurse=False):
            whole = f"{prefix}.{name}" if prefix else name
            if (
                (NORMS in words and is_norm)
                or (BIASES in words and "bias" in name)
                or _matches(whole, [word for word in words if word not in (NORMS, BIASES)])
            ):
                found.add(whole)
    return found
