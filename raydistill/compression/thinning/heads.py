"""Which heads of an attention are dead, and which of the widths of those that are left.

A head is dead where nobody reads what it gives (columns of the layer that mixes heads), or where it gives a constant
(rows of its values): weights of attention sum to one, so that a constant value comes out as it is. Queries and keys go
with their head; heads that share keys and values go together. Of the heads that stay each loses as many widths: of a
value by the same rule, of queries and keys where one of the two is zero, since then all scores of a query move by the
same number.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from raydistill.compression.layer_kinds import kind_of, weighted
from raydistill.compression.thinning.decide import CHANNELS, FILTERS
from raydistill.compression.thinning.labels import Rows, Site
from raydistill.compression.thinning.layers import response
from raydistill.compression.thinning.parts import Leaving, Part, block_of

WIDTHS = ("apart", "together", "values", "none")
"""Ways to narrow the heads that stay: queries and keys by themselves and values by themselves, all by the same number,
values only, not at all. Which of them its own code allows, an attention has to be asked."""


@dataclass(frozen=True, kw_only=True)
class HeadCut(Part):
    """What goes of one attention.

    heads, shared, width, value_width: how many there are before and after: of heads, of those of keys and values, and
    of their widths.
    """

    site: Site
    heads: tuple[int, int]
    shared: tuple[int, int]
    width: tuple[int, int]
    value_width: tuple[int, int]

    @property
    def block(self) -> str:
        return self.site.module

    @property
    def layers(self) -> tuple[str, ...]:
        return self.site.layers

    def counts(self) -> dict[int, int]:
        each = self.heads[0] // self.shared[0]  # how many share one stays, and may be the same number
        return {n: left for n, left in (self.heads, self.shared) if left < n and not n == each > 1}

    def sizes(self) -> dict[int, int]:
        h, k, w, v = self.heads, self.shared, self.width, self.value_width
        products = [(h, w), (k, w), (h, v), (k, v), ((h[0] + 2 * k[0], h[1] + 2 * k[1]), w)]
        pairs = [w, v, *((one[0] * other[0], one[1] * other[1]) for one, other in products)]
        return {before: after for before, after in (*pairs, h, k) if after < before}

    def settings(self) -> dict[int, int]:
        return {before: after for before, after in (self.heads, self.shared) if after < before}

    def __str__(self) -> str:
        parts = []
        if self.heads[1] < self.heads[0]:
            parts.append(f"{self.heads[0] - self.heads[1]} of {self.heads[0]} heads")
        for (before, after), what in ((self.width, "queries and keys"), (self.value_width, "values")):
            if after < before:
                parts.append(f"{before - after} of {before} channels of each head's {what}")
        return " and ".join(parts)


def faults_of(site: Site, model: nn.Module) -> str:
    """Why no head of an attention can be taken out; empty where one can."""
    if site.mixed is None:
        return "what its heads give is not read by one layer alone, as it is"
    for rows, is_column in ((site.query, False), (site.key, False), (site.value, False), (site.mixed, True)):
        module = model.get_submodule(rows.layer)
        if not kind_of(module).may_be_cut(module) or kind_of(module).groups(module) > 1:
            return f"{rows.layer} is of a kind that is not thinned"
        size = kind_of(module).columns(module) if is_column else kind_of(module).rows(module)
        if int(rows.where.max()) >= size:
            return f"the rows of {rows.layer} cannot be followed"
    return ""


@torch.no_grad()
def head_cut(
    site: Site, model: nn.Module, structures: Collection[str], widths: str, beside: bool = True
) -> HeadCut | None:
    """What can go of an attention without another output, or None. widths: one of `WIDTHS`. beside: with what else of
    its block has one entry a head, tables and rows of other layers."""
    assert site.mixed is not None  # `faults_of`
    unread, constant, values = _dead_values(site, model)
    dead = torch.zeros_like(unread)
    for wanted, found in ((CHANNELS, unread), (FILTERS, constant)):
        if wanted in structures:
            dead |= found
    shared_by = sharing(site)
    groups = int(shared_by.max()) + 1
    whole = torch.stack([dead[shared_by == group].all() for group in range(groups)])
    if bool(whole.all()):
        whole[-1] = False  # one stays: who reads nothing is not an attention any more
    stays = (~whole).nonzero().flatten()
    keys = of_groups(site.key.where, shared_by, groups)
    value_rows = of_groups(site.value.where, shared_by, groups)
    keep_q = torch.ones_like(site.query.where, dtype=torch.bool)
    keep_v = torch.ones_like(site.mixed.where, dtype=torch.bool)
    keep_q[whole[shared_by]] = keep_v[whole[shared_by]] = False
    width, value_width = keys.shape[1], value_rows.shape[1]
    if widths != "none":
        scores = _dead_scores(site, model, keys, shared_by, groups)
        fewer = torch.stack([dead[shared_by == group].all(0) for group in range(groups)])
        of_scores = 0 if widths == "values" else _room(scores, stays)
        of_values = _room(fewer, stays)
        if widths == "together":
            of_scores = of_values = min(of_scores, of_values)
        width -= _narrow(keep_q, scores, of_scores, stays, shared_by)
        value_width -= _narrow(keep_v, fewer, of_values, stays, shared_by)
    if bool(keep_q.all()) and bool(keep_v.all()):
        return None
    keep_key = torch.stack([keep_q[shared_by == group][0] for group in range(groups)])
    keep_value = torch.stack([keep_v[shared_by == group][0] for group in range(groups)])
    leaving: Leaving = {}
    for rows, keep, is_column in (
        (Rows(site.query.layer, site.query.where), keep_q, False),
        (Rows(site.key.layer, keys), keep_key, False),
        (Rows(site.value.layer, value_rows), keep_value, False),
        (site.mixed, keep_v, True),
    ):
        going = torch.cat([leaving.get((rows.layer, is_column), rows.where.new_zeros(0)), rows.where[~keep]])
        if len(going):
            leaving[rows.layer, is_column] = going.unique()
    whole_beside = beside and bool(whole.any())
    if whole_beside:
        leaving |= _rows_beside(site, model, whole[shared_by])
    heads, kept_heads = len(shared_by), int((~whole[shared_by]).sum())
    return HeadCut(
        site=site,
        heads=(heads, kept_heads),
        shared=(groups, len(stays)),
        width=(keys.shape[1], width),
        value_width=(value_rows.shape[1], value_width),
        leaving=leaving,
        constants=_constants(site, model, ~keep_v, values),
        tables=_tables(site, model, _entries(site, keys, value_rows, whole, shared_by)) if whole_beside else {},
    )


def sharing(site: Site) -> Tensor:
    """For each head the number of the keys and values that it has, (heads,)."""
    heads, own = site.heads, len(site.key.where)
    if own < heads:  # torch repeats them itself
        return torch.arange(heads) // (heads // own)
    _, numbers = site.key.where.unique(dim=0, return_inverse=True)
    first = [int((numbers == number).nonzero()[0]) for number in range(int(numbers.max()) + 1)]
    order = torch.tensor(first).argsort().argsort()
    return order[numbers]


def of_groups(where: Tensor, shared_by: Tensor, groups: int) -> Tensor:
    """Rows of keys or values, once for each group of heads that shares them: (groups, width)."""
    if len(where) == groups:
        return where
    return torch.stack([where[int((shared_by == group).nonzero()[0])] for group in range(groups)])


def _dead_values(site: Site, model: nn.Module) -> tuple[Tensor, Tensor, Tensor]:
    """Of each head's values, (heads, width of a value): nobody reads it; it is a constant that has a place; that
    constant, which is zero where it varies."""
    assert site.mixed is not None
    mixer, giver = model.get_submodule(site.mixed.layer), model.get_submodule(site.value.layer)
    kind = weighted(mixer)
    assert kind is not None
    unread = kind.zero_columns(mixer).cpu()[site.mixed.where]
    shared_by = sharing(site)
    rows = of_groups(site.value.where, shared_by, int(shared_by.max()) + 1)[shared_by]
    zero = kind_of(giver).zero_rows(giver).cpu()[rows]
    bias = kind_of(giver).bias_of(giver)
    constant = torch.zeros(zero.shape) if bias is None else bias.detach().cpu().float()[rows]
    has_place = kind.bias_of(mixer) is not None
    fixed = zero & (has_place | (constant == 0))
    return unread, fixed, torch.where(fixed, constant, 0)


def _dead_scores(site: Site, model: nn.Module, keys: Tensor, shared_by: Tensor, groups: int) -> Tensor:
    """Which widths of queries and keys add nothing that differs between keys, (groups, width)."""
    if not (site.query.moved and site.key.moved):
        return torch.zeros(keys.shape, dtype=torch.bool)
    query, key = (model.get_submodule(rows.layer) for rows in (site.query, site.key))
    bias = kind_of(query).bias_of(query)
    silent = kind_of(query).zero_rows(query).cpu()[site.query.where]
    if bias is not None:
        silent &= bias.detach().cpu()[site.query.where] == 0
    every = torch.stack([silent[shared_by == group].all(0) for group in range(groups)])
    return every | kind_of(key).zero_rows(key).cpu()[keys]


def _room(dead: Tensor, stays: Tensor) -> int:
    """How many widths can go of each group of heads that stays; one is left."""
    return min(int(dead[stays].sum(1).min()), dead.shape[1] - 1)


def _narrow(keep: Tensor, dead: Tensor, count: int, stays: Tensor, shared_by: Tensor) -> int:
    """Take the first `count` dead widths from each group of heads that stays, in place."""
    for group in stays.tolist():
        going = dead[group].nonzero().flatten()[:count]
        for head in (shared_by == group).nonzero().flatten().tolist():
            keep[head, going] = False
    return count


def _constants(site: Site, model: nn.Module, going: Tensor, values: Tensor) -> dict[str, Tensor]:
    assert site.mixed is not None
    mixer = model.get_submodule(site.mixed.layer)
    kind = weighted(mixer)
    assert kind is not None
    which, value = site.mixed.where[going], values[going]
    if kind.bias_of(mixer) is None or not bool((value != 0).any()):
        return {}
    blocks = kind.blocks(mixer)
    added = value.to(blocks.device, blocks.dtype) @ response(blocks, which.to(blocks.device))
    return {site.mixed.layer: added}


def _rows_beside(site: Site, model: nn.Module, going: Tensor) -> Leaving:
    """Of layers of the block that write a number for each head: biases that are computed, gates."""
    found: Leaving = {}
    for name, module in block_of(model, site.layers):
        kind = weighted(module)
        if kind is not None and name not in site.layers and kind.rows(module) == len(going):
            found[name, False] = going.nonzero().flatten()
    return found


def _entries(
    site: Site, keys: Tensor, values: Tensor, whole: Tensor, shared_by: Tensor
) -> dict[tuple[int, bool], Tensor]:
    """What goes with whole heads of something that has one entry a head, or (True) one for each row of theirs: by how
    many entries there are, the positions."""
    going = whole[shared_by]
    found: dict[tuple[int, bool], Tensor] = {}
    for rows, gone in ((site.query.where, going), (values, whole), (keys, whole)):
        order = rows.flatten().argsort().argsort().view(rows.shape)
        found[rows.numel(), True] = order[gone].flatten().sort().values
    return found | {(len(going), False): going.nonzero().flatten()}


def _tables(site: Site, model: nn.Module, entries: dict[tuple[int, bool], Tensor]) -> dict[str, tuple[int, Tensor]]:
    """Parameters of the block with one entry a head, in a dimension that no other has (biases of relative positions),
    or with one for each row of the heads and nothing else (biases beside a packed layer)."""
    found = {}
    for name, module in block_of(model, site.layers):
        kind = kind_of(module)
        if kind.block or kind.embedding:
            for own, tensor in module.named_parameters(name, recurse=False):
                for (count, of_rows), positions in entries.items():
                    dims = [dim for dim, size in enumerate(tensor.shape) if size == count]
                    if len(dims) == 1 and not (of_rows and tensor.dim() > 1):
                        found[own] = (dims[0], positions)
    return found
