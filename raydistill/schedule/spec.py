"""A schedule as frozen values: what a YAML file says, before any model is known.

Distiller's version 1: named instances (a class and its arguments) in five sections, and policies that say in which
epochs an instance acts. Epochs count from 0; `ending_epoch` is exclusive.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

SECTIONS = ("pruners", "regularizers", "quantizers", "lr_schedulers", "extensions")
"""Sections that hold instances, in the order they are built; the optimizer may change up to the quantizer."""

KINDS = {"pruner": "pruners", "regularizer": "regularizers", "quantizer": "quantizers",
         "lr_scheduler": "lr_schedulers", "extension": "extensions"}  # fmt: skip
"""A policy's kind and the section its instance stands in."""


@dataclass(frozen=True)
class InstanceSpec:
    """One entry of a section: ``name: {class: class_name, **args}``."""

    section: str
    name: str
    class_name: str
    args: Mapping[str, object]

    @property
    def path(self) -> str:
        return f"{self.section}.{self.name}"


@dataclass(frozen=True)
class PolicySpec:
    """One entry of ``policies``: an instance, the epochs it acts in, and arguments of the policy itself."""

    index: int
    kind: str
    instance_name: str
    args: Mapping[str, object]
    starting_epoch: int
    ending_epoch: int
    frequency: int
    epochs: tuple[int, ...] | None = None

    @property
    def path(self) -> str:
        return f"policies[{self.index}]"

    @property
    def count(self) -> int:
        """How many epochs it acts in."""
        if self.epochs is not None:
            return len(self.epochs)
        return len(range(self.starting_epoch, self.ending_epoch, self.frequency))

    @property
    def last_epoch(self) -> int:
        """The last epoch it acts in."""
        if self.epochs is not None:
            return self.epochs[-1]
        return range(self.starting_epoch, self.ending_epoch, self.frequency)[-1]

    def active_epochs(self) -> tuple[int, ...]:
        """The epochs this policy acts in, ascending."""
        if self.epochs is not None:
            return self.epochs
        return tuple(range(self.starting_epoch, self.ending_epoch, self.frequency))


@dataclass(frozen=True)
class ScheduleSpec:
    """A whole schedule. source: the file's name, for errors. mapping: the YAML as loaded; never change it.

    warnings: what was odd about the file.
    """

    source: str
    instances: tuple[InstanceSpec, ...]
    policies: tuple[PolicySpec, ...]
    mapping: Mapping[str, object]
    warnings: tuple[str, ...] = ()

    def instance(self, kind: str, name: str) -> InstanceSpec:
        for instance in self.instances:
            if instance.section == KINDS[kind] and instance.name == name:
                return instance
        raise KeyError(f"{KINDS[kind]}.{name}")

    @property
    def last_epoch(self) -> int:
        """The last epoch any policy acts in; -1 for an empty schedule."""
        return max((policy.last_epoch for policy in self.policies), default=-1)
