"""Which channels go, and where their constants go: folded into biases and running means, or carried by one channel.

`decide` works on a full-width copy of the model. It leaves that copy with the constants folded and everything that goes
zero, so that the copy's outputs are those that the cut model must have.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from raydistill.compression.layer_kinds import kind_of, weighted
from raydistill.compression.thinning.constants import Read, read_constants
from raydistill.compression.thinning.graph import Graph
from raydistill.compression.thinning.groups import Member
from raydistill.compression.thinning.inputs import Example
from raydistill.compression.thinning.layers import response, zero_out

FILTERS, CHANNELS = "filters", "channels"
STRUCTURES = (FILTERS, CHANNELS)
_NO_PLACE = "no bias of {} can stand for its constant"


@dataclass
class Plan:
    """What is to be done to a model.

    removed: for each group the channels that go (bool, one a channel). folded: names of the biases and running means
    that took up constants. carried: for each layer the columns into which others were added. reasons: by group, why a
    zeroed structure of a channel stays. balanced: something stays for the groups of a conv to keep equal sizes.
    """

    removed: dict[int, Tensor]
    folded: set[str] = field(default_factory=set)
    carried: dict[str, set[int]] = field(default_factory=dict)
    reasons: dict[int, dict[tuple[str, int], str]] = field(default_factory=dict)
    balanced: bool = False

    def leaving(self, graph: Graph) -> dict[tuple[str, bool], Tensor]:
        """The positions that go, sorted, by layer and whether they are columns (else rows)."""
        found: dict[tuple[str, bool], set[int]] = {}
        for index, removed in self.removed.items():
            for member in graph.groups[index].members:
                going = member.where[removed[member.channels]].tolist()
                if going:
                    found.setdefault((member.layer, member.side == "in"), set()).update(going)
        return {key: torch.tensor(sorted(positions)) for key, positions in found.items()}


@torch.no_grad()
def decide(
    model: nn.Module, graph: Graph, allowed: Collection[int], example: Example, structures: Collection[str], exact: bool
) -> Plan:
    """Decide for the groups with an index in `allowed`, until nothing more can go: what goes can free what is before
    and behind it. model: contiguous weights, in eval mode; changed in place."""
    plan = Plan({index: torch.zeros(graph.groups[index].width, dtype=torch.bool) for index in allowed})
    modules = dict(model.named_modules())
    before: list[Tensor] | None = None
    while True:
        zeros = [
            _zeros(modules[member.layer], member.side)
            for index in plan.removed
            for member in graph.groups[index].members
        ]
        if before is not None and all(map(torch.equal, zeros, before)):
            return plan
        before = zeros
        reads = read_constants(model, example, graph.training)
        for index in plan.removed:
            _Decision(modules, graph, index, plan, reads, exact).take(structures)


class _Decision:
    """One group's turn: what each of its channels is to each of its readers."""

    def __init__(
        self,
        modules: dict[str, nn.Module],
        graph: Graph,
        index: int,
        plan: Plan,
        reads: dict[str, Read],
        exact: bool,
    ) -> None:
        self.modules, self.graph, self.plan, self.reads, self.exact = modules, graph, plan, reads, exact
        self.index, self.group = index, graph.groups[index]
        self.removed = plan.removed[index]
        self.reasons = plan.reasons[index] = {}
        self.readers = self.group.side("in")
        self.writers = self.group.side("out", "through")

    def take(self, structures: Collection[str]) -> None:
        """Decide, fold what constants there are, and zero what goes."""
        new = torch.zeros_like(self.removed)
        if CHANNELS in structures:
            new |= self._unread()
        if FILTERS in structures:
            new |= self._constant()
        new &= ~self._counted()
        carriers = self._carriers(new) if new.any() else {}
        new[list(carriers.values())] = False
        if new.any():
            new = self._trimmed(new)
        if not new.any():
            return
        for member in self.readers:
            self._fold(member, new, carriers)
            self._zero_out(member, new)
        for member in self.writers:
            self._zero_out(member, new)
        self.removed |= new

    def _zero_out(self, member: Member, channels: Tensor) -> None:
        module = self.modules[member.layer]
        kind = weighted(module)
        if kind is not None:
            zero_out(kind.blocks(module), member.where[channels[member.channels]], member.side)

    def _unread(self) -> Tensor:
        """Channels that every reader multiplies by zero."""
        candidate = torch.zeros_like(self.removed)
        read = torch.zeros_like(self.removed)
        for member in self.readers:
            zero = _zeros(self.modules[member.layer], "in")[member.where].cpu()
            candidate[member.channels[zero]] = True
            read[member.channels[~zero]] = True
            self._reason(CHANNELS, member.channels[~zero], f"{member.layer} reads the channel too")
        return candidate & ~read & ~self.removed

    def _counted(self) -> Tensor:
        """Channels that count in a mean over all, as they are not known to be zero there."""
        found = torch.zeros_like(self.removed)
        for member in self.group.side("through"):
            if kind_of(self.modules[member.layer]).counts_all:
                read = self.reads.get(member.layer)
                channels = member.channels
                if read is not None:
                    channels = channels[~(read.fixed & (read.scale == 0)).cpu()[member.where]]
                found[channels] = True
                for structure in STRUCTURES:
                    self._reason(structure, channels, f"{member.layer} counts the channel, which is not zero there")
        return found

    def _constant(self) -> Tensor:
        """Channels of which some writer is zero, and that carry a constant that can go somewhere."""
        candidate = torch.zeros_like(self.removed)
        for member in self.writers:
            zero = _zeros(self.modules[member.layer], member.side)[member.where].cpu()
            candidate[member.channels[zero]] = True
            if member.side == "out":
                self._reason(FILTERS, member.channels[~zero], f"{member.layer} writes to the same channel")
        stuck = torch.zeros_like(self.removed)
        for member in self.readers:
            fixed, free, folds, carries = self._kinds(member)
            varies = fixed & ~(free | folds | carries)
            stuck[member.channels[varies | ~(fixed | free)]] = True
            self._reason(FILTERS, member.channels[~(fixed | free)], "the channel depends on the input")
            self._reason(FILTERS, member.channels[varies], _NO_PLACE.format(member.layer))
        return candidate & ~stuck & ~self.removed

    def _kinds(self, member: Member) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """For each entry of a reader (bool): reads a constant; adds nothing; can be folded; can be carried."""
        module = self.modules[member.layer]
        kind = kind_of(module)
        zero = _zeros(module, "in")[member.where]
        read = self.reads.get(member.layer)
        if read is None:  # not called on this path: nothing is known
            none = torch.zeros_like(zero).cpu()
            return none, zero.cpu(), none, none
        fixed, even, scale = (part[member.where] for part in (read.fixed, read.even, read.scale))
        free = zero | (fixed & (scale == 0))
        has_place = self._place(member.layer) is not None and kind.adds_evenly(module)
        folds = fixed & (even & (not kind.pads_with_zeros(module)) if self.exact else fixed)
        folds = folds & has_place & ~free
        carries = fixed & ~free & ~folds & (kind.groups(module) == 1)
        return fixed.cpu(), free.cpu(), folds.cpu(), carries.cpu()

    def _place(self, layer: str) -> str | None:
        """The tensor that takes up a constant of a layer's output: its bias, or the mean its norm subtracts."""
        kind = weighted(self.modules[layer])
        if kind is not None and kind.bias_of(self.modules[layer]) is not None:
            return f"{layer}.{kind.bias}"
        norm = self.graph.norm_after.get(layer)
        if norm is None or self.modules[norm].running_mean is None:
            return None
        return f"{norm}.running_mean"

    def _carriers(self, new: Tensor) -> dict[tuple[str, int], int]:
        """The channels that stay to carry constants which cannot be folded, by reader and number of the map's shape.

        A constant that meets zero padding adds less at the borders. Another channel whose map has the same shape adds
        the same if its weights are taken times the ratio of the two: so one stays for all, and as few as can serve all
        readers.
        """
        keys: list[tuple[str, int]] = []
        scales: list[Tensor] = []
        need = torch.zeros_like(new)
        for member in self.readers:
            carries = self._kinds(member)[3] & new[member.channels]
            if carries.any():
                need[member.channels[carries]] = True
                shape = self.reads[member.layer].shape[member.where].cpu()
                scale = self.reads[member.layer].scale[member.where].abs().cpu().float()
                for number in shape[carries].unique().tolist():
                    value = torch.where(shape == number, scale, 0)
                    scales.append(torch.zeros(new.shape).scatter_reduce_(0, member.channels, value, "amax"))
                    keys.append((member.layer, number))
        carriers: dict[tuple[str, int], int] = {}
        if not keys:
            return carriers
        size = torch.stack(scales) * need
        waiting = torch.ones(len(keys), dtype=torch.bool)
        while waiting.any():
            only = waiting & ((size > 0).sum(1) == 1)
            if only.any():
                best = (size[only] > 0).any(0).nonzero().flatten()
            else:
                serves = (size[waiting] > 0).sum(0)
                weakest = torch.where(size > 0, size, torch.inf)[waiting].amin(0)
                best = torch.where(serves == serves.max(), weakest, -1.0).argmax().view(1)
            for row in (waiting & (size[:, best] > 0).any(1)).nonzero().flatten().tolist():
                carriers[keys[row]] = int(best[size[row, best].argmax()])
                reason = _NO_PLACE.format(keys[row][0])
                self._reason(FILTERS, torch.tensor([carriers[keys[row]]]), reason, over=True)
                waiting[row] = False
        return carriers

    def _trimmed(self, new: Tensor) -> Tensor:
        """What may go at once: every layer keeps a channel, group norms lose whole groups, and grouped convs as many
        channels in each of theirs."""
        while True:
            start = new.clone()
            for member in self.group.members:
                module = self.modules[member.layer]
                kind = kind_of(module)
                size = kind.columns(module) if member.side == "in" else kind.rows(module)
                going = (self.removed | new)[member.channels]
                if new.any() and len(set(member.where[going].tolist())) >= size:
                    self._keep(new, member.channels[new[member.channels]][-1:], f"{member.layer} keeps at least one")
                if kind.together(module) > 1:
                    self._whole(new, member, kind.together(module))
                if kind.groups(module) > 1 and not kind.is_depthwise(module):
                    self._balance(new, member, size)
            if torch.equal(start, new):
                return new

    def _whole(self, new: Tensor, member: Member, size: int) -> None:
        """Keep what is normalized together with something that stays."""
        going = (self.removed | new)[member.channels]
        owner = member.where // size
        gone = torch.bincount(owner[going], minlength=int(owner.max()) + 1)
        broken = ((gone > 0) & (gone < size))[owner]
        self._keep(new, member.channels[broken & going], f"{member.layer} normalizes it together with one that stays")

    def _balance(self, new: Tensor, member: Member, size: int) -> None:
        groups = kind_of(self.modules[member.layer]).groups(self.modules[member.layer])
        owner = member.where // (size // groups)
        counts = torch.bincount(owner[(self.removed | new)[member.channels]], minlength=groups)
        room = int(counts.min()) if len(member.where) == size else 0
        for group, count in enumerate(counts.tolist()):
            mine = member.channels[(owner == group) & new[member.channels]]
            stay = mine[len(mine) - (count - room) :]
            self._keep(new, stay, f"the groups of {member.layer} keep equal sizes")
            self.plan.balanced |= len(stay) > 0

    def _keep(self, new: Tensor, channels: Tensor, reason: str) -> None:
        new[channels] = False
        for structure in (FILTERS, CHANNELS):
            self._reason(structure, channels, reason, over=True)

    def _fold(self, member: Member, new: Tensor, carriers: Mapping[tuple[str, int], int]) -> None:
        """Move the constants that a reader gets from channels `new` elsewhere; its columns for them no longer count."""
        read = self.reads.get(member.layer)
        if read is None:
            return
        _, _, folds, carries = (kind & new[member.channels] for kind in self._kinds(member))
        module = self.modules[member.layer]
        kind = weighted(module)
        assert kind is not None  # others read nothing that has columns
        which = member.where[folds].to(read.value.device)
        place = self._place(member.layer)
        if len(which) and place is not None:
            owner, _, name = place.rpartition(".")
            constant = read.value[which] @ response(kind.blocks(module), which)
            getattr(self.modules[owner], name).data += constant if owner == member.layer else -constant
            self.plan.folded.add(place)
        for (layer, number), carrier in carriers.items():
            which = member.where[carries].to(read.shape.device)
            which = which[read.shape[which] == number]
            if layer == member.layer and len(which):
                own = member.where[member.channels == carrier].to(which.device)
                own = own[read.shape[own] == number]
                into = own[read.scale[own].abs().argmax()]
                ratio = (read.scale[which] / read.scale[into]).view(1, -1, 1)
                weight = kind.blocks(module)[0]
                weight[:, into] += (weight[:, which] * ratio).sum(1)
                self.plan.carried.setdefault(member.layer, set()).add(int(into))

    def _reason(self, structure: str, channels: Tensor, reason: str, over: bool = False) -> None:
        for channel in channels.tolist():
            if over or (structure, channel) not in self.reasons:
                self.reasons[structure, channel] = reason


def _zeros(module: nn.Module, side: str) -> Tensor:
    """Which columns (side "in") or rows are zero as a whole."""
    kind = weighted(module)
    return kind.zero_columns(module) if side == "in" and kind is not None else kind_of(module).zero_rows(module)
