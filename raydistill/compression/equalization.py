"""Weights of layers that follow each other are scaled against each other, so that one range fits all of their channels.

Nagel et al. 2019 (data-free quantization, arXiv 1906.04721), section 4.1: a ReLU gives twice as much for twice as much,
so a channel of one layer may be divided by what the next multiplies by. The network computes what it computed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from raydistill.compression.layer_kinds import weighted
from raydistill.compression.layer_kinds.weighted import WeightedKind
from raydistill.compression.trace import Trace, trace

_SCALING = frozenset({"relu", "leaky_relu"})
"""Functions that give s times as much for s times as much, s above 0."""
_PASSING = frozenset({"adaptive_avg_pool2d", "avg_pool2d", "max_pool2d", "dropout", "contiguous"})
"""Functions that do, too, and keep channels where they are."""
_CLOSE, _MOST_ROUNDS = 1e-4, 50


@dataclass(frozen=True)
class Equalized:
    """pairs: layers whose channels were scaled, (first, second). rounds: over all of them. spread: how many times as
    large the largest channel's range is as the smallest's, the worst of the first layers, before and after."""

    pairs: tuple[tuple[str, str], ...]
    rounds: int = 0
    spread: tuple[float, float] = (1.0, 1.0)


def equalizing_scales(first: Tensor, second: Tensor) -> Tensor:
    """What each channel of the first layer is divided by, and the second's multiplied by (equation 11).

    first, second: the largest absolute weight of each channel, as the first gives it and the second reads it, shape
    (channels,). Where either is zero nothing is gained: 1.
    """
    scales = torch.sqrt(first / second)
    return torch.where((first > 0) & (second > 0), scales, torch.ones_like(scales))


@torch.no_grad()
def equalize(model: nn.Module, example: Sequence[object]) -> Equalized:
    """Scale every pair of layers of which the second alone reads the first, in place, until nothing moves any more.

    Batch norms between them have to be folded beforehand. example: positional inputs.

    Raises:
        ConfigError: the network does not run on the example.
    """
    found = pairs_of(model, trace(model, tuple(example), macs=False))
    modules = [(model.get_submodule(first), model.get_submodule(second)) for first, second in found]
    before = _spread([first for first, _ in modules])
    rounds = 0
    for _ in range(_MOST_ROUNDS if modules else 0):
        rounds += 1
        moved = max(_equalize_pair(*pair) for pair in modules)
        if moved < _CLOSE:
            break
    return Equalized(tuple(found), rounds, (before, _spread([first for first, _ in modules])))


def pairs_of(model: nn.Module, seen: Trace) -> list[tuple[str, str]]:
    """The layers that run once each, the second of which alone reads the first, through functions that scale."""
    modules = dict(model.named_modules())
    runs = Counter(visit.module for visit in seen.visits)
    reads: dict[int, list[int]] = {}
    for index, call in enumerate(seen.calls):
        for position in call.inputs:
            reads.setdefault(position, []).append(index)
    given = {position for visit in seen.visits if not visit.module for position in visit.outputs}
    owners = Counter(id(parameter) for _, parameter in model.named_parameters(remove_duplicate=False))
    found = []
    for index, call in enumerate(seen.calls):
        if not _is_layer(modules.get(call.module), call.module, runs, owners) or not call.parameters:
            continue
        at = index
        while len(reads.get(at, [])) == 1 and at not in given:
            at = reads[at][0]
            if seen.calls[at].function not in _SCALING | _PASSING:
                break
        after = seen.calls[at]
        if at == index or not after.parameters or at in given & {index}:
            continue
        second = modules.get(after.module)
        if not _is_layer(second, after.module, runs, owners) or after.module == call.module:
            continue
        if _channels(modules[call.module], rows=True) == _channels(second, rows=False):
            found.append((call.module, after.module))
    return found


def _is_layer(module: nn.Module | None, name: str, runs: Counter[str], owners: Counter[int]) -> bool:
    kind = weighted(module)
    if kind is None or module is None or runs[name] != 1 or not kind.may_be_cut(module):
        return False
    groups = kind.groups(module)
    return owners[id(getattr(module, kind.weight))] == 1 and (groups == 1 or kind.is_depthwise(module))


def _channels(module: nn.Module | None, rows: bool) -> int:
    kind = weighted(module)
    assert kind is not None
    assert module is not None
    return kind.rows(module) if rows else kind.columns(module)


def _equalize_pair(first: nn.Module, second: nn.Module) -> float:
    """By how much a scale was away from 1."""
    scales = equalizing_scales(_reach(first, True), _reach(second, False))
    for module, factors, rows in ((first, 1 / scales, True), (second, scales, False)):
        kind = weighted(module)
        assert kind is not None
        weight = kind.content(module)
        weight.mul_(factors.view(_shape(weight, _dim(kind, module, rows))))
    kind = weighted(first)
    bias = None if kind is None else kind.bias_of(first)
    if bias is not None:
        bias.data.div_(scales)
    return float((scales - 1).abs().max())


def _dim(kind: WeightedKind, module: nn.Module, rows: bool) -> int:
    """The weight's dimension of the channels that a layer gives, or reads; a depthwise one has each channel once."""
    return kind.out_dim if rows else 0 if kind.is_depthwise(module) else kind.in_dim


def _shape(weight: Tensor, dim: int) -> list[int]:
    return [-1 if at == dim else 1 for at in range(weight.dim())]


def _reach(module: nn.Module, rows: bool) -> Tensor:
    kind = weighted(module)
    assert kind is not None
    return kind.content(module).movedim(_dim(kind, module, rows), 0).flatten(1).abs().amax(1)


def _spread(modules: Sequence[nn.Module]) -> float:
    worst = 1.0
    for module in modules:
        reach = _reach(module, True)
        reach = reach[reach > 0]
        if len(reach):
            worst = max(worst, float(reach.max() / reach.min()))
    return worst
