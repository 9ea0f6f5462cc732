"""A trained network as it is deployed: without what is zero as a whole, batch norms folded into the layers before them.

This is the network whose cost a sweep measures, that is registered and exported: its outputs are the masked network's.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from raydistill.compression.adjacency import batch_norms
from raydistill.compression.copying import copy_of
from raydistill.compression.floats import as_floats
from raydistill.compression.layer_kinds import kind_of, weighted
from raydistill.compression.quantizers.frozen import freeze
from raydistill.compression.quantizers.network import quantization_of
from raydistill.compression.structure import Change, Dropped, Folded, Frozen
from raydistill.compression.structure.folded import has_more, rows_can_follow, takes_up
from raydistill.compression.trace import Trace, trace
from raydistill.errors import RaydistillError

_TOLERANCE = 1e-4
"""Of the largest output: what folding may move it by. It is exact but for rounding."""


@dataclass(frozen=True)
class Deployment:
    """What `deploy` did. removed: parameters that were zero as a whole, or fed such. folded: batch norms. rounded:
    quantized weights. changes: make it to another copy of the network. notes: what was not possible, a line each."""

    removed: int
    folded: int
    rounded: int
    changes: tuple[Change, ...]
    notes: tuple[str, ...]

    @property
    def lines(self) -> tuple[str, ...]:
        """For a person: what was done, then what was not."""
        done = [f"{self.removed:,} parameters removed that were zero as a whole"] if self.removed else []
        done += [f"{self.rounded} weights lie on their grids"] if self.rounded else []
        done += [f"{self.folded} batch norm{'s' * (self.folded != 1)} folded"] if self.folded else []
        return (*(done or ["nothing to remove or to fold"]), *self.notes)


def deploy(model: nn.Module, example: Sequence[object]) -> Deployment:
    """Thin a masked network and fold its batch norms, in place; it is in eval mode then.

    example: positional inputs of one sample or more. What cannot be traced is left as it is, and said.
    """
    model.eval()
    changes: list[Change] = []
    notes: list[str] = []
    removed = 0
    if any(map(_scales_to_nothing, model.modules())) or any(
        _has_dead_structure(weight) for weight in model.parameters() if weight.dim() >= 2
    ):
        # These import Torch-Pruning, which few trials need.
        from raydistill.compression.thinning import thin
        from raydistill.compression.thinning.blocks import drop_blocks

        before = sum(parameter.numel() for parameter in model.parameters())
        dropped = drop_blocks(model, tuple(example)) if quantization_of(model) is None else Dropped({})
        if dropped:
            changes.append(dropped)
            removed = before - sum(parameter.numel() for parameter in model.parameters())
            gone = ", ".join(dropped.blocks)
            notes.append(f"{len(dropped.blocks)} block{'s' * (len(dropped.blocks) != 1)} gone that did nothing: {gone}")
        try:
            report = thin(model, None, tuple(example))
        except RaydistillError as error:
            notes.append(f"not thinned: {error.faults[0]}")
        else:
            removed += report.parameters_before - report.parameters_after
            notes += map(str, report.kept)
            changes += report.changes
    held = quantization_of(model)
    if freeze(model):
        changes.append(Frozen())
    elif held is not None and held.enabled:
        notes.append("its numbers are not settled: a range has seen nothing yet, train it with its quantizer")
    found, note = folding(model, example)
    if note:
        notes.append(note)
    if found:
        found.apply(model)
        changes.append(found)
    rounded = len(held.weight_names()) if held is not None and held.enabled else 0
    return Deployment(removed, len(found.norms), rounded, tuple(changes), tuple(notes))


@torch.no_grad()
def folding(model: nn.Module, example: Sequence[object]) -> tuple[Folded, str]:
    """Which batch norms can be folded without another output, and why none can ("": there is no reason).

    The model, in eval mode, stays as it is.
    """
    none = Folded({})
    if not any(kind_of(module).batch_norm for module in model.modules()):
        return none, ""
    try:
        seen = trace(model, tuple(example), macs=False)
    except RaydistillError as error:
        return none, f"batch norms are not folded: {error.faults[0]}"
    norms = _read_by_nobody_else(model, seen)
    if not norms:
        return none, ""
    plain = {layer: norm for layer, norm in norms.items() if not has_more(model.get_submodule(norm))}
    inputs = tuple(map(noise, example))
    for pairs in (norms, plain) if len(plain) < len(norms) else (norms,):
        if pairs and _keeps_outputs(model, Folded(pairs), inputs):
            return Folded(pairs), ""
    return none, "batch norms are not folded: the network's outputs would not be the same"


def _keeps_outputs(model: nn.Module, folded: Folded, inputs: Sequence[object]) -> bool:
    work = copy_of(model)
    with as_floats():  # what is rounded jumps by a step where a last bit differs
        before = tensors(work(*inputs))
        folded.apply(work)
        after = tensors(work(*inputs))
    return all(_close(a, b) for a, b in zip(after, before, strict=True))


def _read_by_nobody_else(model: nn.Module, seen: Trace) -> dict[str, str]:
    """Layer to batch norm, where each runs once and the norm alone reads what the layer gives."""
    modules = dict(model.named_modules())
    visits = Counter(visit.module for visit in seen.visits)
    readers = Counter(position for call in seen.calls for position in call.inputs)
    made = {visit.module: visit.outputs[0] for visit in seen.visits if len(visit.outputs) == 1}
    given = {position for visit in seen.visits if not visit.module for position in visit.outputs}
    found = {}
    for layer, norm in batch_norms(model, seen).items():
        position = made[layer]
        once = visits[layer] == 1 and visits[norm] == 1 and readers[position] == 1 and position not in given
        fits = takes_up(modules[layer], modules[norm]) and rows_can_follow(model, layer, modules[layer])
        if once and fits and _same_axis(modules[layer], modules[norm], seen, layer):
            found[layer] = norm
    return found


def _same_axis(layer: nn.Module, norm: nn.Module, seen: Trace, name: str) -> bool:
    """A batch norm reads channels in dim 1, a linear layer may have them elsewhere."""
    kind = weighted(layer)
    shapes = [call.output_shapes[0] for call in seen.calls if call.module == name and call.output_shapes]
    dims = len(shapes[-1]) if shapes else 0
    return kind is not None and dims > 0 and kind.channel_axis(layer, dims) == kind_of(norm).channel_axis(norm, dims)


def noise(value: object) -> Any:
    """Noise, ever the same, in place of floats; numbers of things are kept, which others there may be nobody knows."""
    if not isinstance(value, Tensor) or not value.is_floating_point():
        return value
    generator = torch.Generator().manual_seed(0)
    return torch.randn(value.shape, generator=generator).to(value.device, value.dtype)


def tensors(output: object) -> list[Tensor]:
    """All tensors of what a network gave, in order."""
    if isinstance(output, Tensor):
        return [output]
    values = output.values() if hasattr(output, "values") else output if isinstance(output, (list, tuple)) else ()
    return [tensor for value in values for tensor in tensors(value)]


def _close(after: Tensor, before: Tensor) -> bool:
    if after.shape != before.shape or not before.is_floating_point():
        return after.shape == before.shape and bool((after == before).all())
    scale = float(before.abs().max()) if before.numel() else 0.0
    return float((after - before).abs().max()) <= _TOLERANCE * max(scale, 1e-6) if before.numel() else True


def _scales_to_nothing(module: nn.Module) -> bool:
    kind = kind_of(module)
    return kind.norm and bool(kind.zero_rows(module).any())


def _has_dead_structure(weight: Tensor) -> bool:
    zero = (weight == 0).flatten(2) if weight.dim() > 2 else (weight == 0).unsqueeze(2)
    return bool(zero.all(dim=2).all(dim=1).any() or zero.all(dim=2).all(dim=0).any())
