"""Distributions that a search space draws from, and their YAML form: ``{uniform: [0.1, 0.9]}``.

Draws are builtins (bool, int, float, str), never numpy scalars: they go into JSON, YAML and schedules as they are.

Every distribution is also a map of [0, 1] onto its values, `from_unit`, with equal shares for equal chances; `to_unit`
gives the middle of a value's share back. Searchers that mutate or fill space work there. `ends` are its lowest and its
highest value; of words, the first and the last.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal

import numpy as np

from raydistill.errors import ABSENT, ConfigError, Fault, close_match
from raydistill.records import Scalar


@dataclass(frozen=True)
class Uniform:
    """A float in [low, high), every value as likely."""

    low: float
    high: float

    @property
    def ends(self) -> tuple[Scalar, Scalar]:
        return self.low, self.high

    def sample(self, rng: np.random.Generator) -> Scalar:
        return float(rng.uniform(self.low, self.high))

    def contains(self, value: object) -> bool:
        return _is_number(value) and self.low <= value <= self.high  # type: ignore[operator]

    def from_unit(self, u: float) -> Scalar:
        return min(max(float(self.low + u * (self.high - self.low)), float(self.low)), float(self.high))

    def to_unit(self, value: Scalar) -> float:
        return _clipped((float(value) - self.low) / (self.high - self.low))

    def describe(self) -> str:
        return f"uniform({self.low:g}, {self.high:g})"


@dataclass(frozen=True)
class LogUniform:
    """A float in [low, high), every order of magnitude as likely; low > 0."""

    low: float
    high: float

    @property
    def ends(self) -> tuple[Scalar, Scalar]:
        return self.low, self.high

    def sample(self, rng: np.random.Generator) -> Scalar:
        drawn = math.exp(float(rng.uniform(math.log(self.low), math.log(self.high))))
        return min(max(drawn, float(self.low)), float(self.high))  # exp(log(x)) may miss x by one bit

    def contains(self, value: object) -> bool:
        return _is_number(value) and self.low <= value <= self.high  # type: ignore[operator]

    def from_unit(self, u: float) -> Scalar:
        drawn = math.exp(math.log(self.low) + u * (math.log(self.high) - math.log(self.low)))
        return min(max(drawn, float(self.low)), float(self.high))

    def to_unit(self, value: Scalar) -> float:
        position = math.log(max(float(value), self.low)) - math.log(self.low)
        return _clipped(position / (math.log(self.high) - math.log(self.low)))

    def describe(self) -> str:
        return f"loguniform({self.low:g}, {self.high:g})"


@dataclass(frozen=True)
class QUniform:
    """A multiple of q in [low, high], every one as likely (rounding a uniform draw would halve the ends' chance).

    Whole q gives ints, so that ``{quniform: [32, 256, 32]}`` serves a batch size.
    """

    low: float
    high: float
    q: float

    @property
    def steps(self) -> tuple[int, int]:
        """The first and last k with low <= k * q <= high, in decimal: 0.3 is three times 0.1 here."""
        low, high, q = (Decimal(repr(number)) for number in (self.low, self.high, self.q))
        return math.ceil(low / q), math.floor(high / q)

    @property
    def ends(self) -> tuple[Scalar, Scalar]:
        first, last = self.steps
        return self.value(first), self.value(last)

    def sample(self, rng: np.random.Generator) -> Scalar:
        first, last = self.steps
        return self.value(int(rng.integers(first, last, endpoint=True)))

    def contains(self, value: object) -> bool:
        if not _is_number(value):
            return False
        first, last = self.steps
        k = round(float(value) / self.q)  # type: ignore[arg-type]
        return first <= k <= last and math.isclose(self.value(k), float(value), abs_tol=1e-12)  # type: ignore[arg-type]

    def from_unit(self, u: float) -> Scalar:
        first, last = self.steps
        return self.value(first + _share(u, last - first + 1))

    def to_unit(self, value: Scalar) -> float:
        first, last = self.steps
        return _clipped((round(float(value) / self.q) - first + 0.5) / (last - first + 1))

    def describe(self) -> str:
        return f"quniform({self.low:g}, {self.high:g}, q={self.q:g})"

    def value(self, k: int) -> int | float:
        """k times q, exact in decimal."""
        product = Decimal(repr(self.q)) * k
        return int(product) if isinstance(self.q, int) else float(product)


@dataclass(frozen=True)
class RandInt:
    """A whole number in [low, high): high itself is never drawn, as in numpy and Ray."""

    low: int
    high: int

    @property
    def ends(self) -> tuple[Scalar, Scalar]:
        return self.low, self.high - 1

    def sample(self, rng: np.random.Generator) -> Scalar:
        return int(rng.integers(self.low, self.high))

    def contains(self, value: object) -> bool:
        return isinstance(value, int) and not isinstance(value, bool) and self.low <= value < self.high

    def from_unit(self, u: float) -> Scalar:
        return self.low + _share(u, self.high - self.low)

    def to_unit(self, value: Scalar) -> float:
        return _clipped((int(value) - self.low + 0.5) / (self.high - self.low))

    def describe(self) -> str:
        return f"randint({self.low}, {self.high})"


@dataclass(frozen=True)
class Choice:
    """One of the options, every one as likely."""

    options: tuple[Scalar, ...]

    @property
    def ends(self) -> tuple[Scalar, Scalar]:
        if any(isinstance(option, str) for option in self.options):
            return self.options[0], self.options[-1]
        return min(self.options), max(self.options)  # type: ignore[type-var]

    def sample(self, rng: np.random.Generator) -> Scalar:
        return self.options[int(rng.integers(len(self.options)))]

    def contains(self, value: object) -> bool:
        return any(_same(option, value) for option in self.options)

    def from_unit(self, u: float) -> Scalar:
        return self.options[_share(u, len(self.options))]

    def to_unit(self, value: Scalar) -> float:
        place = next((i for i, option in enumerate(self.options) if _same(option, value)), len(self.options) // 2)
        return (place + 0.5) / len(self.options)

    def describe(self) -> str:
        return f"choice({', '.join(str(option) for option in self.options)})"


Distribution = Uniform | LogUniform | QUniform | RandInt | Choice


def parse_distribution(node: object, where: str) -> Distribution:
    """Read one distribution's YAML form.

    Raises:
        ConfigError: with every fault of this distribution.
    """
    if not isinstance(node, Mapping):
        options = f"{{choice: {list(node)}}}" if isinstance(node, list) and node else "{uniform: [low, high]}"
        rule = "a distribution is a mapping of its name to its bounds"
        raise ConfigError(Fault(where, rule, node, f"as in {options}"))
    if len(node) != 1:
        found = ", ".join(str(key) for key in node) or "{}"
        rule = "exactly one distribution must be named here"
        raise ConfigError(Fault(where, rule, found, f"use one of: {', '.join(sorted(_PARSERS))}"))
    ((name, arguments),) = node.items()
    if name not in _PARSERS:
        raise ConfigError(Fault(where, "unknown distribution", name, close_match(name, _PARSERS)))
    return _PARSERS[name](arguments, f"{where}.{name}")


def _parse_uniform(node: object, where: str) -> Distribution:
    low, high = _bounds(node, where, ("low", "high"))
    return Uniform(low, high)


def _parse_loguniform(node: object, where: str) -> Distribution:
    low, high = _bounds(node, where, ("low", "high"))
    if low <= 0:
        raise ConfigError(Fault(where, "low must be above 0 for a logarithm", low, "raise it, or use uniform"))
    return LogUniform(low, high)


def _parse_quniform(node: object, where: str) -> Distribution:
    low, high, q = _bounds(node, where, ("low", "high", "q"))
    if q <= 0:
        raise ConfigError(Fault(where, "q must be above 0", q, "give the step between two values"))
    drawn = QUniform(low, high, q)
    first, last = drawn.steps
    if first > last:
        raise ConfigError(Fault(where, f"no multiple of q lies in [{low}, {high}]", q, "widen the bounds or lower q"))
    if max(abs(first), abs(last)) >= 2**62:
        raise ConfigError(Fault(where, "too many multiples of q lie between the bounds", q, "raise q, or use uniform"))
    return drawn


def _parse_randint(node: object, where: str) -> Distribution:
    low, high = _bounds(node, where, ("low", "high"))
    if not (isinstance(low, int) and isinstance(high, int)):
        raise ConfigError(Fault(where, "bounds must be whole numbers", node, "drop the fraction, or use uniform"))
    if max(abs(low), abs(high)) >= 2**63:
        raise ConfigError(Fault(where, "bounds must fit 64 bits", node, "narrow them"))
    return RandInt(low, high)


def _parse_choice(node: object, where: str) -> Distribution:
    if not isinstance(node, list | tuple):
        raise ConfigError(Fault(where, "choice takes a list of options", node, "as in {choice: [1, 2, 4]}"))
    if not node:
        raise ConfigError(Fault(where, "choice needs at least one option", list(node), "as in {choice: [1, 2, 4]}"))
    faults = []
    for i, option in enumerate(node):
        at = f"{where}[{i}]"
        if not isinstance(option, bool | int | float | str):
            faults.append(Fault(at, "an option is a number, a string, true or false", option, "give a single value"))
        elif isinstance(option, float) and not math.isfinite(option):
            faults.append(Fault(at, "an option must be finite", option, "give a number"))
        elif isinstance(option, str) and looks_like_number(option):
            faults.append(text_number(at, option))
    if faults:
        raise ConfigError(*faults)
    return Choice(tuple(node))


_PARSERS: dict[str, Callable[[object, str], Distribution]] = {
    "uniform": _parse_uniform,
    "loguniform": _parse_loguniform,
    "quniform": _parse_quniform,
    "randint": _parse_randint,
    "choice": _parse_choice,
}


def is_distribution_name(name: object) -> bool:
    """Whether `name` is, or is nearly, a distribution's: used to tell a misplaced one from a key path."""
    if not isinstance(name, str) or "." in name:
        return False
    return bool(difflib.get_close_matches(name, _PARSERS, n=1, cutoff=0.8))


def _bounds(node: object, where: str, names: tuple[str, ...]) -> list:
    """The numbers of `node`, one for each of `names`, finite and with low < high."""
    form = f"[{', '.join(names)}]"
    if not isinstance(node, list | tuple):
        raise ConfigError(Fault(where, f"must be a list {form}", node, f"write {form}"))
    if len(node) != len(names):
        raise ConfigError(Fault(where, f"takes {len(names)} numbers {form}", node, f"{len(node)} given"))
    faults = []
    for name, number in zip(names, node, strict=True):
        if isinstance(number, str) and looks_like_number(number):
            faults.append(text_number(where, number))
        elif not _is_number(number):
            shown = ABSENT if number is None else number
            faults.append(Fault(where, f"{name} must be a number", shown, f"write {form}"))
        elif not math.isfinite(number):
            faults.append(Fault(where, f"{name} must be finite", number, "give a bound"))
    if not faults and node[0] >= node[1]:
        way_out = "swap them" if node[0] > node[1] else "widen them, or drop it and write the value itself"
        faults.append(Fault(where, "low must be below high", node, way_out))
    if faults:
        raise ConfigError(*faults)
    return list(node)


def _same(option: object, value: object) -> bool:
    return isinstance(value, bool) == isinstance(option, bool) and value == option


def _share(u: float, count: int) -> int:
    """Which of `count` equal shares of [0, 1] holds u."""
    return min(max(int(u * count), 0), count - 1)


def _clipped(u: float) -> float:
    return min(max(u, 0.0), 1.0)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


_EXPONENT = re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+")


def looks_like_number(text: str) -> bool:
    """Whether this text is a number in a spelling that YAML 1.1 does not know."""
    return _EXPONENT.fullmatch(text.strip()) is not None


def text_number(where: str, text: str) -> Fault:
    """YAML 1.1 reads 1e-3 as text, for want of a dot and a sign."""
    mantissa, exponent = re.split("[eE]", text.strip())
    spelt = f"{mantissa if '.' in mantissa else mantissa + '.0'}e{exponent if exponent[0] in '+-' else '+' + exponent}"
    return Fault(where, "must be a number; YAML reads this spelling as text", text, f"write {spelt}")
