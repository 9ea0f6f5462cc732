"""Groups of channels, read from Torch-Pruning's dependency graph: what stands and falls together, and why not."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from raydistill.compression.layer_kinds import kind_of, weighted
from raydistill.compression.thinning.renumbering import Lost
from raydistill.compression.thinning.walk import Reached, coupled_with

if TYPE_CHECKING:
    from torch_pruning.dependency import DependencyGraph, Node


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


def _groups(
    graph: DependencyGraph, names: dict[nn.Module, str], why_blocked: Callable[[Node], str | None]
) -> Iterator[Group]:
    """The group of every layer that is in no group before it."""
    seen: set[nn.Module] = set()
    for module in list(graph.module2node):
        if not weighted(module) or module in seen:
            continue
        try:
            found = coupled_with(graph, module)
        except Lost:
            every = torch.arange(graph.get_out_channels(module))
            member = Member(names[module], "out", every, every)
            yield Group(len(every), (member,), "what its channels are coupled with cannot be followed")
            continue
        seen.update(each.node.module for each in found if graph.is_out_channel_pruning_fn(each.handler))
        yield _group(found, graph, names, why_blocked)


def _group(
    found: Sequence[Reached],
    graph: DependencyGraph,
    names: dict[nn.Module, str],
    why_blocked: Callable[[Node], str | None],
) -> Group:
    width = int(found[0].channels.max()) + 1
    members = []
    reason = None
    for each in found:
        module = each.node.module
        reason = reason or why_blocked(each.node)
        if module not in names:
            continue
        kind = kind_of(module)
        if kind.keeps_apart(module):
            side = "through"
        elif not weighted(module):
            continue
        else:
            side = "out" if graph.is_out_channel_pruning_fn(each.handler) else "in"
        size = kind.columns(module) if side == "in" else kind.rows(module)
        if int(each.channels.min()) < 0 or int(each.channels.max()) >= width or int(each.where.max()) >= size:
            # The library's index mappings do not know every way to slice, repeat and reshape.
            reason = reason or f"the channels of {names[module]} cannot be followed"
            continue
        members.append(Member(names[module], side, each.where, each.channels))
    if found[0].node.module not in names:
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
