"""The record of one folding: which batch norms went into the layers before them."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from raydistill.compression.layer_kinds import kind_of, weighted
from raydistill.compression.quantizers.frozen import frozen_weight
from raydistill.compression.quantizers.network import quantization_of
from raydistill.errors import ABSENT, CheckpointError, Fault, close_match

_WAY_OUT = "it belongs to another architecture or dataset, or is damaged"


@dataclass(frozen=True)
class Folded:
    """norms: by the name of a layer, that of the batch norm whose scale and shift it has taken up.

    The layer has a bias then, the batch norm is an identity, or what it holds beside: its own activation.
    Jacob et al. 2018 (arXiv 1712.05877), section 3.2.
    """

    NAME: ClassVar[str] = "folded"

    norms: Mapping[str, str]

    def __bool__(self) -> bool:
        return bool(self.norms)

    @torch.no_grad()
    def apply(self, model: nn.Module, where: str = "structure") -> None:
        """Fold them, in place.

        Raises:
            CheckpointError: the model has no such layers, or one cannot take up the other; then nothing was changed.
        """
        modules = dict(model.named_modules())
        for layer, norm in self.norms.items():
            for name in (layer, norm):
                if name not in modules:
                    way_out = close_match(name, modules) or _WAY_OUT
                    raise CheckpointError(Fault(f"{where}.norms", "the model has no such layer", name, way_out))
            if not takes_up(modules[layer], modules[norm]) or not rows_can_follow(model, layer, modules[layer]):
                rule = f"the model's '{layer}' cannot take up its '{norm}'"
                raise CheckpointError(Fault(f"{where}.norms.{layer}", rule, ABSENT, _WAY_OUT))
        for layer, norm in self.norms.items():
            follow_rows(model, layer, modules[layer], modules[norm])
            _fold(modules[layer], modules[norm])
            owner, _, attribute = norm.rpartition(".")
            setattr(modules[owner], attribute, _rest(modules[norm]).train(modules[norm].training))

    def to_state(self) -> dict[str, object]:
        return {"norms": dict(self.norms)}

    @classmethod
    def from_state(cls, state: Mapping[str, object], where: str = "structure") -> Folded:
        """What `to_state` gave, whoever wrote it down.

        Raises:
            CheckpointError: it is not of that form.
        """
        norms = state.get("norms")
        if not isinstance(norms, Mapping) or not all(isinstance(name, str) for pair in norms.items() for name in pair):
            raise CheckpointError(Fault(f"{where}.norms", "must map layers to batch norms", norms, _WAY_OUT))
        if len(set(norms.values())) < len(norms):
            raise CheckpointError(Fault(f"{where}.norms", "must name each batch norm once", list(norms.values())))
        return cls(dict(norms))


def takes_up(layer: nn.Module, norm: nn.Module) -> bool:
    """Whether a layer can be given the scale and shift of a batch norm: it has a weight and, if any, a bias of its own,
    as many outputs, and the norm has statistics of its own."""
    kind, after = weighted(layer), kind_of(norm)
    if kind is None or not after.batch_norm or not isinstance(getattr(layer, kind.weight, None), nn.Parameter):
        return False
    statistics = (getattr(norm, "running_mean", None), getattr(norm, "running_var", None))
    if not all(isinstance(values, Tensor) for values in statistics):
        return False
    bias = kind.bias_of(layer)
    return kind.rows(layer) == after.rows(norm) and (bias is None or isinstance(bias, nn.Parameter))


def follow_rows(model: nn.Module, name: str, layer: nn.Module, norm: nn.Module) -> None:
    """The grid of a quantized layer's weight takes up the norm's scale."""
    kind = weighted(layer)
    assert kind is not None
    held = frozen_weight(model, f"{name}.{kind.weight}")
    if held is None:
        return
    scale, variance = getattr(norm, "weight", None), getattr(norm, "running_var", None)
    assert variance is not None  # `takes_up`
    factors = torch.rsqrt(variance.double() + float(getattr(norm, "eps", 0.0)))
    held.scale_rows(kind.content(layer), factors if scale is None else factors * scale.double(), kind.out_dim)


def rows_can_follow(model: nn.Module, name: str, layer: nn.Module) -> bool:
    """Whether a layer's weight is a float, or has a grid that can be scaled row by row."""
    kind, held = weighted(layer), quantization_of(model)
    if kind is None or held is None or not held.enabled or f"{name}.{kind.weight}" not in held.weight_names():
        return True
    return frozen_weight(model, f"{name}.{kind.weight}") is not None and (kind.out_dim == 0 or kind.groups(layer) == 1)


def _rest(norm: nn.Module) -> nn.Module:
    """What is left of a batch norm: parts of its own that run after it, by their names."""
    return nn.Sequential(OrderedDict(norm.named_children())) if has_more(norm) else nn.Identity()


def has_more(norm: nn.Module) -> bool:
    """Whether a batch norm has parts of its own, which may run before it or otherwise than one after the other."""
    return any(True for _ in norm.children())


def _fold(layer: nn.Module, norm: nn.Module) -> None:
    kind = weighted(layer)
    assert kind is not None  # `takes_up`
    weight: nn.Parameter = getattr(layer, kind.weight)
    weight.data = weight.data.contiguous()  # blocks are a view of such a one only
    state = {name: getattr(norm, name).double() for name in ("running_mean", "running_var")}
    scale, shift = getattr(norm, "weight", None), getattr(norm, "bias", None)
    bias = kind.bias_of(layer)
    rows = kind.blocks(layer).flatten(0, 1).double()
    fused, shifted = fuse_conv_bn_weights(
        rows, None if bias is None else bias.double(), state["running_mean"], state["running_var"],
        float(getattr(norm, "eps", 0.0)), None if scale is None else scale.double(),
        None if shift is None else shift.double(),
    )  # fmt: skip
    kind.blocks(layer).copy_(fused.detach().view_as(kind.blocks(layer)))
    content = shifted.detach().to(weight.dtype)
    if bias is None:
        setattr(layer, kind.bias, nn.Parameter(content, requires_grad=weight.requires_grad))
    else:
        bias.data.copy_(content)
