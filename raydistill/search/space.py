"""A search space: which values of a schedule or of training are drawn, by key path, and for which weights.

The ``search`` section maps key paths (``pruners.conv1_pruner.final_sparsity``, ``policies[0].frequency``,
``training.lr``) to distributions. Its key ``per_layer`` is a shorthand: arguments drawn for each matching weight.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from raydistill.errors import ConfigError, Fault, close_match
from raydistill.records import Scalar
from raydistill.search.distributions import Distribution, is_distribution_name, parse_distribution

PER_LAYER = "per_layer"
_TARGETS = {"weights": "['conv*.weight', 'fc1.weight']", "types": "[Conv2d]", "except": "['*.downsample.*']"}
"""What says which weights, with an example of each."""
_PART = re.compile(r"[^.\[\]\s]+(\[\d+\])*")


@dataclass(frozen=True)
class Dimension:
    """One drawn value. weight, argument: set for one that came from ``per_layer`` (weight names contain dots)."""

    path: str
    distribution: Distribution
    weight: str | None = None
    argument: str | None = None


@dataclass(frozen=True)
class PerLayer:
    """``per_layer`` as written: arguments to draw for every weight that it means, by names and patterns, by types of
    layers and by what is excepted. where: for errors."""

    weights: tuple[str, ...] | None
    arguments: Mapping[str, Distribution]
    where: str = PER_LAYER
    types: tuple[str, ...] = ()
    excluded: tuple[str, ...] = ()


@dataclass(frozen=True)
class SearchSpace:
    """All that is drawn for a trial, in the file's order."""

    dimensions: tuple[Dimension, ...]

    def __post_init__(self) -> None:
        paths = [dimension.path for dimension in self.dimensions]
        repeated = sorted({path for path in paths if paths.count(path) > 1})
        if repeated:
            raise ConfigError(*(Fault(path, "is searched twice", way_out="keep one of the two") for path in repeated))

    def sample(self, rng: np.random.Generator) -> dict[str, Scalar]:
        """Draw every dimension once: {path: value}, builtins only."""
        return {dimension.path: dimension.distribution.sample(rng) for dimension in self.dimensions}

    def sample_trial(self, seed: int, i: int) -> dict[str, Scalar]:
        """The values of trial `i`: they depend on (seed, i) alone, so a resumed sweep draws the same ones."""
        return self.sample(np.random.default_rng(np.random.SeedSequence(entropy=seed, spawn_key=(i,))))

    def from_unit(self, units: Sequence[float] | np.ndarray) -> dict[str, Scalar]:
        """Values from a point of the unit cube, one coordinate a dimension."""
        return {d.path: d.distribution.from_unit(float(u)) for d, u in zip(self.dimensions, units, strict=True)}

    def to_unit(self, values: Mapping[str, Scalar]) -> np.ndarray:
        """(dimensions,) float64 in [0, 1]."""
        return np.array([d.distribution.to_unit(values[d.path]) for d in self.dimensions])

    def ends(self) -> tuple[dict[str, Scalar], dict[str, Scalar]]:
        """Every dimension at its lowest value, and every one at its highest."""
        lowest, highest = ({d.path: d.distribution.ends[side] for d in self.dimensions} for side in (0, 1))
        return lowest, highest

    def __len__(self) -> int:
        return len(self.dimensions)


def parse_space(mapping: object, where: str) -> tuple[tuple[Dimension, ...], tuple[PerLayer, ...]]:
    """Read the ``search`` section. where: its file and key path.

    Raises:
        ConfigError: with the faults of all entries together.
    """
    if not isinstance(mapping, Mapping) or not mapping:
        way_out = "as in {training.lr: {loguniform: [0.01, 0.2]}}"
        raise ConfigError(Fault(where, "must map at least one key path to a distribution", mapping, way_out))
    faults: list[Fault | str] = []
    dimensions: list[Dimension] = []
    per_layer: list[PerLayer] = []
    for key, node in mapping.items():
        try:
            if key == PER_LAYER:
                per_layer.extend(_parse_per_layer(node, f"{where}.{key}"))
            else:
                _check_path(key, where)
                dimensions.append(Dimension(key, parse_distribution(node, f"{where}.{key}")))
        except ConfigError as error:
            faults.extend(error.faults)
    if faults:
        raise ConfigError(*faults)
    return tuple(dimensions), tuple(per_layer)


def expand(
    per_layer: Sequence[PerLayer], weight_names: Sequence[str], meant: Callable[[PerLayer], Sequence[str]]
) -> list[Dimension]:
    """One dimension for each weight and argument, with path ``per_layer.<weight>.<argument>``.

    A later entry replaces an earlier one for the same weight and argument. Order: the model's weights, then arguments.
    meant: the weights that an entry stands for, which are among `weight_names`.

    Raises:
        ConfigError: as `meant`, for all entries.
    """
    faults: list[Fault | str] = []
    chosen: dict[str, dict[str, Distribution]] = {name: {} for name in weight_names}
    for entry in per_layer:
        try:
            for name in meant(entry):
                chosen[name].update(entry.arguments)
        except ConfigError as error:
            faults += error.faults
    if faults:
        raise ConfigError(*faults)
    return [
        Dimension(f"{PER_LAYER}.{weight}.{argument}", distribution, weight, argument)
        for weight, arguments in chosen.items()
        for argument, distribution in arguments.items()
    ]


def _check_path(key: object, where: str) -> None:
    if not isinstance(key, str):
        raise ConfigError(Fault(where, "a key path is a string", key, "as in training.lr"))
    if is_distribution_name(key):
        rule, way_out = "a distribution stands where a key path is expected", f"write <key path>: {{{key}: ...}}"
        raise ConfigError(Fault(f"{where}.{key}", rule, way_out=way_out))
    parts = key.split(".")
    if len(parts) < 2:
        way_out = close_match(key, [PER_LAYER])
        if not way_out.startswith("did"):
            way_out = "as in training.lr, pruners.<name>.final_sparsity or per_layer"
        raise ConfigError(Fault(f"{where}.{key}", "a key path names a section and a value in it", key, way_out))
    if not all(_PART.fullmatch(part) for part in parts):
        way_out = "join names by dots, as in policies[0].frequency"
        raise ConfigError(Fault(f"{where}.{key}", "malformed key path", key, way_out))


def _parse_per_layer(node: object, where: str) -> list[PerLayer]:
    if isinstance(node, Mapping):
        return [_parse_entry(node, where)]
    if not isinstance(node, list) or not node:
        way_out = "as in {weights: ['*'], final_sparsity: {uniform: [0.1, 0.9]}}"
        raise ConfigError(Fault(where, "must be a mapping or a list of mappings", node, way_out))
    faults: list[Fault | str] = []
    entries = []
    for i, entry in enumerate(node):
        try:
            entries.append(_parse_entry(entry, f"{where}[{i}]"))
        except ConfigError as error:
            faults.extend(error.faults)
    if faults:
        raise ConfigError(*faults)
    return entries


def _parse_entry(node: object, where: str) -> PerLayer:
    if not isinstance(node, Mapping):
        raise ConfigError(Fault(where, "must be a mapping", node, "as in {final_sparsity: {uniform: [0.1, 0.9]}}"))
    faults: list[Fault | str] = []
    said: dict[str, tuple[str, ...]] = {}
    for key, example in _TARGETS.items():
        value = node.get(key, [])
        entries = [value] if isinstance(value, str) else value
        wrong = not isinstance(entries, list) or not all(isinstance(entry, str) and entry for entry in entries)
        if wrong or (key in node and not entries):
            faults.append(Fault(f"{where}.{key}", "must be a list of names", value, f"as in {example}"))
        elif entries:
            said[key] = tuple(entries)
    arguments: dict[str, Distribution] = {}
    for name, distribution in node.items():
        if name in _TARGETS:
            continue
        if not isinstance(name, str) or not name.isidentifier():
            faults.append(Fault(where, "an argument is named by an identifier", name, "as in final_sparsity"))
            continue
        if is_distribution_name(name):
            rule, way_out = "a distribution stands where an argument is expected", f"write <argument>: {{{name}: ...}}"
            faults.append(Fault(f"{where}.{name}", rule, way_out=way_out))
            continue
        try:
            arguments[name] = parse_distribution(distribution, f"{where}.{name}")
        except ConfigError as error:
            faults.extend(error.faults)
    if not arguments and not faults:
        way_out = "as in final_sparsity: {uniform: [0.1, 0.9]}"
        faults.append(Fault(where, "names no argument to draw", way_out=way_out))
    if faults:
        raise ConfigError(*faults)
    return PerLayer(said.get("weights"), arguments, where, said.get("types", ()), said.get("except", ()))
