"""Which channels carry a constant, and which: one forward pass on NaN.

Inputs, and whatever a filter with a nonzero weight writes, become NaN; a filter of zeros writes its bias. NaN spreads
through anything that depends on it (sums, products, normalization over channels), so a number that reaches a layer is
the same for every input of the model, whatever operations lie between.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn

from raydistill.compression.layer_kinds import kind_of, weighted
from raydistill.compression.thinning.graph import set_training
from raydistill.compression.thinning.inputs import Example, call, map_tensors
from raydistill.errors import ConfigError, Fault

if TYPE_CHECKING:
    from torch.utils.hooks import RemovableHandle

_ROUNDING = 1e-5


@dataclass(frozen=True)
class Read:
    """What a layer reads in each of its columns.

    fixed (bool): it does not depend on the model's input. value: it, in the middle of the map. even (bool): it is the
    same at every position. scale: its largest value. shape (int): columns with the same number hold the same map up to
    their scales (0: an even one).
    """

    fixed: Tensor
    value: Tensor
    even: Tensor
    scale: Tensor
    shape: Tensor

    def joined(self, other: Read) -> Read:
        """What a layer reads that is called twice; two different constants count as an uneven one."""
        larger = self.scale.abs() >= other.scale.abs()
        same = (self.scale - other.scale).abs() <= _ROUNDING * torch.maximum(self.scale.abs(), other.scale.abs())
        even = self.even & other.even & same
        alone = torch.arange(1, len(even) + 1, device=even.device)
        return Read(
            self.fixed & other.fixed,
            torch.where(larger, self.value, other.value),
            even,
            torch.where(larger, self.scale, other.scale),
            alone.masked_fill(even, 0),
        )


@torch.no_grad()
def read_constants(model: nn.Module, example: Example, training: bool) -> dict[str, Read]:
    """What each weighted layer reads, and each norm that counts all channels, by its name; the model is left in eval
    mode."""
    reads: dict[str, Read] = {}
    hooks: list[RemovableHandle] = []

    def reader(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            read = _read(inputs[0], kind_of(module).channel_axis(module, inputs[0].dim()) % inputs[0].dim())
            reads[name] = reads[name].joined(read) if name in reads else read

        return hook

    for name, module in model.named_modules():
        kind = kind_of(module)
        if weighted(module) or kind.counts_all:
            hooks.append(module.register_forward_pre_hook(reader(name)))
        if weighted(module) or kind.norm or kind.embedding:
            hooks.append(module.register_forward_hook(_write))
    set_training(model, training)
    try:
        call(model, map_tensors(example, lambda tensor: torch.full_like(tensor, torch.nan)))
    except Exception as error:  # whatever the model's own code raises
        rule = f"the model cannot be followed on inputs of NaN ({type(error).__name__}: {error})"
        raise ConfigError(Fault("model", rule, way_out="leave it as it is")) from error
    finally:
        model.eval()
        for hook in hooks:
            hook.remove()
    return reads


def _write(module: nn.Module, inputs: tuple[object, ...], output: Tensor) -> Tensor:
    """What a layer gives out: NaN where it has weights, its constant where these are zero."""
    kind = kind_of(module)
    if kind.embedding:
        return torch.full_like(output, torch.nan)
    # Depthwise convs and norms keep channels apart: what they compute is NaN where their input is.
    bias = kind.bias_of(module)
    shape = [1] * output.dim()
    shape[kind.channel_axis(module, output.dim())] = -1
    if kind.counts_all:  # a mean over channels: what is not zero moves all that are not
        dead = cast(Tensor, inputs[0]) == 0
    else:
        dead = kind.zero_rows(module).to(output.device).view(shape)
    apart = kind.keeps_apart(module) and not kind.counts_all
    constant = torch.zeros(1, dtype=output.dtype, device=output.device) if bias is None else bias.view(shape)
    return torch.where(dead, constant, output if apart else torch.nan).expand_as(output).contiguous()


def _read(tensor: Tensor, dim: int) -> Read:
    maps = tensor.movedim(dim, 0)
    flat = maps.flatten(1)
    fixed = ~flat.isnan().any(1)
    flat = flat.masked_fill(~fixed.unsqueeze(1), 0)
    scale = flat.gather(1, flat.abs().argmax(1, keepdim=True))
    unit = flat / torch.where(scale == 0, 1, scale)
    even = (unit - unit[:, :1]).abs().amax(1) <= _ROUNDING
    # The middle of the map: its borders see the padding of the layers before.
    middle = maps
    while middle.dim() > 1:
        middle = middle.select(1, middle.shape[1] // 2)
    return Read(fixed, middle.clone(), even & fixed, scale.flatten(), _shapes(unit, even))


def _shapes(unit: Tensor, even: Tensor) -> Tensor:
    """Numbers of the maps (rows of `unit`) that are equal up to rounding; 0 for even ones."""
    numbers = torch.zeros_like(even, dtype=torch.int64)
    uneven = (~even).nonzero().flatten()
    if len(uneven):
        unit = unit[uneven]
        _, found = (unit * 1e3).round().unique(dim=0, return_inverse=True)
        first = torch.full_like(found, len(found)).scatter_reduce_(0, found, torch.arange(len(found)).to(found), "amin")
        differs = (unit - unit[first[found]]).abs().amax(1) > _ROUNDING
        alone = len(found) + torch.arange(len(found)).to(found)
        numbers[uneven] = 1 + torch.where(differs, alone, found)
    return numbers
