"""Blocks that a network can do without: those that give their input as it is once all of their own weights are zero.

What a block would do is tried, not read: a copy of it, all of its parameters zero, runs on what it is given in the
network. A residual block whose sum is not normalized or scaled afterwards is such a one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from raydistill.compression.copying import copy_of
from raydistill.compression.evidence import first_states
from raydistill.compression.thinning.inputs import Example, kind, noise_like, to_device
from raydistill.compression.thinning.thin import working_copy
from raydistill.compression.thinning.verify import outputs_of

_ROUNDING = 1e-5


@dataclass(frozen=True)
class Blocks:
    """parameters: by block, in the model's order, the names of its own. refused: other residual blocks, and why.

    Blocks may lie in each other (a stage holds blocks); `innermost` are those that hold no other.
    """

    parameters: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    refused: Mapping[str, str] = field(default_factory=dict)

    @property
    def innermost(self) -> tuple[str, ...]:
        names = tuple(self.parameters)
        return tuple(name for name in names if not any(other.startswith(f"{name}.") for other in names))


@dataclass(frozen=True)
class _Call:
    inputs: tuple[Any, ...]
    named: Mapping[str, Any]
    given: Tensor
    result: Tensor
    alone: bool


@torch.no_grad()
def blocks_of(model: nn.Module, example: Example) -> Blocks:
    """All of a network, which is left as it is: members of its sequences and lists of modules.

    Raises:
        ConfigError: the model does not run on these inputs.
    """
    work = working_copy(model, {}, torch.float32)
    calls: dict[str, list[_Call]] = {}
    with torch.random.fork_rng(devices=[]), _listening(work, calls):
        outputs_of(work, noise_like(to_device(example, *kind(work))))
    owners = _owners(work)
    found: dict[str, tuple[str, ...]] = {}
    refused: dict[str, str] = {}
    for name in _members(work):
        if name not in calls:
            continue
        own = tuple(f"{name}.{parameter}" for parameter, _ in work.get_submodule(name).named_parameters())
        reason = _reason(work, name, own, calls[name], owners)
        if reason is None:
            found[name] = own
        elif reason:
            refused[name] = reason
    within = [name for name in refused if not any(other.startswith(f"{name}.") for other in found)]
    return Blocks(found, {name: refused[name] for name in within})


def _members(model: nn.Module) -> Iterator[str]:
    """Modules with parameters and parts of their own, in a sequence or a list of modules."""
    modules = dict(model.named_modules())
    for name, part in modules.items():
        inside = isinstance(modules[name.rpartition(".")[0]], (nn.Sequential, nn.ModuleList))
        if name and inside and next(part.parameters(), None) is not None and next(part.children(), None) is not None:
            yield name


def _owners(model: nn.Module) -> dict[int, set[str]]:
    """By parameter, all of its names."""
    found: dict[int, set[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        found.setdefault(id(parameter), set()).add(name)
    return found


@contextmanager
def _listening(model: nn.Module, calls: dict[str, list[_Call]]) -> Iterator[None]:
    def hear(name: str, module: nn.Module, inputs: tuple[object, ...], named: dict[str, Any], output: object) -> None:
        given = first_states((*inputs, *named.values()))
        result = first_states((output,))
        if given is not None and result is not None and given.shape == result.shape:
            rest = output[1:] if isinstance(output, tuple) else ()
            calls.setdefault(name, []).append(
                _Call(inputs, dict(named), given, result, all(entry is None for entry in rest))
            )

    handles = [
        model.get_submodule(name).register_forward_hook(partial(hear, name), with_kwargs=True)
        for name in _members(model)
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _reason(
    model: nn.Module, name: str, own: tuple[str, ...], calls: list[_Call], owners: Mapping[int, set[str]]
) -> str | None:
    """Why a block cannot go; "" where it is no residual block at all; None where it can."""
    block = copy_of(model.get_submodule(name))
    for parameter in block.parameters():
        parameter.zero_()
    call = calls[0]
    try:
        left = first_states((block(*call.inputs, **call.named),))
    except Exception:  # whatever its own code raises without weights
        return "its own code does not run without weights"
    size = float(call.given.abs().max())
    if left is None or left.shape != call.given.shape or float((left - call.given).abs().max()) > _ROUNDING * size:
        passes = left is not None and left.shape == call.given.shape and bool(left.any())
        return "gives something else than its input where its weights are zero" if passes else ""
    if len(calls) > 1:
        return "is called more than once"
    if not call.alone:
        return "gives more than its hidden states"
    shared = {n for key, names in owners.items() for n in names if names & set(own)} - set(own)
    return f"shares {sorted(shared)[0]}" if shared else None
