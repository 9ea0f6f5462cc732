"""Which channels of a residual stream are dead: nobody writes them, so that they are zero at every position.

Who reads a stream reads it through norms. One that takes the mean away gives something else than zero for a channel of
zeros, so readers must not look at it either; one that divides by the root of the mean square gives zero. Statistics
stay those of all channels: a LayerNorm counts those that are gone (`PartialLayerNorm`), an RMSNorm's scale takes the
factor up: of d channels kept of n, sqrt(sum / n) is sqrt(d / n) times sqrt(sum / d), and what it adds to the mean grows
by n / d.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from raydistill.compression.layer_kinds import kind_of
from raydistill.compression.layer_kinds.base import along
from raydistill.compression.thinning.decide import CHANNELS, FILTERS
from raydistill.compression.thinning.parts import Leaving, Part
from raydistill.compression.thinning.streams import Stream


@dataclass(frozen=True, kw_only=True)
class WidthCut(Part):
    """width: of the stream, before and after."""

    stream: Stream
    width: tuple[int, int]

    @property
    def layers(self) -> tuple[str, ...]:
        return (*sorted(self.stream.writers), *sorted(self.stream.readers))

    def sizes(self) -> dict[int, int]:
        return dict([self.width])

    def __str__(self) -> str:
        before, after = self.width
        return f"{before - after} of {before} channels of a residual stream ({len(self.stream.norms)} norms)"


@torch.no_grad()
def width_cuts(stream: Stream, model: nn.Module, structures: Collection[str]) -> Iterator[WidthCut]:
    """Ways to narrow a stream, the one that takes most first."""
    if stream.escapes or not {FILTERS, CHANNELS} <= set(structures):
        return
    for name in (*stream.writers, *stream.readers):
        module = model.get_submodule(name)
        kind = kind_of(module)
        if not kind.can_lose(module, name not in stream.writers) or kind.groups(module) > 1:
            return
    unwritten = _unwritten(stream, model)
    found: list[Tensor] = []
    for dead in (unwritten, unwritten & _unread(stream, model)):
        if bool(dead.any()) and not bool(dead.all()) and not any(torch.equal(dead, other) for other in found):
            found.append(dead)
            yield _cut(stream, model, dead)


def _unwritten(stream: Stream, model: nn.Module) -> Tensor:
    dead = torch.ones(stream.width, dtype=torch.bool)
    for name in stream.writers:
        module = model.get_submodule(name)
        kind = kind_of(module)
        dead &= kind.zero_rows(module).cpu()
        bias = None if kind.embedding else kind.bias_of(module)
        if bias is not None:
            dead &= (bias == 0).cpu()
    for name in stream.apart:  # zero gives its bias
        bias = kind_of(model.get_submodule(name)).bias_of(model.get_submodule(name))
        if bias is not None:
            dead &= (bias == 0).flatten().cpu()
    for name, dim in stream.tables.items():
        dead &= (model.get_parameter(name) == 0).movedim(dim, 0).flatten(1).all(1).cpu()
    return dead


def _unread(stream: Stream, model: nn.Module) -> Tensor:
    dead = torch.ones(stream.width, dtype=torch.bool)
    for name in stream.readers:
        module = model.get_submodule(name)
        dead &= kind_of(module).zero_columns(module).cpu().view(-1, stream.width).all(0)
    return dead


def _cut(stream: Stream, model: nn.Module, dead: Tensor) -> WidthCut:
    going = dead.nonzero().flatten()
    kept = stream.width - len(going)
    leaving: Leaving = {(name, False): going for name in stream.writers}
    leaving |= {(name, True): stream.positions(name, going).T.flatten() for name in stream.readers}
    tables = {name: (dim, going) for name, dim in (stream.tables | stream.factors).items()}
    for name in stream.apart:
        module = model.get_submodule(name)
        if kind_of(module).can_lose(module, False):
            leaving[name, False] = going
        else:
            tables |= {own: (along(tensor), going) for own, tensor in module.named_parameters(name)}
    scales: dict[str, float] = {}
    numbers: dict[str, dict[str, tuple[float, float]]] = {}
    for name in stream.norms:
        module = model.get_submodule(name)
        kind, places = kind_of(module), stream.positions(name, going).T.flatten()
        if kind.can_lose(module, False):
            leaving[name, False] = places
        else:  # of another library: its tensors have one number a channel
            tables |= {own: (0, places) for own, _ in module.named_parameters(name)}
        own = [parameter for parameter, _ in module.named_parameters(name)]
        if not getattr(kind, "centered", False) and len(own) == 1:
            scales[own[0]] = math.sqrt(stream.width / kept)
            small = {key: value for key, value in vars(module).items() if type(value) is float and 0 < value < 0.01}
            numbers[name] = {key: (value, value * stream.width / kept) for key, value in small.items()}
    return WidthCut(
        stream=stream,
        width=(stream.width, kept),
        leaving=leaving,
        tables=tables,
        scales=scales,
        numbers={name: changes for name, changes in numbers.items() if changes},
    )
