"""Cutting a copy first: a plan is taken only where the outputs stay."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from raydistill.compression.copying import copy_of
from raydistill.compression.structure import Thinned
from raydistill.compression.thinning.decide import STRUCTURES, Plan, decide
from raydistill.compression.thinning.graph import Graph, set_training
from raydistill.compression.thinning.inputs import Example, call, kind, noise_like, tensors, to_device

_TOLERANCE = 1e-5
"""Of the largest output."""


@dataclass(frozen=True)
class Settled:
    """plan: keeps the outputs. folded: the model with its constants folded. parameters: of what is left of it. drift:
    how far its outputs are from the original's."""

    plan: Plan
    folded: nn.Module
    parameters: int
    drift: float


def settle(
    work: nn.Module, original: nn.Module, graph: Graph, example: Example, structures: Collection[str], exact: bool
) -> Settled:
    """What may go from `work`. Where grouped convs keep equal sizes, what goes first decides what else can: there the
    exact way may remove more than the other, which then is taken."""
    found = _settle(work, original, graph, example, structures, exact)
    if exact or not found.plan.balanced:
        return found
    exactly = _settle(work, original, graph, example, structures, True)
    return min(found, exactly, key=lambda one: one.parameters)


@torch.no_grad()
def _settle(
    work: nn.Module, original: nn.Module, graph: Graph, example: Example, structures: Collection[str], exact: bool
) -> Settled:
    """A group that is coupled with others in a way that the trace does not show breaks the cut model or its outputs; it
    is found by halves and left alone."""
    noise = noise_like(example)
    expected = outputs_of(work, noise)

    def attempt(groups: Collection[int]) -> Settled | None:
        folded = copy_of(work)
        plan = decide(folded, graph, groups, example, structures, exact)
        leaving = plan.leaving(graph)
        if not leaving:
            return Settled(plan, folded, parameter_count(folded), 0.0)
        thin = copy_of(folded)
        Thinned.of(thin, leaving).make(thin)
        try:
            wanted = expected if exact else outputs_of(folded, noise)
            found = outputs_of(thin, noise)
            if not keeps_outputs(work if exact else folded, thin, noise, wanted, found):
                return None
            if graph.training:
                set_training(thin, True)
                call(thin, noise)
        except Exception:  # whatever the model's own code raises where widths no longer fit each other
            return None
        return Settled(plan, folded, parameter_count(thin), difference(outputs_of(original, noise), found))

    accepted: list[int] = []
    rejected: list[int] = []
    best: Settled | None = None
    parts = [[index for index, group in enumerate(graph.groups) if group.blocked is None]]
    while parts:
        part = parts.pop(0)
        found = attempt([*accepted, *part])
        if found is not None:
            best = found
            accepted += part
        elif len(part) > 1:
            parts[:0] = [part[: len(part) // 2], part[len(part) // 2 :]]
        else:
            rejected += part
    best = best or attempt([])
    assert best is not None
    for index in rejected:
        channels = range(graph.groups[index].width)
        best.plan.reasons[index] = {
            (s, channel): "the outputs would change" for s in STRUCTURES for channel in channels
        }
    return best


def parameter_count(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def outputs_of(model: nn.Module, example: Example, without: Collection[int] = ()) -> list[Tensor]:
    """In eval mode, which it is left in. without: positions of those that are not asked for."""
    set_training(model, False)
    return [tensor for index, tensor in enumerate(tensors(call(model, example))) if index not in without]


@torch.no_grad()
def keeps_outputs(
    model: nn.Module,
    thin: nn.Module,
    example: Example,
    expected: list[Tensor],
    found: list[Tensor],
    without: Collection[int] = (),
) -> bool:
    """Whether what a thinned copy of a model gives (`found`) is what the model does (`expected`), up to rounding. A
    deep network can amplify the rounding of single precision past the tolerance; double precision tells."""
    return difference(expected, found) <= _TOLERANCE or _agree_in_double(model, thin, example, without)


def difference(expected: list[Tensor], found: list[Tensor]) -> float:
    """The largest difference relative to the largest value, over all outputs; infinite where shapes differ."""
    if [tensor.shape for tensor in expected] != [tensor.shape for tensor in found]:
        return float("inf")
    worst = 0.0
    for one, other in zip(expected, found, strict=True):
        if one.numel():
            one, other = one.nan_to_num(), other.nan_to_num()
            gap, largest = float((one - other).abs().amax()), float(one.abs().amax())
            worst = max(worst, gap / largest if largest else gap * float("inf") if gap else 0.0)
    return worst


def _agree_in_double(one: nn.Module, other: nn.Module, example: Example, without: Collection[int]) -> bool:
    device, dtype = kind(one)
    if dtype == torch.float64:
        return False
    twice = to_device(example, device, torch.float64)
    first, second = (outputs_of(copy_of(model).double(), twice, without) for model in (one, other))
    return difference(first, second) <= _TOLERANCE
