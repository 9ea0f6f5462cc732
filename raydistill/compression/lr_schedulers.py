"""LR schedulers by name: every class of `torch.optim.lr_scheduler`, and what Distiller's files name besides.

A schedule's file gives arguments as YAML. Where torch wants an object that YAML has no word for, it is spelt so:

- a function (`lr_lambda` of LambdaLR and MultiplicativeLR, `scale_fn` of CyclicLR): ``pkg.mod:function``, or a list of
  them, one for each parameter group;
- another scheduler (`schedulers` of SequentialLR and ChainedScheduler): a list of mappings, each with `class` and
  arguments.

All are stepped with the epoch of the run, ``step(epoch=...)``; ReduceLROnPlateau with a metric.
"""

from __future__ import annotations

import copy
import inspect
import itertools
import math
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeGuard

import torch
from torch import Tensor
from torch.optim import Optimizer, lr_scheduler
from torch.optim.lr_scheduler import LRScheduler

from raydistill.compression.rates import PolicyTime
from raydistill.errors import ABSENT, ConfigError, Fault, close_match
from raydistill.metrics import LOSS
from raydistill.resolve import resolve, resolve_class

_REHEARSED = 500


class MultiStepMultiGammaLR(LRScheduler):
    """The rate is multiplied by ``gammas[i]`` at epoch ``milestones[i]``; both lists are of one length."""

    def __init__(
        self, optimizer: Optimizer, milestones: Sequence[int], gammas: Sequence[float], last_epoch: int = -1
    ) -> None:
        for name, values in (("milestones", milestones), ("gammas", gammas)):
            if not isinstance(values, Sequence) or not all(_is_number(value) for value in values):
                raise ConfigError(Fault(name, "must be a list of numbers", values))
        if list(milestones) != sorted(milestones):
            raise ConfigError(Fault("milestones", "must ascend", milestones))
        if len(milestones) != len(gammas):
            rule = f"must be one for each of the {len(milestones)} milestones"
            raise ConfigError(Fault("gammas", rule, gammas))
        self.milestones, self.gammas = list(milestones), list(gammas)
        self._factors = [1.0]
        for gamma in gammas:
            self._factors.append(self._factors[-1] * gamma)
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float | Tensor]:
        factor = 1.0
        for milestone, gamma in zip(self.milestones, self.gammas, strict=True):
            if milestone == self.last_epoch:
                factor *= gamma
        return [group["lr"] * factor for group in self.optimizer.param_groups]

    def _get_closed_form_lr(self) -> list[float | Tensor]:
        factor = self._factors[bisect_right(self.milestones, self.last_epoch)]
        return [base * factor for base in self.base_lrs]


class PolynomialLR(lr_scheduler.PolynomialLR):
    """The first rate times ``(1 - epoch / T_max) ** power``, zero from T_max on. torch's name of T_max is total_iters.

    Distiller's formula turns negative or complex past T_max; there the rate stays zero here.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        T_max: int | None = None,  # Distiller's spelling
        power: float = 1.0,
        total_iters: int | None = None,
        last_epoch: int = -1,
    ) -> None:
        if (T_max is None) == (total_iters is None):
            value = ABSENT if T_max is None else [T_max, total_iters]
            raise ConfigError(Fault("T_max", "must be given, as T_max or as total_iters and not both", value))
        epochs = T_max if T_max is not None else total_iters
        if not _is_number(epochs) or epochs is None or epochs <= 0:
            raise ConfigError(Fault("T_max" if T_max is not None else "total_iters", "must be above 0", epochs))
        super().__init__(optimizer, total_iters=epochs, power=power, last_epoch=last_epoch)


class _OfFunction(LRScheduler):
    """What those share whose argument `function`, a function or several, a file gives by name."""

    function: str

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **_with_functions(kwargs, self.function))


class LambdaLR(_OfFunction, lr_scheduler.LambdaLR):
    """torch's, with `lr_lambda` named: ``pkg.mod:function`` of the epoch."""

    __signature__ = inspect.signature(lr_scheduler.LambdaLR)

    function = "lr_lambda"


class MultiplicativeLR(_OfFunction, lr_scheduler.MultiplicativeLR):
    """torch's, with `lr_lambda` named: ``pkg.mod:function`` of the epoch, by which the rate is multiplied."""

    __signature__ = inspect.signature(lr_scheduler.MultiplicativeLR)

    function = "lr_lambda"


class CyclicLR(_OfFunction, lr_scheduler.CyclicLR):
    """torch's, with `scale_fn` named: ``pkg.mod:function``. A step is an epoch."""

    __signature__ = inspect.signature(lr_scheduler.CyclicLR)

    function = "scale_fn"


class OneCycleLR(lr_scheduler.OneCycleLR):
    """torch's. A step is an epoch, so `total_steps` is how many epochs the cycle takes."""

    def step(self, epoch: int | None = None) -> None:
        target = self.last_epoch + 1 if epoch is None else epoch
        if target > self.total_steps:
            way_out = f"end its policy by epoch {self.total_steps}, or give more total_steps"
            raise ConfigError(Fault("OneCycleLR", "has no rate past total_steps", target, way_out))
        super().step(epoch)


class _Composed(LRScheduler):
    """What SequentialLR and ChainedScheduler share: steps to an absolute epoch, and a state of plain values."""

    _schedulers: Any

    def step(self, epoch: int | None = None) -> None:
        for _ in range(1 if epoch is None else epoch - self.last_epoch):
            self._step_once()

    def _step_once(self) -> None:
        raise NotImplementedError

    def state_dict(self) -> dict[str, object]:
        """Own values by name, those of scheduler i as ``i.name``."""
        state = {key: value for key, value in vars(self).items() if key not in ("optimizer", "_schedulers")}
        for index, scheduler in enumerate(self._schedulers):
            state.update((f"{index}.{key}", value) for key, value in scheduler.state_dict().items())
        return state

    def load_state_dict(self, state_dict: dict[str, object]) -> None:
        states: list[dict[str, object]] = [{} for _ in self._schedulers]
        for key, value in state_dict.items():
            index, dot, name = key.partition(".")
            if dot:
                states[int(index)][name] = value
            else:
                setattr(self, key, value)
        for scheduler, state in zip(self._schedulers, states, strict=True):
            scheduler.load_state_dict(state)


class SequentialLR(_Composed, lr_scheduler.SequentialLR):
    """torch's: each of `schedulers` acts from its milestone on, and counts its epochs from there."""

    def __init__(
        self, optimizer: Optimizer, schedulers: Sequence[object], milestones: list[int], last_epoch: int = -1
    ) -> None:
        built = _nested(optimizer, schedulers)
        lr_scheduler.SequentialLR.__init__(self, optimizer, built, milestones, last_epoch)

    def _step_once(self) -> None:
        lr_scheduler.SequentialLR.step(self)


class ChainedScheduler(_Composed, lr_scheduler.ChainedScheduler):
    """torch's: all of `schedulers` act at once, and their factors multiply."""

    def __init__(self, optimizer: Optimizer, schedulers: Sequence[object]) -> None:
        lr_scheduler.ChainedScheduler.__init__(self, _nested(optimizer, schedulers), optimizer)
        self.last_epoch = 0

    def _step_once(self) -> None:
        lr_scheduler.ChainedScheduler.step(self)
        self.last_epoch += 1


MENU: dict[str, Callable[..., LRScheduler]] = {
    name: cls
    for name, cls in vars(lr_scheduler).items()
    if inspect.isclass(cls) and issubclass(cls, LRScheduler) and cls is not LRScheduler and not name.startswith("_")
}
"""Every class that ``lr_schedulers`` can name; each is called with the optimizer and the file's arguments."""

MENU.update(
    (cls.__name__, cls)
    for cls in (
        ChainedScheduler,
        CyclicLR,
        LambdaLR,
        MultiplicativeLR,
        MultiStepMultiGammaLR,
        OneCycleLR,
        PolynomialLR,
        SequentialLR,
    )
)


def argument_faults(cls: Callable[..., LRScheduler], arguments: Mapping[str, object], where: str) -> list[Fault]:
    """What torch would take and stumble over at the end of some epoch; read off the annotations of its signature."""
    faults = []
    parameters = inspect.signature(cls).parameters
    for key, value in arguments.items():
        said = str(parameters[key].annotation) if key in parameters else ""
        rule = "must ascend" if key == "milestones" and not _ascends(value) else _rule_broken(value, said)
        if rule:
            faults.append(Fault(f"{where}.{key}", rule, value))
    return faults


def _rule_broken(value: object, said: str) -> str:
    """The rule that a value breaks, of a parameter whose annotation is said; empty if none."""
    if not _is_finite(value):
        return "must be finite"
    if not said or "empty" in said or value is None:
        return ""
    if isinstance(value, str) and not any(word in said for word in ("str", "Literal", "Callable")):
        return "must be a number" if any(word in said for word in ("int", "float")) else "may not be text"
    if isinstance(value, (list, tuple)) and not any(word in said for word in ("ist[", "Iterable", "Sequence")):
        return "must be one value"
    if isinstance(value, Mapping):
        return "may not be a mapping"
    if "int" in said and "float" not in said and isinstance(value, float) and not value.is_integer():
        return "must be a whole number"
    return ""


def _is_finite(value: object) -> bool:
    if isinstance(value, (list, tuple)):
        return all(_is_finite(entry) for entry in value)
    try:
        return not _is_number(value) or math.isfinite(value)
    except OverflowError:  # a whole number that no float can hold
        return False


def _ascends(values: object) -> bool:
    if not isinstance(values, (list, tuple)):
        return True  # another rule's business
    return all(_is_number(value) for value in values) and all(a <= b for a, b in itertools.pairwise(values))


LARGEST_RATE = torch.finfo(torch.float32).max
"""Above it torch's optimizers end in an overflow."""


def rehearse(
    cls: Callable[..., LRScheduler], arguments: Mapping[str, object], optimizer: Optimizer, epochs: Sequence[int]
) -> str:
    """What goes wrong where a scheduler is stepped at the end of these epochs; empty if nothing does.

    `optimizer` only lends its groups and stays as it is.
    """
    from raydistill.compression.policies.lr import LRPolicy  # it is a policy, and policies need this menu

    stand_in = object.__new__(type(optimizer))
    stand_in.__dict__.update(optimizer.__dict__)
    stand_in.param_groups = [dict(group) for group in optimizer.param_groups]
    policy = LRPolicy(cls(stand_in, **copy.deepcopy(dict(arguments))))
    for epoch in _some(epochs):
        try:
            policy.on_epoch_end(PolicyTime(epoch, 0, epoch + 1, 1), {"metric": 0.5, LOSS: 1.0})
        except ConfigError:
            raise
        except Exception as error:  # torch's and users' own classes stumble in ways of their own
            return f"fails at the end of epoch {epoch} ({type(error).__name__}: {error})"
        for group in stand_in.param_groups:
            rate = group["lr"]
            if isinstance(rate, complex) or not 0 <= rate <= LARGEST_RATE:
                return f"makes the learning rate {rate} at the end of epoch {epoch}"
    return ""


def _some(epochs: Sequence[int]) -> Sequence[int]:
    """All of them, or of very many the first and the last."""
    return epochs if len(epochs) <= 2 * _REHEARSED else (*epochs[:_REHEARSED], *epochs[-_REHEARSED:])


def _with_functions(arguments: dict[str, Any], name: str) -> dict[str, Any]:
    """The arguments with the one that is named for a function (or several) looked up."""
    if arguments.get(name) is None:
        return arguments
    return {**arguments, name: _functions(arguments[name], name)}


def _functions(named: object, argument: str) -> object:
    """The function named ``pkg.mod:function``, or a list of them; functions themselves stay as they are."""
    if isinstance(named, list):
        return [_functions(entry, f"{argument}[{index}]") for index, entry in enumerate(named)]
    if callable(named):
        return named
    if not isinstance(named, str) or ":" not in named:
        raise ConfigError(Fault(argument, "must name a function", named, "spell it 'pkg.mod:function'"))
    function = resolve(named, {}, argument, "function")
    if not callable(function):
        raise ConfigError(Fault(argument, "is not a function", named))
    return function


def _nested(optimizer: Optimizer, entries: object) -> list[LRScheduler]:
    """Schedulers from a list of ``{class: ..., arguments}``; those built already stay as they are."""
    if not isinstance(entries, Sequence) or isinstance(entries, str) or not entries:
        way_out = "list mappings with 'class' and its arguments"
        raise ConfigError(Fault("schedulers", "must be a list of schedulers", entries, way_out))
    return [_one_nested(optimizer, entry, f"schedulers[{index}]") for index, entry in enumerate(entries)]


def _one_nested(optimizer: Optimizer, entry: object, where: str) -> LRScheduler:
    if isinstance(entry, LRScheduler):
        return entry
    if not isinstance(entry, Mapping) or "class" not in entry:
        raise ConfigError(Fault(where, "must be a mapping with 'class' and its arguments", entry))
    cls = resolve_class(entry["class"], MENU, LRScheduler, f"{where}.class", "LR scheduler class")
    if cls is lr_scheduler.ReduceLROnPlateau:
        raise ConfigError(Fault(f"{where}.class", "needs a metric and cannot be nested", entry["class"]))
    arguments = {key: value for key, value in entry.items() if key != "class"}
    accepted = list(inspect.signature(cls).parameters)[1:]
    for key in arguments:
        if key not in accepted:
            raise ConfigError(Fault(f"{where}.{key}", "unknown argument", ABSENT, close_match(key, accepted)))
    try:
        return cls(optimizer, **arguments)
    except ConfigError as error:
        faults = [fault for fault in error.faults if isinstance(fault, Fault)]
        raise ConfigError(
            *(Fault(f"{where}.{fault.where}", fault.rule, fault.value, fault.way_out) for fault in faults)
        ) from error
    except (TypeError, ValueError) as error:
        raise ConfigError(Fault(where, f"{entry['class']} refuses its arguments ({error})")) from error


def _is_number(value: object) -> TypeGuard[int | float]:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
