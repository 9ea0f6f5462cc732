"""The attention of MT5 (Xue et al. 2021, arXiv 2010.11934), which is T5's in a class of its own."""

from __future__ import annotations

from transformers.models.mt5.modeling_mt5 import MT5Attention

from raydistill.compression.layer_kinds.t5 import OwnBias


class OwnBiasAttention(OwnBias, MT5Attention):  # type: ignore[misc]
    """With heads of its own."""
