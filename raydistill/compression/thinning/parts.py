"""What is thinned inside a layer or block, and seen by nobody outside: heads of attention, units of recurrent layers.

A part is tried on a copy before it is taken: the model's own code has to run with fewer channels, for which whole
numbers that it holds (how many heads there are) may have to go down with them, and the outputs have to stay.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from raydistill.compression.copying import copy_of
from raydistill.compression.layer_kinds import kind_of
from raydistill.compression.structure import Selection, Thinned
from raydistill.compression.thinning.inputs import Example, noise_like
from raydistill.compression.thinning.verify import difference, keeps_outputs, outputs_of

Leaving = dict[tuple[str, bool], Tensor]
"""Positions that go, sorted, by layer and whether they are columns (else rows)."""

Attributes = dict[str, dict[str, tuple[float, float]]]
"""By module, its numbers that change: before and after."""

_MOST_TRIES = 64
_MOST_TRIES_OF_SETTINGS = 32


@dataclass(frozen=True, kw_only=True)
class Part:
    """What can go of one block.

    leaving: the positions. constants: by layer, what its bias takes up. tables: parameters outside layers: the
    dimension and the positions that go. scales: parameters that are taken times a factor. numbers: of modules, those
    that are known to change, before and after.
    """

    leaving: Leaving
    constants: Mapping[str, Tensor] = field(default_factory=dict)
    tables: Mapping[str, tuple[int, Tensor]] = field(default_factory=dict)
    scales: Mapping[str, float] = field(default_factory=dict)
    numbers: Mapping[str, Mapping[str, tuple[float, float]]] = field(default_factory=dict)

    @property
    def block(self) -> str:
        """The module whose own code holds it; "" is the network."""
        return ""

    @property
    def layers(self) -> tuple[str, ...]:
        """Layers that lose something."""
        raise NotImplementedError

    def counts(self) -> Mapping[int, int]:
        """Numbers that the block's own code is likely to hold, before and after."""
        return {}

    def sizes(self) -> Mapping[int, int]:
        """Numbers that it may hold, or hold for something else."""
        return {}

    def settings(self) -> Mapping[int, int]:
        """Numbers that its own code may read from settings of the whole network."""
        return {}


@dataclass
class Taken:
    """The parts that were taken.

    reasons: by layer, why something that is zero stays. given: by layer whose output goes into a block, why nothing
    else may be coupled with it; read: the same of layers that read what comes out of one. drift: the largest change of
    an output, relative to the largest.
    """

    leaving: Leaving = field(default_factory=dict)
    constants: dict[str, Tensor] = field(default_factory=dict)
    tables: dict[str, tuple[int, Tensor]] = field(default_factory=dict)
    scales: dict[str, float] = field(default_factory=dict)
    attributes: Attributes = field(default_factory=dict)
    parts: list[Part] = field(default_factory=list)
    reasons: dict[str, str] = field(default_factory=dict)
    given: dict[str, str] = field(default_factory=dict)
    read: dict[str, str] = field(default_factory=dict)
    drift: float = 0.0

    def with_(self, parts: Sequence[Part], attributes: Attributes) -> Taken:
        leaving = dict(self.leaving)
        constants = dict(self.constants)
        for part in parts:
            for key, positions in part.leaving.items():
                leaving[key] = torch.cat([leaving[key], positions]).unique() if key in leaving else positions
            for layer, added in part.constants.items():
                constants[layer] = constants[layer] + added if layer in constants else added
        tables = {**self.tables, **{name: table for part in parts for name, table in part.tables.items()}}
        merged = {owner: dict(changes) for owner, changes in self.attributes.items()}
        for more in (*(part.numbers for part in parts), attributes):
            for owner, changes in more.items():
                merged.setdefault(owner, {}).update(changes)
        return replace(
            self,
            leaving=leaving,
            constants=constants,
            tables=tables,
            scales={**self.scales, **{name: factor for part in parts for name, factor in part.scales.items()}},
            attributes=merged,
            parts=[*self.parts, *parts],
        )

    def change(self, model: nn.Module) -> Thinned:
        made = Thinned.of(model, self.leaving)
        tables = {
            name: (dim, Selection.without(model.get_parameter(name).shape[dim], positions))
            for name, (dim, positions) in self.tables.items()
        }
        return replace(made, tables=tables, attributes={**made.attributes, **self.attributes})

    @torch.no_grad()
    def fold(self, model: nn.Module) -> None:
        """Add the constants to the biases, and scale what is to be scaled, in place."""
        for name, factor in self.scales.items():
            model.get_parameter(name).data.mul_(factor)
        for layer, added in self.constants.items():
            bias = kind_of(model.get_submodule(layer)).bias_of(model.get_submodule(layer))
            assert bias is not None  # no part has a constant without a place
            bias.data += added.to(bias.device, bias.dtype)


class Trial:
    """Tries parts on copies of one masked model, in eval mode, that is left as it is."""

    @torch.no_grad()
    def __init__(self, model: nn.Module, example: Example, without: Collection[int] = ()) -> None:
        """without: positions of outputs that may change their shape."""
        self.model, self.without = model, without
        self.noise = noise_like(example)
        self.expected = outputs_of(model, self.noise, without)

    @torch.no_grad()
    def take(self, taken: Taken, choices: Sequence[Sequence[Part]]) -> Taken | None:
        """With the first of several choices of parts that keeps the outputs; None where none does."""
        for ways, most in ((_attributes, _MOST_TRIES), (_with_settings, _MOST_TRIES_OF_SETTINGS)):
            for parts in choices:
                for attributes in itertools.islice(ways(self.model, parts), most):
                    more = taken.with_(parts, attributes)
                    drift = self._drift(more)
                    if drift is not None:
                        return replace(more, drift=drift)
        return None

    def _drift(self, taken: Taken) -> float | None:
        """How far the outputs move; None where that is more than rounding."""
        thin = copy_of(self.model)
        try:
            taken.fold(thin)
            taken.change(thin).make(thin)
            found = outputs_of(thin, self.noise, self.without)
            kept = keeps_outputs(self.model, thin, self.noise, self.expected, found, self.without)
        except Exception:  # whatever the model's own code raises where widths no longer fit each other
            return None
        return difference(self.expected, found) if kept else None


def _with_settings(model: nn.Module, parts: Sequence[Part]) -> Iterator[Attributes]:
    """The same with numbers of settings that the blocks hold, as few as will do."""
    held = list(_held(model, parts, lambda part: part.settings(), _settings_of))
    names = sorted({name for _, name, _ in held})
    for size in range(1, len(names) + 1):
        for own in _attributes(model, parts):
            for some in itertools.combinations(names, size):
                shared = _lowered(held, some)
                yield {owner: {**own.get(owner, {}), **shared.get(owner, {})} for owner in (*own, *shared)}


def _attributes(model: nn.Module, parts: Sequence[Part]) -> Iterator[Attributes]:
    """Ways to lower the numbers of the parts' blocks, the likelier first; the same names in all blocks."""
    held = list(_held(model, parts, lambda part: {**part.sizes(), **part.counts()}, numbers_of))
    counts = {name for _, name, _ in _held(model, parts, lambda part: part.counts(), numbers_of)}
    sizes = {name for _, name, _ in _held(model, parts, lambda part: part.sizes(), numbers_of)}
    seen: set[frozenset[str]] = set()
    for sure, others in ((counts, sizes), (set(), counts | sizes)):
        for size in range(len(others) + 1):
            for some in itertools.combinations(sorted(others), size):
                chosen = frozenset({*sure, *some})
                if chosen not in seen:
                    seen.add(chosen)
                    yield _lowered(held, chosen)


_Held = tuple[str, str, tuple[int, int]]
"""A module, its number's name, and what that is and would be."""


def _held(
    model: nn.Module,
    parts: Sequence[Part],
    which: Callable[[Part], Mapping[int, int]],
    read: Callable[[nn.Module], list[tuple[str, int]]],
) -> Iterator[_Held]:
    """Those numbers of the parts' blocks that would be others. which: before and after."""
    for part in parts:
        numbers = which(part)
        for owner, module in block_of(model, part.layers):
            for name, value in read(module):
                if value in numbers:
                    yield owner, name, (value, numbers[value])


def _lowered(held: Iterable[_Held], names: Collection[str]) -> Attributes:
    found: Attributes = {}
    for owner, name, values in held:
        if name in names:
            found.setdefault(owner, {})[name] = values
    return found


def numbers_of(module: nn.Module) -> list[tuple[str, int]]:
    """Whole numbers that a module holds for its own code to read, by name."""
    kind = kind_of(module)
    own = [(name, value) for name, value in vars(module).items() if type(value) is int and not name.startswith("_")]
    return own if kind.numbers is None else [(name, value) for name, value in own if name in kind.numbers]


def _settings_of(module: nn.Module) -> list[tuple[str, int]]:
    """Whole numbers of objects that a module holds for its own code to read, such as its network's config, by the names
    of both."""
    if kind_of(module).numbers is not None:
        return []
    held = [(name, value) for name, value in vars(module).items() if not name.startswith("_") and not callable(value)]
    return [
        (f"{settings}.{name}", value)
        for settings, each in held
        for name, value in getattr(each, "__dict__", {}).items()
        if type(value) is int and not name.startswith("_")
    ]


def block_of(model: nn.Module, layers: Sequence[str]) -> list[tuple[str, nn.Module]]:
    """The smallest block that holds all these layers, and what is in it."""
    paths = [layer.split(".") for layer in layers]
    common = [names[0] for names in itertools.takewhile(lambda n: len(set(n)) == 1, zip(*paths, strict=False))]
    block = ".".join(common if len(layers) > 1 else common[:-1])
    prefix = f"{block}." if block else ""
    return [(name, module) for name, module in model.named_modules() if name == block or name.startswith(prefix)]
