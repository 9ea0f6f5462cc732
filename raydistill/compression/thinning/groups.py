"""Groups of channels, read from Torch-Pruning's dependency graph: what stands and falls together, and why not."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from raydistill.compression.layer_kinds import kind_of, weighted

if TYPE_CHECKING:
    from torch_pruning.dependency import DependencyGraph, Node
    from torch_pruning.dependency import Group as Found

Indices = Sequence[object]
"""Of channels; the library hands its own kind of index about, which only it looks into."""

IndexMapping = Callable[[Indices], Indices]
"""From the indices of one layer's channels to those of the next one's."""

_MOST_INDICES, _MOST_STEPS = 300_000, 10_000


@dataclass(frozen=True)
class Member:
    """One layer's side in a group.

    layer: the module's name. side: "out" (rows of its weight), "in" (columns) or "through" (norms, depthwise convs).
    where, channels: int64 tensors of one length; position on that side, and the channel of the group that it is of.
    """

    layer: str
    side: str
    where: Tensor
    channels: Tensor


@dataclass(frozen=True)
class Group:
    """Channels 0 to width - 1, each written and read by all members together. blocked: why none may go, or None."""

    width: int
    members: tuple[Member, ...]
    blocked: str | None

    def side(self, *sides: str) -> list[Member]:
        return [member for member in self.members if member.side in sides]


def channel_groups(
    graph: DependencyGraph, names: dict[nn.Module, str], why_blocked: Callable[[Node], str | None], model: nn.Module
) -> tuple[Group, ...]:
    """Every group of channels that a layer of the model writes.

    graph: the library's, built. names: of the model's modules. why_blocked: of a node of the graph, why what is coupled
    with it stays, or None.
    """
    return _joined(list(_groups(graph, names, why_blocked)), model)


class _Endless(Exception):
    """The library walks in circles: its index mappings do not come back to the indices that they left from."""


class _Walk:
    """How many indices the library may map from one layer on, and over how many edges of its graph: it looks at every
    edge before for each one more."""

    def __init__(self) -> None:
        self.mapped = self.steps = 0

    def step(self) -> None:
        self.steps += 1
        if self.steps > _MOST_STEPS:
            raise _Endless

    def counted(self, mapping: IndexMapping, indices: Indices) -> Indices:
        found = mapping(indices)
        self.mapped += len(found)
        if self.mapped > _MOST_INDICES:
            raise _Endless
        return found


class _Counted(list[IndexMapping | None]):
    """A dependency's index mappings, which count what they map and how often they are asked for."""

    def __init__(self, mappings: list[IndexMapping | None], walk: _Walk) -> None:
        super().__init__(mappings)
        self._walk = walk

    def __iter__(self) -> Iterator[IndexMapping | None]:
        self._walk.step()
        return (mapping and partial(self._walk.counted, mapping) for mapping in super().__iter__())


def _groups(
    graph: DependencyGraph, names: dict[nn.Module, str], why_blocked: Callable[[Node], str | None]
) -> Iterator[Group]:
    """The group of every layer that is in no group before it."""
    nodes = graph.module2node
    walk = _Walk()
    for dependency in (dependency for node in nodes.values() for dependency in node.dependencies):
        dependency.index_mapping = _Counted(dependency.index_mapping, walk)
    seen: set[nn.Module] = set()
    for module in list(nodes):
        if not weighted(module) or module in seen:
            continue
        pruner = graph.get_pruner_of_module(module)
        width = pruner.get_out_channels(module)
        walk.mapped = walk.steps = 0
        try:
            found = graph.get_pruning_group(module, pruner.prune_out_channels, list(range(width)))
        except _Endless:
            every = torch.arange(width)
            member = Member(names[module], "out", every, every)
            yield Group(width, (member,), "what its channels are coupled with cannot be followed")
            continue
        seen.update(dep.target.module for dep, _ in found if graph.is_out_channel_pruning_fn(dep.handler))
        yield _group(found, graph, names, why_blocked)


def _group(
    found: Found, graph: DependencyGraph, names: dict[nn.Module, str], why_blocked: Callable[[Node], str | None]
) -> Group:
    root, width = found[0].dep.target, len(found[0].idxs)
    members = []
    reason = None
    for item in found.items:
        node, module = item.dep.target, item.dep.target.module
        reason = reason or why_blocked(node)
        if module not in names:
            continue
        kind = kind_of(module)
        if kind.keeps_apart(module):
            side = "through"
        elif not weighted(module):
            continue
        else:
            side = "out" if graph.is_out_channel_pruning_fn(item.dep.handler) else "in"
        size = kind.columns(module) if side == "in" else kind.rows(module)
        if None in item.root_idxs or max(item.root_idxs) >= width or max(item.idxs) >= size:
            # The library's index mappings do not know every way to slice, repeat and reshape.
            reason = reason or f"the channels of {names[module]} cannot be followed"
            continue
        members.append(Member(names[module], side, torch.tensor(item.idxs), torch.tensor(item.root_idxs)))
    if root.module not in names:
        reason = reason or "first layer is not known"
    if reason is None and not any(member.side == "in" for member in members):
        reason = "no layer reads it"
    return Group(width, tuple(members), reason)


def _joined(groups: list[Group], model: nn.Module) -> tuple[Group, ...]:
    """The same groups, but those that a grouped conv reads together (a concatenation) are one: it must lose as many
    channels in each of its own groups."""
    result: list[Group] = []
    for group in groups:
        grouped = {(m.layer, m.side) for m in group.members if m.side != "through"}
        grouped = {(name, side) for name, side in grouped if _conv_groups(model.get_submodule(name)) > 1}
        for other in [g for g in result if grouped & {(m.layer, m.side) for m in g.members}]:
            result.remove(other)
            moved = [replace(member, channels=member.channels + other.width) for member in group.members]
            members: dict[tuple[str, str], Member] = {}
            for member in (*other.members, *moved):
                first = members.get((member.layer, member.side))
                if first is not None:
                    where, channels = (first.where, member.where), (first.channels, member.channels)
                    member = replace(member, where=torch.cat(where), channels=torch.cat(channels))
                members[member.layer, member.side] = member
            group = Group(other.width + group.width, tuple(members.values()), other.blocked or group.blocked)
        result.append(group)
    return tuple(result)


def _conv_groups(module: nn.Module) -> int:
    return kind_of(module).groups(module)
