"""A schedule's values become a running `CompressionScheduler`; every fault is reported at once.

The constructor is the schema: arguments are bound to the class's signature, values are checked by its ``__init__``.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TypeVar

import torch
from torch import nn
from torch.nn.parameter import is_lazy
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from raydistill.compression import lr_schedulers, pruners, quantizers, regularizers
from raydistill.compression.adjacency import Adjacency
from raydistill.compression.calibration.stages import Batches
from raydistill.compression.masks import MaskSet
from raydistill.compression.names import ParameterNames, names_of
from raydistill.compression.policies import (
    LRPolicy,
    Policy,
    PostTrainingControls,
    PostTrainingPolicy,
    PruningControls,
    PruningPolicy,
    QuantizationPolicy,
    RegularizationControls,
    RegularizationPolicy,
)
from raydistill.compression.policies.extension import Extension
from raydistill.compression.policies.one_shot import OneShotPolicy, Together
from raydistill.compression.quantizers.kept_statistics import KeptStatistics
from raydistill.compression.quantizers.network import Quantization, detach, quantization_of
from raydistill.compression.ranks import Ranks
from raydistill.compression.scheduler import CompressionScheduler, ScheduledPolicy
from raydistill.compression.sparsity import from_counts, weights
from raydistill.compression.structure import Change, Quantized
from raydistill.errors import ABSENT, ConfigError, Fault
from raydistill.resolve import argument_faults, resolve_class, takes
from raydistill.schedule import (
    KINDS,
    NARROWED,
    NARROWING,
    WEIGHTS,
    InstanceSpec,
    PolicySpec,
    ScheduleSpec,
    named_instance,
)

T = TypeVar("T")
_EXTENSIONS = {
    name: f"raydistill.compression.thinning:{name}" for name in ("FilterRemover", "ChannelRemover", "StructureRemover")
} | {"LowRankRecovery": "raydistill.compression.low_rank:LowRankRecovery"}
MENUS: dict[str, tuple[str, Mapping[str, object]]] = {
    "pruners": ("pruner class", pruners.MENU),
    "regularizers": ("regularizer class", regularizers.MENU),
    "quantizers": ("quantizer class", quantizers.MENU),
    "lr_schedulers": ("LR scheduler class", lr_schedulers.MENU),
    "extensions": ("extension class", _EXTENSIONS),
}
_BASES: dict[str, type[object]] = {
    "pruners": pruners.Pruner,
    "regularizers": regularizers.Regularizer,
    "quantizers": quantizers.Quantizer,
    "lr_schedulers": LRScheduler,
    "extensions": Extension,
}


def build(
    spec: ScheduleSpec,
    model: nn.Module,
    optimizer: Optimizer,
    example_input: Sequence[object] | None = None,
    strict: bool = True,
    ranks: Ranks | None = None,
    calibration: Batches | None = None,
    kept_statistics: KeptStatistics | None = None,
) -> CompressionScheduler:
    """Build the scheduler of `model` from a schedule.

    example_input: the model's positional inputs; thinning, ``fold_batchnorm`` and ``bn_scale`` need it.
    strict: a weight that the model lacks is an error; if not, it is left out and listed in the scheduler's `warnings`,
    as Distiller's users are used to. ranks: of a model that several processes train together. calibration: gives
    batches of training data as the model is called with them; pruners that decide layer by layer need it.
    kept_statistics: where quantizers find, and leave, statistics of these batches.

    Raises:
        ConfigError: unknown classes, wrong arguments, weights that the model lacks or cannot be pruned so; one fault
            each.
    """
    return _Builder(spec, model, optimizer, example_input, strict, ranks, calibration, kept_statistics).build()


def check(
    spec: ScheduleSpec, model: nn.Module, example_input: Sequence[object] | None = None, strict: bool = True
) -> tuple[str, ...]:
    """Raise what `build` would raise, or return its warnings; needs no optimizer and leaves no trace."""
    return rehearsed(spec, model, example_input, lambda scheduler: scheduler.warnings, strict)


def planned_sparsity(
    spec: ScheduleSpec, model: nn.Module, example_input: Sequence[object] | None = None
) -> tuple[float, dict[str, float]]:
    """What the schedule is bound for: total sparsity at its end, and each pruned weight's own.

    For each weight the policy that acts last decides. A pruner that does not know its level beforehand counts as 0.
    """
    return rehearsed(spec, model, example_input, planned_of)


def rehearsed(
    spec: ScheduleSpec,
    model: nn.Module,
    example_input: Sequence[object] | None,
    read: Callable[[CompressionScheduler], T],
    strict: bool = True,
) -> T:
    """What is read from a scheduler that is built for this alone: the model is afterwards what it was.

    Raises:
        ConfigError: as `build`.
    """
    floats = quantization_of(model) is None
    try:
        return read(build(spec, model, torch.optim.SGD(model.parameters(), lr=0.1), example_input, strict))
    finally:
        if floats:
            detach(model)


def planned_of(scheduler: CompressionScheduler) -> tuple[float, dict[str, float]]:
    """`planned_sparsity` of a scheduler that is built."""
    model = scheduler.model
    named = dict(weights(model))
    planned: dict[str, tuple[int, float]] = {}
    for scheduled in scheduler.scheduled:
        last = scheduled.spec.last_epoch
        for name, fraction in scheduled.policy.fractions(named, scheduled.when(last)).items():
            if last >= planned.get(name, (-1, 0.0))[0]:
                planned[name] = (last, fraction or 0.0)
    counts = {
        name: (round(planned.get(name, (0, 0.0))[1] * weight.numel()), weight.numel()) for name, weight in named.items()
    }
    total, by_weight = from_counts(counts)
    return total, {name: by_weight[name] for name in planned if name in by_weight}


class _Builder:
    """Everything one `build` needs at hand; faults and warnings are gathered on the way."""

    def __init__(
        self,
        spec: ScheduleSpec,
        model: nn.Module,
        optimizer: Optimizer,
        example_input: Sequence[object] | None,
        strict: bool,
        ranks: Ranks | None = None,
        calibration: Batches | None = None,
        kept_statistics: KeptStatistics | None = None,
    ) -> None:
        self.kept_statistics = kept_statistics
        self.spec, self.model, self.optimizer = spec, model, optimizer
        self.example_input, self.strict = example_input, strict
        self.faults: list[Fault] = []
        self.warnings: list[str] = list(spec.warnings)
        self.masks = MaskSet(model, ranks)
        self.together = Together(model, self.masks, calibration)
        self.known = dict(model.named_parameters())
        self.names = [name for name, parameter in self.known.items() if not is_lazy(parameter) and parameter.dim() >= 2]
        self.adjacency = Adjacency(model, example_input)  # one for all policies
        self.spelling = ParameterNames(model)
        self.offered = names_of(model)
        self.changes: list[Change] = []

    def build(self) -> CompressionScheduler:
        lazy = [name for name, parameter in self.known.items() if is_lazy(parameter)]
        if lazy:
            rule = "has lazy layers, whose shapes are not known yet"
            raise ConfigError(Fault("model", rule, lazy[0], "run it once on an input before the scheduler is built"))
        objects = {(instance.section, instance.name): self._instance(instance) for instance in self.spec.instances}
        policies = []
        for policy in self.spec.policies:
            section = self.spec.instance(policy.kind, policy.instance_name).section
            target = objects.get((section, policy.instance_name))
            if target is None:
                continue
            try:
                built = self._policy(policy, target)
            except ConfigError as error:
                self._add(f"{self.spec.source}: {policy.path}.{policy.kind}", error)
                continue
            if built is not None:
                policies.append(ScheduledPolicy(built, policy))
        if self.faults:
            if self.changes:
                detach(self.model)
            raise ConfigError(*self.faults)
        scheduler = CompressionScheduler(self.model, policies, self.masks, tuple(self.warnings))
        scheduler.structure = tuple(self.changes)
        return scheduler

    def _instance(self, instance: InstanceSpec) -> object:
        where = f"{self.spec.source}: {instance.path}"
        what, menu = MENUS[instance.section]
        try:
            cls = resolve_class(instance.class_name, menu, _BASES[instance.section], f"{where}.class", what)
        except ConfigError as error:
            self.faults.extend(fault for fault in error.faults if isinstance(fault, Fault))
            return None
        args = self._named(instance.section, instance.args, where)
        if args is None:
            return None
        if issubclass(cls, LRScheduler):
            return self._lr_scheduler(cls, instance, args, where)
        if WEIGHTS in args and WEIGHTS not in instance.args and not takes(cls, WEIGHTS):
            said = next(key for key in NARROWING if key in instance.args)
            rule = f"narrows what the arguments of {instance.class_name} name, and they name no weights"
            self.faults.append(Fault(f"{where}.{said}", rule, instance.args[said], "as in {'*': ...} for all of them"))
            return None
        beside = NARROWING if instance.section in NARROWED else ()
        built = _construct(cls, (instance.name,), args, where, self.faults, beside)
        if isinstance(built, quantizers.PostTrainLinearQuantizer):
            return built
        if isinstance(built, quantizers.Quantizer):
            return self._quantized(built, instance, where)
        if isinstance(built, (pruners.Pruner, regularizers.Regularizer)):
            try:
                built.bind(self.model, self.example_input)
            except ConfigError as error:
                self._add(where, error)
                return None
            at = f"{where}.{_weights_argument(instance.args)}"
            self._check_weights(built, at)
            if isinstance(built, pruners.Pruner) and not self.faults:
                present = {name: self.known[name] for name in built.weights if name in self.known}
                for name, rule in built.faults_together(present):
                    self.faults.append(Fault(at, rule, name, "couple weights of equal size"))
        return built

    def _named(self, section: str, said: Mapping[str, object], where: str) -> dict[str, object] | None:
        """The arguments in the model's own names; None where a pattern in them is at fault. A number names nothing."""
        numbers = {key: value for key, value in said.items() if isinstance(value, int | float) and key not in NARROWING}
        names = {key: value for key, value in said.items() if key not in numbers}
        try:
            named = named_instance(section, self.spelling.within(copy.deepcopy(names)), self.offered, where)
        except ConfigError as error:
            self.faults.extend(fault for fault in error.faults if isinstance(fault, Fault))
            return None
        return {**numbers, **named}

    def _quantized(self, quantizer: quantizers.Quantizer, instance: InstanceSpec, where: str) -> Quantization | None:
        """The network, quantized, if a policy wants it. What it learns goes to the optimizer."""
        if not any(p.kind == "quantizer" and p.instance_name == instance.name for p in self.spec.policies):
            return None
        try:
            plan = quantizer.plan(self.model, self.example_input)
            idle = quantizer.idle_overrides(self.model, self.example_input)
            held = plan.carry_out(self.model, where)
        except ConfigError as error:
            self._add(where, error)
            return None
        self.changes.append(Quantized(plan))
        self._say_idle(idle, where)
        learned = list(held.learned())
        if learned:
            self.optimizer.add_param_group({"params": learned, **quantizer.optimizer_settings()})
        return held

    def _say_idle(self, overrides: Sequence[Fault], where: str) -> None:
        for fault in overrides:
            placed = Fault(f"{where}.{fault.where}", fault.rule, fault.value, fault.way_out)
            if self.strict:
                self.faults.append(placed)
            else:
                self.warnings.append(str(placed))

    def _lr_scheduler(
        self, cls: Callable[..., LRScheduler], instance: InstanceSpec, args: dict[str, object], where: str
    ) -> LRScheduler | None:
        before = len(self.faults)
        self.faults += lr_schedulers.argument_faults(cls, args, where)
        if len(self.faults) > before:
            return None
        epochs = sorted(
            epoch
            for policy in self.spec.policies
            if policy.kind == "lr_scheduler" and policy.instance_name == instance.name
            for epoch in policy.active_epochs()
        )

        def stepped(optimizer: Optimizer, **arguments: object) -> LRScheduler:
            wrong = lr_schedulers.rehearse(cls, arguments, optimizer, epochs)
            if wrong:
                raise ConfigError(wrong)
            return cls(optimizer, **arguments)

        stepped.__signature__ = inspect.signature(cls)  # type: ignore[attr-defined]
        return _construct(stepped, (self.optimizer,), args, where, self.faults)

    def _check_weights(self, built: pruners.Pruner | regularizers.Regularizer, where: str) -> None:
        """where: the argument that names its weights."""
        for index, name in enumerate(built.weights):
            if name not in self.known:
                leads = index == 0 and getattr(built, "leader", False)
                way_out = self.spelling.way_out(name)
                fault = Fault(where, "the model has no such weight", name, way_out)
                if self.strict or leads:
                    self.faults.append(fault)
                else:
                    self.warnings.append(str(fault))
                continue
            weight = self.known[name]
            reason = "the weight is empty" if weight.numel() == 0 else built.fault_of(name, weight)
            if reason:
                self.faults.append(Fault(where, reason, name))

    def _policy(self, policy: PolicySpec, target: object) -> Policy | None:
        where = f"{self.spec.source}: {policy.path}.{policy.kind}.args"
        last = policy.last_epoch
        if isinstance(target, pruners.Pruner):
            args = self._named(KINDS[policy.kind], policy.args, where)
            if args is None:
                return None
            controls = _construct(PruningControls, (), args, where, self.faults)
            if controls is None:
                return None
            if controls.levels is not None:
                target = self._with_levels(target, controls.levels, where)
            names = [name for name in target.select(self.names) if name in self.known]
            if isinstance(target, pruners.OneShotPruner):
                return OneShotPolicy(target, self.model, names, policy.active_epochs(), controls, self.together)
            return PruningPolicy(target, self.model, self.masks, names, last, controls, self.optimizer, self.adjacency)
        if isinstance(target, regularizers.Regularizer):
            held = _construct(RegularizationControls, (), dict(policy.args), where, self.faults)
            names = [name for name in target.weights if name in self.known]
            return None if held is None else RegularizationPolicy(target, self.masks, names, last, held)
        if isinstance(target, quantizers.PostTrainLinearQuantizer):
            said = _construct(PostTrainingControls, (), dict(policy.args), where, self.faults)
            return None if said is None else self._rounded_at_the_end(target, said, policy)
        for key in policy.args:
            self.faults.append(Fault(f"{where}.{key}", "unknown argument", ABSENT))
        if isinstance(target, Quantization):
            return QuantizationPolicy(target)
        if isinstance(target, Extension):
            target.bind(self.model, self.optimizer, self.masks, self.example_input)
            return target
        assert isinstance(target, LRScheduler)
        return LRPolicy(target)

    def _rounded_at_the_end(
        self, quantizer: quantizers.PostTrainLinearQuantizer, controls: PostTrainingControls, policy: PolicySpec
    ) -> Policy | None:
        if policy.count > 1:
            rule = f"{type(quantizer).__name__} rounds a network once, when it is trained"
            at = f"{self.spec.source}: {policy.path}"
            self.faults.append(Fault(at, rule, f"{policy.count} epochs", "name the last one, as in epochs: [59]"))
            return None
        self._say_idle(
            quantizer.idle_overrides(self.model, self.example_input),
            f"{self.spec.source}: {self.spec.instance('quantizer', quantizer.name).path}",
        )
        return PostTrainingPolicy(
            quantizer, self.model, self.masks, self.example_input, self.together.calibration, controls,
            self.kept_statistics,
        )  # fmt: skip

    def _with_levels(self, pruner: pruners.Pruner, levels: Mapping[str, float], where: str) -> pruners.Pruner:
        replaced = pruner.with_levels(levels)
        self._check_weights(replaced, f"{where}.levels")
        return replaced

    def _add(self, where: str, error: ConfigError) -> None:
        for fault in error.faults:
            if isinstance(fault, Fault):
                self.faults.append(Fault(f"{where}.{fault.where}", fault.rule, fault.value, fault.way_out))
            else:
                self.faults.append(Fault(where, fault))


def _weights_argument(said: Iterable[str]) -> str:
    """That of the arguments which names the weights."""
    naming = (WEIGHTS, "levels", "thresholds", "sensitivities", "reg_regims")
    return next((key for key in naming if key in said), WEIGHTS)


def _construct(
    cls: Callable[..., T],
    given: tuple[object, ...],
    args: dict[str, object],
    where: str,
    faults: list[Fault],
    beside: Sequence[str] = (),
) -> T | None:
    """Call a class with arguments from a file; what it does not accept becomes faults, and None is returned."""
    wrong = argument_faults(cls, args, where, len(given), beside=beside)
    if wrong:
        faults += wrong
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
