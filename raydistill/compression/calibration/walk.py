"""Layer by layer in the order of the forward pass: what each reads once those before it are what they will be.

Where a network has a chain of modules (see `survey`), one of them at a time runs, on what the one before gives since
its own weights were changed; every other layer costs a forward pass up to it. Of what layers read only the sums of one
step are there at a time, beside one input of the chain's present module a batch.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor, nn

from raydistill.compression.calibration.readers import Reader, readers
from raydistill.compression.calibration.stages import Batches, Enough, Link, Whole, captured
from raydistill.compression.calibration.sums import PRODUCTS, SQUARES, Sums
from raydistill.compression.calibration.survey import Looking, Step, Survey
from raydistill.compression.layer_kinds import kind_of
from raydistill.compression.quantizers.network import quantization_of
from raydistill.errors import ABSENT, ConfigError, DataError, Fault

if TYPE_CHECKING:
    from torch.utils.hooks import RemovableHandle


class _Stage(Protocol):
    def run(self, most: int | None = None) -> None: ...


@contextmanager
def calibrating(model: nn.Module) -> Iterator[None]:
    """While it lasts the network is in eval mode, without gradients and without fused kernels that skip its layers; no
    random number is used up."""
    training = [module for module in model.modules() if module.training]
    fast_path = torch.backends.mha.get_fastpath_enabled()
    model.eval()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast_path)
        for module in training:
            module.training = True


def layer_by_layer(
    model: nn.Module, kinds: Mapping[str, str], batches: Batches, device: torch.device | None = None
) -> Iterator[tuple[str, Sums]]:
    """Each of these weights with the sums of what it reads; change it before the next one is asked for.

    kinds: by the weights' names, `SQUARES` or `PRODUCTS`. batches: on the network's own device. device: where the
    chain's modules run, one at a time; None: where they are. For the caller to do: `calibrating`.

    Raises:
        ConfigError: as `readers`, and a weight's layer is not called. DataError: no data, or what a layer reads is not
            finite.
    """
    seen = surveyed(model, readers(model, kinds), batches)
    whole: _Stage = Whole(model, batches)
    alone = {id(step): seen.link_of(step) for step in seen.steps}
    before = [step for step in seen.steps if alone[id(step)] is None and (step.first < seen.starts or not seen.chain)]
    after = [step for step in seen.steps if alone[id(step)] is None and step.first >= seen.starts and seen.chain]
    for step in before:
        yield from _decided(model, whole, step, kinds)
    if seen.chain:
        inputs = captured(model, seen.chain[0], batches)
        last: list[Any] = []
        for name in seen.chain:
            module = model.get_submodule(name)
            with _on(module, device):
                link = Link(module, inputs)
                for step in (step for step in seen.steps if alone[id(step)] == name):
                    yield from _decided(model, link, step, kinds)
                last = link.outputs()
        passed = Whole(model, batches, seen.chain, last)
        if _same_read(_read_by(model, whole, after), _read_by(model, passed, after)):
            whole = passed  # nothing else than the chain's end reaches what comes behind it
    for step in after:
        yield from _decided(model, whole, step, kinds)


def all_at_once(model: nn.Module, names: Sequence[str], batches: Batches) -> tuple[dict[str, Sums], dict[str, str]]:
    """The squares of what each of these weights reads in the network as it is, from one pass; and the module of its
    chain that each lies in, or its own name where it lies in none.

    Raises:
        ConfigError, DataError: as `layer_by_layer`.
    """
    found = readers(model, names)
    seen = surveyed(model, found, batches)
    sums = {name: Sums(SQUARES) for name in names}
    with _looking(model, {reader: [sums[name]] for name, each in found.items() for reader in each}):
        Whole(model, batches).run()
    for name, own in sums.items():
        _check(name, own)
    blocks = {name: seen.link_of(step) or name for step in seen.steps for name in step.weights}
    return sums, blocks


def surveyed(model: nn.Module, found: Mapping[str, Sequence[Reader]], batches: Batches) -> Survey:
    """The first batch's pass; of layers that it does not reach, the first pass that does, behind all others.

    Raises:
        ConfigError: no pass reaches a layer. DataError: no data.
    """
    result: Survey | None = None
    missing = dict(found)
    for inputs in batches():
        looking = Looking(model)
        with looking.on():
            model(*inputs)
        seen = looking.survey(missing)
        result = seen if result is None else replace(result, steps=(*result.steps, *_behind(seen)))
        missing = {name: each for name, each in missing.items() if all(name not in s.weights for s in seen.steps)}
        if not missing or quantization_of(model) is not None:
            break
    if result is None:
        raise DataError(Fault("calibration", "needs at least one batch", 0, "use more of the data"))
    if missing:
        rule = "is of a layer that is not called in the forward pass, so that nothing is known of what it reads"
        raise ConfigError(*(Fault(name, rule, ABSENT, "leave it out, or set its level to 0") for name in missing))
    return replace(result, chain=()) if quantization_of(model) is not None else result  # it rounds as a whole


def _behind(seen: Survey) -> tuple[Step, ...]:
    return tuple(replace(step, first=sys.maxsize) for step in seen.steps)


def _decided(model: nn.Module, stage: _Stage, step: Step, kinds: Mapping[str, str]) -> Iterator[tuple[str, Sums]]:
    """The weights of a step, each with the sums of what they read."""
    sums = Sums(PRODUCTS if any(kinds[name] == PRODUCTS for name in step.weights) else SQUARES)
    with _looking(model, {reader: [sums] for reader in step.readers}, step.calls):
        stage.run()
    _check(step.weights[0], sums)
    for name in step.weights:
        yield name, sums


@contextmanager
def _looking(
    model: nn.Module, wanted: Mapping[Reader, Sequence[Sums]], calls: Mapping[str, int] | None = None
) -> Iterator[None]:
    """While it lasts what these read is added to their sums. calls: how often each module is called in a pass, which
    ends when they all have been; None: it does not."""
    by_module: dict[str, list[Reader]] = {}
    for reader in wanted:
        by_module.setdefault(reader.module, []).append(reader)
    left = _Left(calls)

    def see(path: str, module: nn.Module, arguments: Sequence[object], named: Mapping[str, object]) -> None:
        for reader in by_module[path]:
            read = kind_of(module).reads(module, reader.weight, arguments, named)
            for sums in wanted[reader]:
                sums.add(read)
        left.called(path)

    hooks: list[RemovableHandle] = []
    try:
        for path in by_module:
            module = model.get_submodule(path)
            hooks.append(module.register_forward_pre_hook(partial(see, path), with_kwargs=True))
        yield
    finally:
        for handle in hooks:
            handle.remove()


class _Left:
    """How many calls of a pass are still to come."""

    def __init__(self, calls: Mapping[str, int] | None) -> None:
        self._calls = None if calls is None else {path: count for path, count in calls.items() if count}
        self._left: dict[str, int] = dict(self._calls or {})

    def called(self, path: str) -> None:
        if self._calls is None:
            return
        self._left[path] = self._left.get(path, 0) - 1
        if all(count <= 0 for count in self._left.values()):
            self._left = dict(self._calls)
            raise Enough


def _check(name: str, sums: Sums) -> None:
    if sums.total is None:
        rule = "is of a layer that is not called in the forward pass any more"
        raise ConfigError(Fault(name, rule, ABSENT, "leave it out, or set its level to 0"))
    if not bool(sums.total.isfinite().all()):
        rule = "reads values that are not finite on the calibration data"
        raise DataError(Fault(name, rule, ABSENT, "the network or the data are damaged"))


def _read_by(model: nn.Module, stage: _Stage, steps: Sequence[Step]) -> Tensor:
    """What the layers of these steps read of the first batch, in a few numbers."""
    sums = {reader: [Sums(SQUARES)] for step in steps for reader in step.readers}
    if sums:
        with _looking(model, sums):
            stage.run(1)
    found = [one.total.flatten().cpu() for (one,) in sums.values() if one.total is not None]
    return torch.cat(found) if found else torch.zeros(0)


def _same_read(one: Tensor, other: Tensor) -> bool:
    return one.shape == other.shape and torch.allclose(one, other, rtol=1e-3, atol=1e-6)


@contextmanager
def _on(module: nn.Module, device: torch.device | None) -> Iterator[None]:
    """While it lasts the module is on this device."""
    home = next((parameter.device for parameter in module.parameters()), None)
    if device is None or home is None or home == device:
        yield
        return
    module.to(device)
    try:
        yield
    finally:
        module.to(home)
