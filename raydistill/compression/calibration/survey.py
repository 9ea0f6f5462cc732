"""What one forward pass shows: in which order layers read, what reads the same, and which modules follow each other.

A *chain* is a run of modules each of which is called once, with nothing from the pass but what the one before it gave,
and with the same other arguments: the blocks of a transformer or the stages of a residual network. Each can be run by
itself, on what the one before gives.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from raydistill.compression.calibration.readers import Reader
from raydistill.compression.layer_kinds import kind_of, weighted

if TYPE_CHECKING:
    from torch.utils.hooks import RemovableHandle

Place = tuple[int, int]
"""Of the first call of a layer: its number among all calls, and among the weights of that layer."""


@dataclass(frozen=True)
class Step:
    """Weights that are decided together, from one pass: they read the same.

    readers: of the first of them, whose calls are looked at. calls: how often each is called in a pass.
    """

    weights: tuple[str, ...]
    readers: tuple[Reader, ...]
    calls: Mapping[str, int]
    first: int


@dataclass(frozen=True)
class Survey:
    """steps: in the order of the forward pass. chain: names of its modules; () where there is none. starts: the number
    of the call of the first of them."""

    steps: tuple[Step, ...]
    chain: tuple[str, ...] = ()
    starts: int = 0

    def link_of(self, step: Step) -> str | None:
        """The chain's module that a step lies in."""
        return next((link for link in self.chain if within(step.readers[0].module, link)), None)


def within(name: str, module: str) -> bool:
    return not module or name == module or name.startswith(f"{module}.")


@dataclass
class _Call:
    """One call of a module. parent: the call it happened in. arguments: its first, by reference; other ones as a value
    that is equal where they are the same. output: of its first tensor."""

    name: str
    parent: int
    read: weakref.ref[Tensor] | None
    version: int
    others: object
    gave: weakref.ref[Tensor] | None = None


class Looking:
    """Writes down the calls of a network's modules. Tensors are held by weak references: nothing is kept alive."""

    def __init__(self, model: nn.Module) -> None:
        self.calls: list[_Call] = []
        self._model = model
        self._stack: list[int] = []

    @contextmanager
    def on(self) -> Iterator[None]:
        hooks: list[RemovableHandle] = []
        try:
            for name, module in self._model.named_modules():
                hooks.append(module.register_forward_pre_hook(self._entering(name), with_kwargs=True))
                hooks.append(module.register_forward_hook(self._left))
            yield
        finally:
            for handle in hooks:
                handle.remove()

    def _entering(self, name: str) -> object:
        def enter(module: nn.Module, arguments: Sequence[object], named: Mapping[str, object]) -> None:
            first = arguments[0] if arguments else next(iter(named.values()), None)
            tensor = first if isinstance(first, Tensor) else None
            others = _alike((arguments[1:], named if arguments else dict(list(named.items())[1:])))
            parent = self._stack[-1] if self._stack else -1
            read = None if tensor is None else weakref.ref(tensor)
            self._stack.append(len(self.calls))
            self.calls.append(_Call(name, parent, read, 0 if tensor is None else tensor._version, others))

        return enter

    def _left(self, module: nn.Module, inputs: object, output: object) -> None:
        tensor = first_tensor(output)
        self.calls[self._stack.pop()].gave = None if tensor is None else weakref.ref(tensor)

    def same_input(self, one: int, other: int) -> bool:
        """Whether two calls are given the same tensor, and nobody has written to it between them."""
        first, second = self.calls[one], self.calls[other]
        if first.read is None or second.read is None or first.version != second.version:
            return False
        return first.read is second.read  # torch gives one tensor one weak reference

    def survey(self, found: Mapping[str, Sequence[Reader]]) -> Survey:
        """found: of each weight its readers; those that were not called are left out."""
        chain, starts = self._chain({reader.module for each in found.values() for reader in each})
        counts: dict[str, int] = {}
        first: dict[str, int] = {}
        for index, call in enumerate(self.calls):
            counts[call.name] = counts.get(call.name, 0) + 1
            first.setdefault(call.name, index)
        seen = {name: each for name, each in found.items() if any(reader.module in first for reader in each)}
        order = sorted(seen, key=lambda name: self._place(seen[name], first))
        steps: list[Step] = []
        for name in order:
            each = tuple(seen[name])
            at = min(first[reader.module] for reader in each if reader.module in first)
            same = next((i for i, step in enumerate(steps) if self._goes_with(step, each, at, counts, chain)), None)
            if same is None:
                calls = {reader.module: counts.get(reader.module, 0) for reader in each}
                steps.append(Step((name,), each, calls, at))
            else:
                steps[same] = replace(steps[same], weights=(*steps[same].weights, name))
        if chain and not all(_inside_one(step, chain) for step in steps):
            chain = ()  # a weight that two of its modules share
        return Survey(tuple(steps), chain, starts)

    def _place(self, each: Sequence[Reader], first: Mapping[str, int]) -> Place:
        called = [reader for reader in each if reader.module in first]
        reader = min(called, key=lambda reader: first[reader.module])
        module = self._model.get_submodule(reader.module)
        return first[reader.module], kind_of(module).multiplies(module).index(reader.weight)

    def _goes_with(
        self, step: Step, each: Sequence[Reader], at: int, counts: Mapping[str, int], chain: Sequence[str]
    ) -> bool:
        """Whether a weight's only call reads what a step's does: both multiply the same rows."""
        if len(each) > 1 or len(step.readers) > 1:
            return False
        one, other = step.readers[0], each[0]
        if any(counts[reader.module] > 1 or not self._is_plain(reader) for reader in (one, other)):
            return False
        links = {next((link for link in chain if within(reader.module, link)), "") for reader in (one, other)}
        return len(links) == 1 and self.same_input(step.first, at)

    def _is_plain(self, reader: Reader) -> bool:
        """Whether a layer's input is what its weight is multiplied by."""
        module = self._model.get_submodule(reader.module)
        kind = weighted(module)
        return kind is not None and kind.content(module).dim() == 2

    def _chain(self, wanted: set[str]) -> tuple[tuple[str, ...], int]:
        """Of all chains the one with the most modules that hold layers of `wanted`, from the first of these to the
        last, and the number of its first call; none where that is not two modules and half the layers."""
        counts: dict[str, int] = {}
        for call in self.calls:
            counts[call.name] = counts.get(call.name, 0) + 1
        runs: dict[int, list[list[int]]] = {}
        for index, call in enumerate(self.calls):
            if self._is_sequence(call.name):
                continue
            of_parent = runs.setdefault(self._parent(call), [])
            last = of_parent[-1] if of_parent else []
            if counts[call.name] > 1 or call.read is None or call.gave is None:
                of_parent.append([])
            elif last and call.read is self.calls[last[-1]].gave and call.others == self.calls[last[0]].others:
                last.append(index)
            else:
                of_parent.append([index])
        best: list[int] = []
        most = 1
        for run in (run for each in runs.values() for run in each):
            inside = [sum(within(name, self.calls[at].name) for name in wanted) for at in run]
            holding = [i for i, count in enumerate(inside) if count]
            if len(holding) > most and 2 * sum(inside) >= len(wanted):
                best, most = run[holding[0] : holding[-1] + 1], len(holding)
        return tuple(self.calls[at].name for at in best), best[0] if best else 0

    def _is_sequence(self, name: str) -> bool:
        """Whether all that a module does is to call its children one after the other."""
        return type(self._model.get_submodule(name)).forward is nn.Sequential.forward

    def _parent(self, call: _Call) -> int:
        at = call.parent
        while at >= 0 and self._is_sequence(self.calls[at].name):
            at = self.calls[at].parent
        return at


def _inside_one(step: Step, chain: Sequence[str]) -> bool:
    links = {next((link for link in chain if within(reader.module, link)), "") for reader in step.readers}
    return len(links) == 1


def first_tensor(output: object) -> Tensor | None:
    """What a module gives, or the first of what it gives, where that is a tensor."""
    if isinstance(output, (tuple, list)) and output:
        output = output[0]
    return output if isinstance(output, Tensor) else None


_PLAIN = (type(None), bool, int, float, str, torch.dtype, torch.device)


def _alike(value: object) -> object:
    """What is equal for two arguments where they are the same: tensors by reference, plain values as they are; any
    other object is the same as none."""
    if isinstance(value, Tensor):
        return weakref.ref(value)
    if isinstance(value, (tuple, list)):
        return tuple(_alike(part) for part in value)
    if isinstance(value, Mapping):
        return {key: _alike(part) for key, part in value.items()}
    return value if isinstance(value, _PLAIN) else object()
