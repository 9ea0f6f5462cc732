"""Layers with several weights under one kernel: recurrent ones and attention."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from raydistill.compression.layer_kinds.base import LayerKind


@dataclass(frozen=True)
class PackedKind(LayerKind):
    """Its weights are the parameters of its own with two dimensions, rows first."""

    counted: bool = True

    def rounded(self, module: nn.Module) -> dict[str, int | None]:
        return {name: 0 for name, tensor in module.named_parameters(recurse=False) if tensor.dim() == 2}


RECURRENT = PackedKind(recurrent=True, whole="which is not thinned")
ATTENTION = PackedKind(whole="whose heads are left alone")
