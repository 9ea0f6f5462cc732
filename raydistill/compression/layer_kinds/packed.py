"""Layers with several weights under one kernel: recurrent ones and attention."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from raydistill.compression.layer_kinds import attention_inputs
from raydistill.compression.layer_kinds.base import LayerKind


@dataclass(frozen=True)
class PackedKind(LayerKind):
    """Its weights are the parameters of its own with two dimensions, rows first."""

    counted: bool = True

    def rounded(self, module: nn.Module) -> dict[str, int | None]:
        return {name: 0 for name, tensor in module.named_parameters(recurse=False) if tensor.dim() == 2}


class AttentionKind(PackedKind):
    """`torch.nn.MultiheadAttention`: its output projection is a layer of its own that is never called as one."""

    def multiplies(self, module: nn.Module) -> tuple[str, ...]:
        return attention_inputs.weights(module)

    def reads(self, module: nn.Module, weight: str, arguments: Sequence[Any], named: Mapping[str, Any]) -> Tensor:
        return attention_inputs.reads(module, weight, arguments, named)


RECURRENT = PackedKind(recurrent=True, whole="which is not thinned")
ATTENTION = AttentionKind(whole="whose heads are left alone")
