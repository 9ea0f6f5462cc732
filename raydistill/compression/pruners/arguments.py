"""Values that the arguments of pruners have in common, checked: each gives the value back or says what has to hold."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TypeVar

from raydistill.compression.rankings import MENU, Ranking
from raydistill.errors import ConfigError, Fault, close_match
from raydistill.resolve import resolve_object

T = TypeVar("T")


def checked_number(argument: str, value: object, low: float = -math.inf, high: float = math.inf) -> float:
    """A number an argument gives; ConfigError unless it is one in [low, high]."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise ConfigError(Fault(argument, "must be a number", value))
    if not low <= value <= high:
        if high == math.inf:
            rule = f"must be at least {low:g}"
        else:
            rule = f"must be from {low:g} to {high:g}"
        raise ConfigError(Fault(argument, rule, value))
    return float(value)


def checked_level(argument: str, value: object) -> float:
    """A sparsity level an argument gives; ConfigError unless it is a number in [0, 1)."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise ConfigError(Fault(argument, "must be a number", value, "give a fraction in [0, 1), such as 0.8"))
    if not 0.0 <= value < 1.0:
        way_out = f"did you mean {value / 100:g}?" if 1.0 < value <= 100.0 else "give a fraction in [0, 1)"
        raise ConfigError(Fault(argument, "must be a fraction in [0, 1)", value, way_out))
    return float(value)


def checked_rise(initial_sparsity: object, final_sparsity: object) -> tuple[float, float]:
    """Two levels, the second not below the first; ConfigError otherwise."""
    initial = checked_level("initial_sparsity", initial_sparsity)
    final = checked_level("final_sparsity", final_sparsity)
    if final < initial:
        rule = f"must not be below initial_sparsity {initial:g}"
        raise ConfigError(Fault("final_sparsity", rule, final, "pruning only grows: swap them or raise it"))
    return initial, final


def checked_pattern(n: object, m: object) -> tuple[int, int]:
    """n of every m, as arguments of these names give it; ConfigError unless they are whole numbers, n not above m."""
    found = []
    for argument, value in (("n", n), ("m", m)):
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ConfigError(Fault(argument, "must be a whole number from 1 up", value))
        found.append(value)
    if found[0] > found[1]:
        raise ConfigError(Fault("n", f"must not be above m, {m}", n, "n of every m weights stay"))
    return found[0], found[1]


def checked_weights(argument: str, value: object) -> tuple[str, ...]:
    """Parameter names an argument gives: a list of different names, or one name by itself; ConfigError otherwise."""
    if isinstance(value, str) and value:
        return (value,)
    if not isinstance(value, (list, tuple)) or not value or not all(isinstance(entry, str) for entry in value):
        raise ConfigError(Fault(argument, "must be a list of weight names", value, "such as [conv1.weight]"))
    twice = sorted({entry for entry in value if list(value).count(entry) > 1})
    if twice:
        raise ConfigError(Fault(argument, "names a weight twice", twice[0], "keep one"))
    return tuple(value)


def checked_mapping(argument: str, value: object, example: str) -> dict[str, object]:
    """A non-empty mapping with weight names as keys; ConfigError otherwise."""
    if not isinstance(value, Mapping) or not value or not all(isinstance(key, str) for key in value):
        raise ConfigError(Fault(argument, "must map weight names to values", value, f"such as {example}"))
    return dict(value)


def chosen(argument: str, value: object, menu: Mapping[str, T], base: type[T]) -> T:
    """What an argument names: an entry of the menu, or one's own ``pkg.mod:NAME``, an object of class `base`.

    Raises:
        ConfigError: it names neither.
    """
    if isinstance(value, str) and ":" in value:
        return resolve_object(value, {}, base, argument, argument)
    if not isinstance(value, str) or value not in menu:
        way_out = close_match(value, menu) if isinstance(value, str) else ""
        raise ConfigError(Fault(argument, f"must be one of {', '.join(menu)}", value, way_out))
    return menu[value]


def own_is_right(argument: str, value: str, fault: str) -> None:
    """ConfigError where there is a fault with one's own `value` of this argument."""
    if fault:
        raise ConfigError(Fault(argument, fault, value))


def checked_ranking(value: str) -> Ranking:
    """The ranking an argument names; ConfigError if there is none such, or one's own cannot be used."""
    ranking = chosen("ranking", value, MENU, Ranking)
    own_is_right("ranking", value, ranking.fault() if ":" in value else "")
    return ranking


def checked_leader(value: object) -> bool:
    """Whether `group_dependency` is ``Leader``; ConfigError if it is neither that nor left out."""
    if value not in (None, "Leader"):
        way_out = "Leader: the first weight decides for all"
        raise ConfigError(Fault("group_dependency", "must be Leader or left out", value, way_out))
    return value == "Leader"
