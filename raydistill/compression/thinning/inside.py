"""Thinning inside blocks and along residual streams, in whichever way the outputs stay."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterator, Sequence

import torch
from torch import nn

from raydistill.compression.copying import copy_of
from raydistill.compression.layer_kinds import kind_of
from raydistill.compression.thinning.decide import CHANNELS
from raydistill.compression.thinning.graph import NOT_NAMED
from raydistill.compression.thinning.heads import WIDTHS, faults_of, head_cut
from raydistill.compression.thinning.inputs import Example, kind, to_device
from raydistill.compression.thinning.labels import Rows, Seen, Site, follow
from raydistill.compression.thinning.mixers import mixers_of, unread
from raydistill.compression.thinning.parts import Part, Taken, Trial
from raydistill.compression.thinning.streams import Stream, streams, unwritten_widths
from raydistill.compression.thinning.units import unit_cut
from raydistill.compression.thinning.width import width_cuts

Ways = list[Part]
"""How one block can be cut, the best first."""

FIXED = "its own code does not run, or gives something else, with fewer"


def look_inside(model: nn.Module, example: Example) -> tuple[Seen, Taken]:
    """What is inside a model's blocks, and their bounds; nothing is taken. model: in eval mode, without hooks; left as
    it is."""
    taken = Taken()
    try:
        seen = follow(*_in_double(model, example))
    except Exception:  # the model's own code may look at values; what is not followed is not thinned
        return Seen(), taken
    for site in seen.sites:
        if site.mixed is not None:
            why = f"the heads of {site.module or 'the network'}"
            taken.given.update({rows.layer: f"reaches {why}" for rows in (site.query, site.key, site.value)})
            taken.read[site.mixed.layer] = f"comes out of {why}"
    for layer, readers in seen.readers.items():
        whole = kind_of(model.get_submodule(layer)).whole
        alone = [reader for reader, rows in readers.items() if bool((rows.where >= 0).all())]
        taken.read.update(dict.fromkeys(alone, f"comes out of {layer}, {whole}"))
    return seen, taken


def thin_inside(
    model: nn.Module, example: Example, structures: Collection[str], layers: Collection[str] | None = None
) -> Taken:
    """What goes of a masked model inside its blocks. model: in eval mode, without hooks; left as it is. layers: only
    what these alone write; None: whatever is zero.

    Blocks of one class are tried together, since their code is one; where that fails, each by itself.
    """
    seen, taken = look_inside(model, example)
    choices = [*_attentions(model, seen, structures, taken), *_recurrent(model, seen, structures)]
    choices += _mixing(model, example, structures)
    choices += _residual(model, example, structures)
    if layers is not None:
        choices = _only_written_by(layers, model, choices, taken)
    if choices:
        trial = Trial(model, example, seen.states)
        for alike in choices:
            taken = _take(trial, taken, alike)
    return taken


def _only_written_by(
    layers: Collection[str], model: nn.Module, choices: Sequence[list[Ways]], taken: Taken
) -> list[list[Ways]]:
    """The choices without those that another layer than these writes."""
    found = []
    for alike in choices:
        kept = []
        for ways in alike:
            rows = {layer for part in ways for layer, is_column in part.leaving if not is_column}
            if all(layer in layers for layer in rows if _has_weight(model.get_submodule(layer))):
                kept.append(ways)
            else:
                taken.reasons.update(dict.fromkeys(ways[0].layers, NOT_NAMED))
        found += [kept] if kept else []
    return found


def _has_weight(module: nn.Module) -> bool:
    return bool(kind_of(module).rounded(module))


def _take(trial: Trial, taken: Taken, alike: Sequence[Ways]) -> Taken:
    """Together where that keeps the outputs, else those of one name, else each by itself."""
    together = [[ways[min(way, len(ways) - 1)] for ways in alike] for way in range(max(map(len, alike)))]
    found = trial.take(taken, together)
    if found is not None:
        return found
    if len(alike) == 1:
        taken.reasons.update(dict.fromkeys(alike[0][0].layers, FIXED))
        return taken
    names = {ways[0].block.rpartition(".")[2] for ways in alike}
    parts = [[ways for ways in alike if ways[0].block.rpartition(".")[2] == name] for name in sorted(names)]
    for part in parts if len(parts) > 1 else ([ways] for ways in alike):
        taken = _take(trial, taken, part)
    return taken


def _attentions(model: nn.Module, seen: Seen, structures: Collection[str], taken: Taken) -> Iterator[list[Ways]]:
    """By class of the module that attends, for each of these what can go in each way."""
    by_class: dict[type, list[Ways]] = {}
    for site in sites_of(model, seen):
        fault = faults_of(site, model)
        if fault:
            taken.reasons.update(dict.fromkeys(site.layers, fault))
            continue
        ways: Ways = []
        tried: set[object] = set()
        for widths, beside in itertools.product(WIDTHS, (True, False)):
            cut = head_cut(site, model, structures, widths, beside)
            if cut is not None and (what := (str(cut), *cut.leaving, *cut.tables)) not in tried:
                tried.add(what)
                ways.append(cut)
        if ways:
            by_class.setdefault(type(model.get_submodule(site.module)), []).append(ways)
    yield from by_class.values()


def sites_of(model: nn.Module, seen: Seen) -> Iterator[Site]:
    """Each attention once, also where one module is called twice."""
    known: set[tuple[str, ...]] = set()
    for site in (*seen.sites, *_packed(model)):
        if site.layers not in known:
            known.add(site.layers)
            yield site


def _packed(model: nn.Module) -> Iterator[Site]:
    """Layers that say by themselves where their heads are."""
    for name, module in model.named_modules():
        heads = kind_of(module).heads(module)
        if heads is not None:
            query, key, value, layer, mixed = heads
            own = f"{name}.{layer}" if name else layer
            yield Site(name, Rows(name, query), Rows(name, key), Rows(name, value), Rows(own, mixed))


def _recurrent(model: nn.Module, seen: Seen, structures: Collection[str]) -> Iterator[list[Ways]]:
    for layer, readers in seen.readers.items():
        module = model.get_submodule(layer)
        if kind_of(module).may_be_cut(module) and layer not in seen.escaped:
            cut = unit_cut(layer, model, readers, structures)
            if cut is not None:
                yield [[cut]]


def _mixing(model: nn.Module, example: Example, structures: Collection[str]) -> Iterator[list[Ways]]:
    found: dict[type, list[Ways]] = {}
    for mixer in mixers_of(model, example) if CHANNELS in structures else ():
        dead = unread(mixer, model)
        if bool(dead.any()) and not bool(dead.all()):
            cut = mixer.cut(dead.nonzero().flatten())
            found.setdefault(type(model.get_submodule(mixer.block)), []).append([cut])
    yield from found.values()


def _residual(model: nn.Module, example: Example, structures: Collection[str]) -> Iterator[list[Ways]]:
    widths = unwritten_widths(model)
    if not widths:
        return
    for stream in streams_of(model, example, widths):
        ways: Ways = list(width_cuts(stream, model, structures))
        if ways:
            yield [ways]


def streams_of(model: nn.Module, example: Example, widths: Collection[int] | None = None) -> list[Stream]:
    """Residual streams of a model, which is left as it is. widths: only those of such."""
    try:
        return streams(*_in_double(model, example), widths)
    except Exception:  # the model's own code may look at values
        return []


def _in_double(model: nn.Module, example: Example) -> tuple[nn.Module, Example]:
    twin = copy_of(model).double()
    return twin, to_device(example, kind(twin)[0], torch.float64)
