"""Structures that go as a whole: which entries of which weights are one filter, one neuron, one head, one unit.

What thinning takes out where it is zero, a pruner has to make zero: the rows that write a channel and the columns that
read it, of all layers at once. Where all of that is masked, nothing of it is left in any output, so thinning needs no
bias to fold it into.
"""

from __future__ import annotations

import math
import weakref
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from raydistill.compression.copying import copy_of
from raydistill.compression.layer_kinds import kind_of, weighted
from raydistill.compression.layer_kinds.base import along, one_each
from raydistill.compression.layer_kinds.recurrent import directions, gates
from raydistill.compression.thinning.decide import STRUCTURES
from raydistill.compression.thinning.graph import Graph, trace
from raydistill.compression.thinning.groups import Group, Member
from raydistill.compression.thinning.heads import faults_of, of_groups, sharing
from raydistill.compression.thinning.inputs import Example, kind, to_device
from raydistill.compression.thinning.inside import FIXED, look_inside, sites_of, streams_of
from raydistill.compression.thinning.labels import Rows, Site
from raydistill.compression.thinning.mixers import Mixer, mixers_of
from raydistill.compression.thinning.parts import Taken, Trial
from raydistill.compression.thinning.streams import Stream
from raydistill.compression.thinning.thin import rules_of, working_copy
from raydistill.compression.thinning.width import width_cuts
from raydistill.errors import ConfigError

FILTERS, NEURONS, HEADS, UNITS, EMBEDDING = KINDS = ("Filters", "Neurons", "Heads", "Units", "Embedding")


@dataclass(frozen=True)
class Slice:
    """What structures hold of one weight: `where` int64 (structures, entries of `dim`)."""

    weight: str
    dim: int
    where: Tensor

    def of(self, weight: Tensor) -> Tensor:
        """(structures, elements)."""
        rows = weight.movedim(self.dim, 0)
        return rows.reshape(len(rows), -1)[self.where.to(weight.device)].flatten(1)


@dataclass(frozen=True)
class Coupling:
    """Structures that can go one by one, each from all of its slices.

    kind: one of `KINDS`. name: the first layer that writes them. writers: names of the weights that write them. tied:
    couplings of one name lose the same number; "" for none. topology: the same for couplings whose layers are of the
    same kinds. norms, shifts, biases: what else says how large they are, by one number a channel: scales and biases of
    norms, and biases of layers; these go with the rows, no mask is on them.
    """

    kind: str
    name: str
    writers: tuple[str, ...]
    slices: tuple[Slice, ...]
    topology: str
    tied: str = ""
    norms: tuple[Slice, ...] = ()
    shifts: tuple[Slice, ...] = ()
    biases: tuple[Slice, ...] = ()

    @property
    def count(self) -> int:
        return len(self.slices[0].where)

    def expand(self, keep: Tensor, weights: dict[str, Tensor]) -> dict[str, Tensor]:
        """What is kept (1) of each weight, as its mask, from one value a structure."""
        masks: dict[str, Tensor] = {}
        for each in self.slices:
            mask = masks.setdefault(each.weight, torch.ones_like(weights[each.weight]))
            going = each.where[keep.cpu() == 0].flatten().unique().to(mask.device)
            mask.index_fill_(each.dim, going, 0)
        return masks


@dataclass(frozen=True)
class Offer:
    """What of a network can be pruned by structures, and what not: names of layers to the reason."""

    couplings: tuple[Coupling, ...]
    refused: dict[str, str]


_KNOWN: weakref.WeakKeyDictionary[nn.Module, tuple[object, Offer]] = weakref.WeakKeyDictionary()


def known_couplings(model: nn.Module, example: Example) -> Offer:
    """`couplings`, found once for all who ask of a network as long as the shapes of its parameters stay."""
    shapes = tuple((name, tuple(parameter.shape)) for name, parameter in model.named_parameters())
    known = _KNOWN.get(model)
    if known is None or known[0] != shapes:
        known = _KNOWN[model] = shapes, couplings(model, example)
    return known[1]


def couplings(model: nn.Module, example: Example) -> Offer:
    """All of a network. It is left as it is.

    example: a tensor, a sequence of positional inputs or a mapping of named ones.
    """
    work = working_copy(model, {}, torch.float32)
    given = to_device(example, *kind(work))
    seen, inside = look_inside(work, given)
    refused: dict[str, str] = {}
    found: list[Coupling] = []
    with torch.random.fork_rng(devices=[]):
        try:
            graph = trace(work, given, inside.given, inside.read)
        except ConfigError as error:
            refused["the network"] = rules_of(error)
            graph = Graph((), {}, False)
    for group in graph.groups:
        found += _channels(group, work, refused)
    for site in sites_of(work, seen):
        fault = faults_of(site, work)
        if fault:
            refused[site.module] = fault
        else:
            found.append(_heads(site, work))
    for layer, readers in seen.readers.items():
        module = work.get_submodule(layer)
        whole = kind_of(module).may_be_cut(module)
        if not whole or layer in seen.escaped or not readers:
            refused[layer] = "what reads it cannot be followed" if whole else kind_of(module).whole
        else:
            found += _units(layer, module, work, readers)
    found += [_inner(mixer, work) for mixer in mixers_of(work, given)]
    for stream in streams_of(work, given):
        made = _embedding(stream, work)
        if made is not None and _can_go(made, stream, work, given):
            found.append(made)
        elif made is not None:
            refused[made.name] = f"the width of its stream stays: {FIXED}"
    return Offer(tuple(found), refused)


def _embedding(stream: Stream, model: nn.Module) -> Coupling | None:
    """Channels of a residual stream: all that writes them, biases too, and all that reads them."""
    every = torch.arange(stream.width).view(-1, 1)
    known = {id(parameter): name for name, parameter in model.named_parameters()}  # one name where layers share it
    slices: dict[tuple[str, int], Slice] = {}
    for name in (*stream.writers, *stream.readers):
        module = model.get_submodule(name)
        kind_, is_column = kind_of(module), name not in stream.writers
        if stream.escapes or not kind_.can_lose(module, is_column) or kind_.groups(module) > 1:
            return None
        dim = kind_.in_dim if is_column else kind_.out_dim
        weight = known[id(model.get_parameter(f"{name}.{_matrix(model, name)}"))]
        held = stream.positions(name, every.flatten()) if is_column else every
        slices[weight, dim] = Slice(weight, dim, held)
        if not is_column and not kind_.embedding and kind_.bias_of(module) is not None:
            slices[f"{name}.{kind_.bias_name}", 0] = Slice(f"{name}.{kind_.bias_name}", 0, every)
    slices |= {(name, dim): Slice(name, dim, every) for name, dim in stream.tables.items()}
    for name in sorted(stream.norms | stream.apart):  # where the stream goes on behind one, its shift writes too
        for own, tensor in model.get_submodule(name).named_parameters(name):
            dim = along(tensor) if one_each(tensor) else 0
            slices[own, dim] = Slice(own, dim, stream.positions(name, every.flatten()))
    order = {name: index for index, (name, _) in enumerate(model.named_modules())}
    writers = sorted(stream.writers, key=lambda name: order[name])
    names = tuple(known[id(model.get_parameter(f"{name}.{_matrix(model, name)}"))] for name in writers)
    members = [(name, "out") for name in stream.writers] + [(name, "in") for name in stream.readers]
    return Coupling(EMBEDDING, writers[0], names, tuple(slices.values()), _topology(EMBEDDING, members, model))


@torch.no_grad()
def _can_go(made: Coupling, stream: Stream, model: nn.Module, example: Example) -> bool:
    """Whether a quarter of a stream's channels can: others than those found may hold its width, tables of their own or
    sizes that are written into code."""
    work = copy_of(model)
    keep = torch.ones(made.count)
    keep[: max(1, made.count // 4)] = 0
    weights = {each.weight: work.get_parameter(each.weight).data for each in made.slices}
    for name, mask in made.expand(keep, weights).items():
        weights[name].mul_(mask)
    ways = [[cut] for cut in width_cuts(stream, work, STRUCTURES)]
    return Trial(work, example).take(Taken(), ways) is not None


def _channels(group: Group, model: nn.Module, refused: dict[str, str]) -> Iterator[Coupling]:
    writers = [member.layer for member in group.side("out")]
    if group.blocked is not None or not writers:
        refused.update(dict.fromkeys(writers, group.blocked or "nobody writes it"))
        return
    together = _together(group, model)
    adjacent = _adjacent(group, model)
    slices: list[Slice] = []
    for member in group.members:
        alike = together is not None and adjacent is not None and 1 in (together, adjacent)
        made = _slice(member, group.width, together or 1, adjacent or 1, model) if alike else None
        if made is None:
            refused.update(dict.fromkeys(writers, f"{member.layer} reads its channels in groups of another kind"))
            return
        slices += made
    if any(kind_of(model.get_submodule(member.layer)).counts_all for member in group.side("through")):
        slices += _beside(group, together or 1, adjacent or 1, model)[2]  # one that is zero as a whole can go
    matrices = all(model.get_submodule(name).get_parameter(_matrix(model, name)).dim() == 2 for name in writers)
    names = tuple(f"{name}.{_matrix(model, name)}" for name in writers)
    kind_ = NEURONS if matrices else FILTERS
    members = [(member.layer, member.side) for member in group.members]
    topology = _topology(kind_, members, model)
    norms, shifts, biases = _beside(group, together or 1, adjacent or 1, model)
    yield Coupling(kind_, writers[0], names, tuple(slices), topology, norms=norms, shifts=shifts, biases=biases)


def _beside(group: Group, together: int, adjacent: int, model: nn.Module) -> tuple[tuple[Slice, ...], ...]:
    """Scales and shifts of norms, and biases of layers, among a group's members."""
    found: dict[str, tuple[Slice, ...]] = {"norms": (), "shifts": (), "biases": ()}
    for member in group.side("out", "through"):
        module = model.get_submodule(member.layer)
        kind_ = kind_of(module)
        where = _where(member, group.width, together, adjacent)
        for own, tensor in module.named_parameters(recurse=False):
            what = "biases" if own == kind_.bias_name else ""
            if kind_.norm:
                what = "shifts" if what else "norms"
            if what and where is not None:
                dim = along(tensor) if one_each(tensor) else 0
                found[what] = (*found[what], Slice(f"{member.layer}.{own}", dim, where))
    return tuple(found.values())


def _together(group: Group, model: nn.Module) -> int | None:
    """How many channels are one structure: one of each group of the grouped convolutions among the members, which keep
    equal groups. None: these are not the same for all of them."""
    found = {1}
    for member in group.members:
        module = model.get_submodule(member.layer)
        kind_ = weighted(module)
        if kind_ is not None and kind_.groups(module) > 1 and not kind_.is_depthwise(module):
            found.add(kind_.groups(module) if torch.equal(member.where, member.channels) else 0)
    found.discard(1)
    count = found.pop() if found else 1
    return count if not found and count and group.width % count == 0 else None


def _adjacent(group: Group, model: nn.Module) -> int | None:
    """How many neighbouring channels are one structure: those that norms among the members normalize together. None:
    one of them reads other channels along with the group's."""
    found = 1
    for member in group.members:
        module = model.get_submodule(member.layer)
        size = kind_of(module).together(module)
        if size > 1 and not torch.equal(member.where, member.channels):
            return None
        found = math.lcm(found, size)
    return found if group.width % found == 0 else None


def _slice(member: Member, width: int, together: int, adjacent: int, model: nn.Module) -> list[Slice] | None:
    """Of one member of a group; none for a norm, which has no weight of its own to prune; None: it cannot be said.

    together: of so many channels is a structure, one of each of as many equal parts of the group. adjacent: or of so
    many neighbours.
    """
    module = model.get_submodule(member.layer)
    kind_ = weighted(module)
    if kind_ is None:
        return []
    dim = kind_.in_dim if member.side == "in" else kind_.out_dim
    name = f"{member.layer}.{kind_.weight}"
    if member.side == "in" and kind_.groups(module) > 1:  # its weight has the columns of one group only
        return [Slice(name, dim, torch.arange(width // together).view(-1, 1))]
    where = _where(member, width, together, adjacent)
    return None if where is None else [Slice(name, dim, where)]


def _where(member: Member, width: int, together: int, adjacent: int) -> Tensor | None:
    """The positions of each structure, (structures, entries); None where these are not as many for each."""
    each = len(member.where) // width
    order = member.channels.argsort(stable=True)
    if each * width != len(member.where) or not torch.equal(
        member.channels[order], torch.arange(width).repeat_interleave(each)
    ):
        return None
    if adjacent > 1:
        return member.where[order].view(width // adjacent, adjacent * each)
    return member.where[order].view(together, width // together, each).transpose(0, 1).flatten(1)


def _heads(site: Site, model: nn.Module) -> Coupling:
    """Heads that share keys and values are one structure."""
    assert site.mixed is not None  # `faults_of`
    owner = sharing(site)
    groups = int(owner.max()) + 1
    keys, values = (of_groups(rows.where, owner, groups) for rows in (site.key, site.value))
    together = [
        torch.stack([rows.where[owner == g].flatten() for g in range(groups)]) for rows in (site.query, site.mixed)
    ]
    slices = []
    for rows, where, is_column in (
        (site.query, together[0], False), (site.key, keys, False), (site.value, values, False),
        (site.mixed, together[1], True),
    ):  # fmt: skip
        kind_ = kind_of(model.get_submodule(rows.layer))
        dim = kind_.in_dim if is_column else kind_.out_dim
        slices.append(Slice(f"{rows.layer}.{kind_.weight}", dim, where))
    writers = tuple(dict.fromkeys(each.weight for each in slices))
    members = [(rows.layer, "") for rows in (site.query, site.key, site.value, site.mixed)]
    return Coupling(HEADS, site.module, writers, tuple(slices), _topology(HEADS, members, model))


def _units(layer: str, module: nn.Module, model: nn.Module, readers: dict[str, Rows]) -> Iterator[Coupling]:
    parts = directions(module)
    width = kind_of(module).rows(module) // len(parts)
    units = torch.arange(width).view(-1, 1)
    rows = units + width * torch.arange(gates(module))
    last = max(part.layer for part in parts)
    for index, part in enumerate(parts):
        names = (f"{layer}.weight_ih{part.suffix}", f"{layer}.weight_hh{part.suffix}")
        slices = [Slice(names[0], 0, rows), Slice(names[1], 0, rows), Slice(names[1], 1, units)]
        for above in parts:
            for place, read in enumerate(above.inputs):
                if read == index:
                    slices.append(Slice(f"{layer}.weight_ih{above.suffix}", 1, units + place * width))
        for reader, found in readers.items() if part.layer == last else ():
            other = model.get_submodule(reader)
            columns = [(found.where == index * width + unit).nonzero().flatten() for unit in range(width)]
            if len({len(each) for each in columns}) == 1 and len(columns[0]):
                kind_ = weighted(other)
                for name in (
                    [_matrix(model, reader)] if kind_ else [f"weight_ih{p.suffix}" for p in directions(other)[:1]]
                ):
                    slices.append(Slice(f"{reader}.{name}", kind_.in_dim if kind_ else 1, torch.stack(columns)))
        yield Coupling(UNITS, layer, names, tuple(slices), f"{UNITS} {type(module).__name__} {part.layer}", layer)


def _inner(mixer: Mixer, model: nn.Module) -> Coupling:
    """Channels of a block that mixes time by itself: what no layer reads is left out, its tables with it."""
    every = torch.arange(mixer.width)
    sides = [(name, kind_of(model.get_submodule(name)).out_dim, mixer.rows(name, every)) for name in mixer.writers]
    sides += [(name, kind_of(model.get_submodule(name)).in_dim, every.view(-1, 1)) for name in mixer.readers]
    slices = tuple(Slice(f"{name}.{_matrix(model, name)}", dim, where) for name, dim, where in sides)
    members = [(name, "out") for name in mixer.writers] + [(name, "in") for name in mixer.readers]
    writers = tuple(f"{name}.{_matrix(model, name)}" for name in mixer.writers)
    return Coupling(UNITS, mixer.block, writers, slices, _topology(UNITS, members, model))


def _matrix(model: nn.Module, layer: str) -> str:
    return kind_of(model.get_submodule(layer)).weight


def _topology(kind_: str, members: Sequence[tuple[str, str]], model: nn.Module) -> str:
    """Kinds of the layers and their sides, counted (Fang et al. 2024, arXiv 2407.04616, section 3.2)."""
    counts = Counter(f"{type(model.get_submodule(layer)).__name__} {side}" for layer, side in members)
    return f"{kind_}: {', '.join(f'{count} {what}' for what, count in sorted(counts.items()))}"
