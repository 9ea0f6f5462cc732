"""What a kind of layer is, said in one place: `kind_of` a module, which every other room asks.

A class finds its kind by its ancestors, the nearest first. A layer of one's own says it by a class attribute; it needs
no registration, so it works wherever its class can be imported (in a Ray worker, too):

    class Transposed(nn.Module):  # a weight of (inputs, outputs)
        layer_kind = WeightedKind(out_dim=1, in_dim=0, out_size="n_out", in_size="n_in")

    TheirLayer.layer_kind = WeightedKind()  # of somebody else's class, beside the factory that builds the model
"""

from __future__ import annotations

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd
from torch.nn.modules.instancenorm import _InstanceNorm

from raydistill.compression.layer_kinds.attention import ATTENTION, AttentionKind
from raydistill.compression.layer_kinds.base import Cut, LayerKind
from raydistill.compression.layer_kinds.convolution import (
    CONVOLUTION,
    TRANSPOSED_CONVOLUTION,
    ConvolutionKind,
    kernel_text,
)
from raydistill.compression.layer_kinds.layer_norm import EMBEDDING, LAYER_NORM, RMS_NORM, LayerNormKind
from raydistill.compression.layer_kinds.norm import (
    BATCH_NORM,
    GROUP_NORM,
    INSTANCE_NORM,
    PRELU,
    RESPONSE_NORM,
    NormKind,
    ResponseNormKind,
    SlopeKind,
)
from raydistill.compression.layer_kinds.recurrent import CELL, RECURRENT, RecurrentKind
from raydistill.compression.layer_kinds.rewritten import RewrittenKind
from raydistill.compression.layer_kinds.weighted import LINEAR, WeightedKind
from raydistill.errors import ConfigError, Fault

MENU: dict[type[nn.Module], LayerKind] = {
    _ConvNd: CONVOLUTION,
    _ConvTransposeNd: TRANSPOSED_CONVOLUTION,
    nn.Linear: LINEAR,
    _BatchNorm: BATCH_NORM,
    _InstanceNorm: INSTANCE_NORM,
    nn.PReLU: PRELU,
    nn.LayerNorm: LAYER_NORM,
    nn.RMSNorm: RMS_NORM,
    nn.GroupNorm: GROUP_NORM,
    nn.Embedding: EMBEDDING,
    nn.EmbeddingBag: LayerKind(embedding=True, whole="which is not thinned"),
    nn.RNNBase: RECURRENT,
    nn.RNNCellBase: CELL,
    nn.MultiheadAttention: ATTENTION,
}


def _rewritten(replacement: str, *numbers: str) -> RewrittenKind:
    return RewrittenKind(numbers=numbers, replacement=f"raydistill.compression.layer_kinds.{replacement}")


_OF_T5 = ("n_heads", "key_value_proj_dim", "inner_dim")
BY_NAME: dict[str, LayerKind] = {
    "transformers.pytorch_utils.Conv1D": WeightedKind(out_dim=1, in_dim=0, out_size="nf", in_size="nx"),
    "timm.layers.grn.GlobalResponseNorm": RESPONSE_NORM,
    "transformers.models.convnextv2.modeling_convnextv2.ConvNextV2GRN": ResponseNormKind(eps=1e-6),
    "timm.models.eva.EvaAttention": _rewritten("eva:OwnWidthAttention", "num_heads"),
    "torchvision.models.swin_transformer.ShiftedWindowAttention": _rewritten("windows:WindowAttention", "num_heads"),
    "torchvision.models.swin_transformer.ShiftedWindowAttentionV2": _rewritten("windows:CosineAttention", "num_heads"),
    "torchvision.models.maxvit.RelativePositionalMultiHeadAttention": _rewritten("windows:GridAttention", "n_heads"),
    "transformers.models.t5.modeling_t5.T5Attention": _rewritten("t5:OwnBiasAttention", *_OF_T5),
    "transformers.models.mt5.modeling_mt5.MT5Attention": _rewritten("mt5:OwnBiasAttention", *_OF_T5),
}
"""Of other libraries' classes, which are not imported for it."""
UNKNOWN = LayerKind(block=True)
"""Of every other module: a container, an operation on each element, or what has a parameter that nobody knows."""

__all__ = [
    "ATTENTION",
    "BY_NAME",
    "AttentionKind",
    "BATCH_NORM",
    "CELL",
    "CONVOLUTION",
    "ConvolutionKind",
    "Cut",
    "EMBEDDING",
    "GROUP_NORM",
    "INSTANCE_NORM",
    "LAYER_NORM",
    "LayerNormKind",
    "RMS_NORM",
    "LINEAR",
    "LayerKind",
    "MENU",
    "NormKind",
    "PRELU",
    "RECURRENT",
    "RESPONSE_NORM",
    "RecurrentKind",
    "ResponseNormKind",
    "RewrittenKind",
    "SlopeKind",
    "TRANSPOSED_CONVOLUTION",
    "UNKNOWN",
    "WeightedKind",
    "kernel_text",
    "kind_of",
    "weighted",
]


def kind_of(module: object) -> LayerKind:
    """The kind of a module, by its class; `UNKNOWN` of what is none.

    Raises:
        ConfigError: its class has an attribute ``layer_kind`` that is no `LayerKind`.
    """
    for cls in type(module).__mro__:
        own = vars(cls).get("layer_kind")
        if own is not None:
            if not isinstance(own, LayerKind):
                rule = "must be a LayerKind"
                raise ConfigError(Fault(f"{cls.__name__}.layer_kind", rule, own, "such as WeightedKind()"))
            return own
        if cls in MENU:
            return MENU[cls]
        named = f"{cls.__module__}.{cls.__qualname__}"
        if named in BY_NAME:
            return BY_NAME[named]
    return UNKNOWN


def weighted(module: object) -> WeightedKind | None:
    """The kind of a module that multiplies by a weight; None of any other."""
    kind = kind_of(module)
    return kind if isinstance(kind, WeightedKind) else None
