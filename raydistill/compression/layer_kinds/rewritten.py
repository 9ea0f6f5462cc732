"""Blocks of other libraries whose code writes as many channels as it reads, so that none of their heads could go."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor, nn

from raydistill.compression.layer_kinds.base import LayerKind
from raydistill.resolve import resolve


@dataclass(frozen=True)
class RewrittenKind(LayerKind):
    """replacement: ``package.module:Class``, a child of the block's class whose code takes its widths from its layers.
    It is imported once a block loses something: the library that it is of has been, then."""

    block: bool = True
    replacement: str = ""

    def before_cut(self, module: nn.Module, stays: Mapping[str, Tensor]) -> None:
        """A block that loses something is one of `replacement` from now on; object, names and parameters stay."""
        resolve(self.replacement, {}, type(module).__name__, "block").take_over(module, stays)
