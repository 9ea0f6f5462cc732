"""Removing what is zero: `thin`."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, MutableMapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from raydistill.compression.copying import copy_of
from raydistill.compression.layer_kinds import weighted
from raydistill.compression.masks import MaskSet
from raydistill.compression.quantizers import detach
from raydistill.compression.structure import StructureChange, Thinned
from raydistill.compression.thinning import account
from raydistill.compression.thinning.align import aligned_filters, prune_instead
from raydistill.compression.thinning.constants import read_constants
from raydistill.compression.thinning.decide import STRUCTURES, Plan
from raydistill.compression.thinning.graph import Graph, drop_hooks, only_written_by, trace
from raydistill.compression.thinning.inputs import Example, kind, to_device
from raydistill.compression.thinning.inside import thin_inside
from raydistill.compression.thinning.parts import Taken
from raydistill.compression.thinning.pieces import Piece, pieces
from raydistill.compression.thinning.report import ThinningReport
from raydistill.compression.thinning.verify import parameter_count, settle
from raydistill.errors import ConfigError, Fault, close_match


@torch.no_grad()
def thin(
    model: nn.Module,
    masks: MaskSet | MutableMapping[str, Tensor] | None,
    example_input: Example,
    optimizer: Optimizer | None = None,
    *,
    structures: Collection[str] = STRUCTURES,
    exact: bool = True,
    align_sums: bool = False,
    weights: Collection[str] | None = None,
) -> ThinningReport:
    """Remove filters and channels that are zero as a whole from a model, in place, with everything coupled to them.

    What goes: a *filter* (row of a conv or linear weight, or channel that a batch norm scales by zero) whose channel
    then is the same constant for every input, and a *channel* that all layers that read it multiply by zero. With it
    go the rows, columns, batch-norm entries and depthwise filters of all coupled layers; in a residual sum a filter
    goes only where all that are added to it are zero too. Dead heads of attention, units of recurrent layers and
    channels of a residual stream that nobody writes go too (`thin_inside`). Inputs and outputs of the network keep
    their widths.

    A zeroed filter is not silent: its bias, or the shift of the batch norm behind it, still gives a constant (through
    the activations) to the next layers. Of such constants nothing is lost where they can be folded into the next
    layer's bias, or into the running mean of the batch norm behind it: at linear layers and convs without zero padding.
    Where one meets zero padding, what it adds is smaller at the borders. Then, with

    - ``exact=True``, one channel of the group stays (or as few as can serve all layers that read it), and takes over
      what the others added: the outputs in eval mode are those of the masked model up to rounding. Constants that
      reach the padding of a grouped conv, or whose map is like no other (behind a padded depthwise conv), stay too.
    - ``exact=False``, all go, and their constants are folded as if there were no borders; one stays only for a layer
      that has neither a bias nor a batch norm of its own behind it. The outputs move by the report's ``drift``.
      (Distiller drops the constants, which moves them more.)

    This holds for inputs as large as the example: on a map of a single position a constant behind a padded depthwise
    conv is one for all, and on the larger map of a larger image it would not be.

    The result is checked: the outputs for fixed noise agree to 1e-5 of the largest output with those of the masked
    model (with ``exact=False`` of the model after folding), or the groups that break this stay. The model, its
    parameters and its buffers remain the same objects, so an optimizer's parameter groups still hold them. The report's
    `changes` make a fresh model the same shapes.

    model: any that Torch-Pruning can trace, with layers of one's own that say their kind (`layer_kinds`); its training
        mode stays as it is. Where it gives another number of outputs for other values (boxes), its modules that do not
        are thinned each by itself, and the widths between them stay. A checkpoint of it loads with `reshape_like`.
    masks: what prunes the model; they are applied first and cut with the weights (a mapping in place). None: only what
        is zero in the weights. The listeners of a `MaskSet` hear of the change.
    example_input: a tensor, a sequence of positional inputs or a mapping of named ones.
    optimizer: its state is cut too (momentum, Adam's moments); state of another shape than its parameter's is dropped,
        as at the optimizer's start.
    structures: "filters", "channels" or both.
    align_sums: where the terms of a residual sum were pruned each by itself, to the same number of filters but not to
        the same filters, prune the same ones in all of them first: those of least L1 norm in total. This zeroes filters
        that were not zero (the outputs move by ``drift``), and those they take the place of may be trained again.
        Without it only what all terms have lost goes.
    weights: only what these alone write goes; None: whatever is zero.

    Raises:
        ConfigError: the model cannot be traced on these inputs, a mask does not fit, or a structure or weight is not
            known.
    """
    _check(model, masks, structures, weights or ())
    writers = None if weights is None else {name.rpartition(".")[0] for name in weights}
    if isinstance(masks, MaskSet):
        masks.apply()
        values = {name: masks[name] for name in masks.names()}
    else:
        values = dict(masks or {})
        for name, mask in values.items():
            weight = model.get_parameter(name).data
            weight.masked_fill_(mask.to(weight.device) == 0, 0)
    before = parameter_count(model)
    device, dtype = kind(model)

    def make(change: Thinned) -> None:
        happened = StructureChange(change, change.make(model, optimizer))
        happened.follow(values)
        if isinstance(masks, MaskSet):
            masks.rebind(model, values, happened)

    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        work = working_copy(model, values, _wide(dtype))
        found = pieces(work, to_device(example_input, *kind(work)))
        asked = _Asked(structures, exact, align_sums, writers)
        reports = [_thin_piece(model, values, piece, make, asked) for piece in found]
    if isinstance(masks, MaskSet):
        masks.rebind(model, values)  # where nothing went, `align_sums` prunes others
    elif masks is not None:
        masks.update(values)
    return ThinningReport(
        before,
        parameter_count(model),
        {layer: count for report in reports for layer, count in report.removed.items()},
        (*(kept for report in reports for kept in report.kept), *account.outside(model, found, structures)),
        max(report.drift for report in reports),
        tuple(change for report in reports for change in report.changes),
        tuple(line for report in reports for line in report.inside),
    )


@dataclass(frozen=True)
class _Asked:
    """Arguments of `thin`. writers: layers that alone may lose what they write; None: all."""

    structures: Collection[str]
    exact: bool
    align_sums: bool
    writers: Collection[str] | None


def _thin_piece(
    model: nn.Module,
    masks: MutableMapping[str, Tensor],
    piece: Piece,
    make: Callable[[Thinned], None],
    asked: _Asked,
) -> ThinningReport:
    """Thin what can be followed as one. masks: of the whole model, by name; make: makes a change to the whole model."""
    part, example, structures = model.get_submodule(piece.name), piece.example, asked.structures
    writers = None if asked.writers is None else set(piece.own(dict.fromkeys(asked.writers)))
    wide = _wide(kind(model)[1])
    changes: list[Thinned] = []

    def cut(change: Thinned) -> None:
        if change:
            changes.append(change.under(piece.named))
            make(changes[-1])

    before = parameter_count(part)
    work = working_copy(part, piece.own(masks), wide)
    inside = thin_inside(work, example, structures, writers)
    if inside.leaving:
        inside.fold(part)
        cut(inside.change(part))
        work = working_copy(part, piece.own(masks), wide)
    graph = only_written_by(_graph(work, example, inside), writers)
    original = work
    chosen = aligned_filters(work, graph) if asked.align_sums else {}
    if chosen:
        original = copy_of(work)
        prune_instead(work, chosen, {})
    found = settle(work, original, graph, example, structures, asked.exact)
    plan, folded = found.plan, found.folded
    own = piece.own(masks)
    prune_instead(part, chosen, own)
    _take_over(part, folded, plan, own)
    masks.update({piece.named(name): mask for name, mask in own.items()})
    cut(Thinned.of(part, plan.leaving(graph)))
    return ThinningReport(
        before,
        parameter_count(part),
        {piece.named(layer): count for layer, count in account.removed(plan, graph, folded).items()},
        tuple(
            replace(kept, weight=piece.named(kept.weight), reason=piece.said(kept.reason))
            for kept in account.kept(plan, graph, folded, structures, inside.reasons)
        ),
        max(found.drift, inside.drift),
        tuple(changes),
        tuple(f"{piece.named(one.block) or 'the network'}: {one} removed" for one in inside.parts),
    )


def _wide(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype == torch.float64 else torch.float32


def untraceable(model: nn.Module, example_input: Example) -> str:
    """Why `thin` takes nothing out of this model, however much of it is zero; empty where it can take something."""
    work = working_copy(model, {}, torch.float32)
    example = to_device(example_input, *kind(work))
    if pieces(work, example)[0].name:
        return ""
    try:
        graph = trace(work, example)
        read_constants(work, example, graph.training)
    except ConfigError as error:
        return rules_of(error)
    if not graph.groups and any(map(weighted, model.modules())):
        return "autograd follows none of its layers"
    return ""


def rules_of(error: ConfigError) -> str:
    """What is wrong, without where and what to do."""
    return "; ".join(fault if isinstance(fault, str) else fault.rule for fault in error.faults)


def _graph(work: nn.Module, example: Example, inside: Taken) -> Graph:
    """Its channels; none where they cannot be followed, but something went inside blocks."""
    try:
        return trace(work, example, inside.given, inside.read)
    except ConfigError as error:
        if not inside.leaving:
            raise
        layers = (name for name, module in work.named_modules() if weighted(module))
        inside.reasons.update(dict.fromkeys(layers, rules_of(error)))
        return Graph((), {}, False)


def _check(model: nn.Module, masks: object, structures: Collection[str], weights: Collection[str]) -> None:
    for structure in structures:
        if structure not in STRUCTURES:
            raise ConfigError(Fault("structures", "is not known", structure, close_match(structure, STRUCTURES)))
    parameters = dict(model.named_parameters())
    for name in weights:
        if name not in parameters:
            raise ConfigError(Fault("weights", "the model has no such weight", name, close_match(name, parameters)))
    if isinstance(masks, Mapping):
        for name, mask in masks.items():
            if name not in parameters:
                raise ConfigError(Fault("masks", "the model has no such weight", name, close_match(name, parameters)))
            if mask.shape != parameters[name].shape:
                rule = f"must have the shape {tuple(parameters[name].shape)} of its weight"
                raise ConfigError(Fault(f"masks.{name}", rule, tuple(mask.shape)))


def working_copy(model: nn.Module, masks: Mapping[str, Tensor], dtype: torch.dtype) -> nn.Module:
    """The masked model in eval mode, contiguous and without hooks, to be traced, changed and measured."""
    work = copy_of(model)
    detach(work)
    drop_hooks(work)
    work.to(dtype).eval()
    for name, parameter in work.named_parameters():
        parameter.grad = None
        parameter.data = parameter.data.contiguous()
        if name in masks:
            parameter.data.masked_fill_(masks[name].to(parameter.device) == 0, 0)
        parameter.requires_grad_(True)
    return work


def _take_over(model: nn.Module, folded: nn.Module, plan: Plan, masks: MutableMapping[str, Tensor]) -> None:
    """Bring the constants that were folded in the working copy to the model itself."""
    modules = dict(folded.named_modules())
    own = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    for name in plan.folded:
        owner, _, attribute = name.rpartition(".")
        own[name].data.copy_(getattr(modules[owner], attribute))
    for layer, into in plan.carried.items():
        kind = weighted(modules[layer])
        assert kind is not None
        name = f"{layer}.{kind.weight}"
        which = (slice(None),) * kind.in_dim + (sorted(into),)
        content = kind.content(modules[layer])[which]
        own[name].data[which] = content.to(own[name].dtype)
        if name in masks:
            mask = masks[name] = masks[name].clone()
            mask[which] = torch.where(content.to(mask.device) != 0, 1, mask[which]).to(mask.dtype)
