"""Depth: blocks that give their input as it is, or the same for every input, are taken out as a whole.

What a block does is seen, not read: one forward pass on noise tells whether its output is its input plus a constant for
each channel, or that constant alone. A block whose residual branches are all zero is such a one, and so is the branch.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from raydistill.compression.copying import copy_of
from raydistill.compression.structure.dropped import Dropped, Rest
from raydistill.compression.thinning.inputs import Example, kind, noise_like, to_device
from raydistill.compression.thinning.pieces import pieces
from raydistill.compression.thinning.verify import keeps_outputs, outputs_of

_ROUNDING = 1e-6


@dataclass(frozen=True)
class _Found:
    rest: Rest
    value: Tensor


@torch.no_grad()
def drop_blocks(model: nn.Module, example: Example) -> Dropped:
    """Take out what does nothing, in place. model: masked, in eval mode; a block that is called several times stays.

    example: a tensor, a sequence of positional inputs or a mapping of named ones. Where the model cannot be followed as
    a whole, what is inside of its `pieces` goes.
    """
    blocks: dict[str, Rest] = {}
    for piece in pieces(model, to_device(example, *kind(model))):
        dropped = _drop_in(model.get_submodule(piece.name), noise_like(piece.example))
        blocks |= {piece.named(name): rest for name, rest in dropped.blocks.items()}
    return Dropped(blocks)


def _drop_in(model: nn.Module, noise: Example) -> Dropped:
    try:
        found = _outermost(_seen(model, noise))
        if not found:
            return Dropped({})
        dropped = Dropped({name: each.rest for name, each in found.items()})
        less, expected = copy_of(model), outputs_of(model, noise)
        _make(less, dropped, found)
        if not keeps_outputs(model, less, noise, expected, outputs_of(less, noise)):
            return Dropped({})
    except Exception:  # whatever the model's own code raises on noise, or without a block
        return Dropped({})
    _make(model, dropped, found)
    return dropped


def _make(model: nn.Module, dropped: Dropped, found: dict[str, _Found]) -> None:
    dropped.apply(model)
    for name, each in found.items():
        if each.rest.width:
            model.get_parameter(f"{name}.value").data.copy_(each.value)


def _seen(model: nn.Module, noise: Example) -> dict[str, _Found]:
    """Modules with weights that do nothing, by name."""
    found: dict[str, _Found] = {}
    calls: Counter[str] = Counter()
    with _watched(model, found, calls):
        outputs_of(model, noise)
    return {name: each for name, each in found.items() if calls[name] == 1}


@contextmanager
def _watched(model: nn.Module, found: dict[str, _Found], calls: Counter[str]) -> Iterator[None]:
    def look(
        name: str, module: nn.Module, inputs: tuple[object, ...], named: dict[str, object], output: object
    ) -> None:
        calls[name] += 1
        given = next((value for value in (*inputs, *named.values()) if isinstance(value, Tensor)), None)
        result, outputs = (output, 0) if not isinstance(output, tuple) else (output[0], len(output))
        rest_is_empty = not outputs or all(entry is None for entry in output[1:])  # type: ignore[index]
        if given is None or not isinstance(result, Tensor) or result.shape != given.shape or not rest_is_empty:
            return
        if given.is_floating_point() and result.dim() > 1 and len(result.flatten(0, -2)) > 1:
            seen = _rest_of(given, result, outputs)
            if seen is not None:
                found[name] = seen

    owners = [(n, m) for n, m in model.named_modules() if n and any(True for _ in m.parameters())]
    handles = [module.register_forward_hook(partial(look, name), with_kwargs=True) for name, module in owners]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _rest_of(given: Tensor, result: Tensor, outputs: int) -> _Found | None:
    for passes in (True, False):
        moved = result - given if passes else result
        if not bool((moved != 0).any()):
            return _Found(Rest(passes, 0, -1, outputs), moved.new_zeros(0))
        for axis in {-1, 1 - result.dim()}:
            rows = moved.movedim(axis, -1).flatten(0, -2)
            if float((rows - rows[0]).abs().max()) <= _ROUNDING * float(result.abs().max()) and len(rows) > 1:
                return _Found(Rest(passes, rows.shape[1], axis, outputs), rows.mean(0))
    return None


def _outermost(found: dict[str, _Found]) -> dict[str, _Found]:
    def inside(name: str) -> bool:
        parts = name.split(".")
        return any(".".join(parts[:count]) in found for count in range(1, len(parts)))

    return {name: each for name, each in found.items() if not inside(name)}
