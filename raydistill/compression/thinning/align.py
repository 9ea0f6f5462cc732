"""Residual sums whose terms were pruned each by itself: the same filters are taken from all of them."""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping

import torch
from torch import Tensor, nn

from raydistill.compression.layer_kinds import weighted
from raydistill.compression.thinning.graph import Graph


@torch.no_grad()
def aligned_filters(model: nn.Module, graph: Graph) -> dict[str, Tensor]:
    """For each layer of such a sum the filters to prune instead of its own: as many, of least L1 norm in total.

    Only where all terms have lost the same number of filters, but not the same ones.
    """
    result: dict[str, Tensor] = {}
    for group in graph.groups:
        writers = group.side("out")
        modules = [model.get_submodule(member.layer) for member in writers]
        kinds = [kind for kind in map(weighted, modules) if kind is not None and kind.out_dim == 0]
        if group.blocked is not None or len(writers) < 2 or len(kinds) < len(writers):
            continue
        if any(len(m.where) != kind.rows(module) for m, module, kind in zip(writers, modules, kinds, strict=True)):
            continue
        zero = torch.zeros(len(writers), group.width, dtype=torch.bool)
        norms = torch.zeros(group.width)
        for index, (member, module, kind) in enumerate(zip(writers, modules, kinds, strict=True)):
            zero[index, member.channels] = kind.zero_rows(module)[member.where].cpu()
            size = kind.blocks(module).abs().flatten(2).sum(2).flatten()
            norms[member.channels] += size[member.where].cpu().float()
        counts = zero.sum(1)
        if counts[0] == 0 or not counts.eq(counts[0]).all() or zero.eq(zero[0]).all():
            continue
        chosen = torch.zeros(group.width, dtype=torch.bool)
        chosen[norms.argsort(stable=True)[: int(counts[0])]] = True
        result.update({member.layer: member.where[chosen[member.channels]] for member in writers})
    return result


@torch.no_grad()
def prune_instead(model: nn.Module, chosen: Mapping[str, Tensor], masks: MutableMapping[str, Tensor]) -> None:
    """Zero these filters, and let those that were masked in their place be trained again (from zero)."""
    for layer, which in chosen.items():
        kind = weighted(model.get_submodule(layer))
        assert kind is not None
        name = f"{layer}.{kind.weight}" if layer else kind.weight
        weight = model.get_parameter(name)
        weight.data.index_fill_(0, which.to(weight.device), 0)
        if name in masks:
            mask = masks[name].clone()
            mask[(mask == 0).flatten(1).all(1)] = 1
            masks[name] = mask.index_fill(0, which.to(mask.device), 0)
