"""Weights of which two of every four inputs are left (Mishra et al. 2021, arXiv 2104.08378): where they are faster."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from raydistill.compression.layer_kinds import weighted
from raydistill.errors import ConfigError, Fault

_ROWS, _COLUMNS = 32, 64
"""What torch's kernels want a half-precision weight to have multiples of."""
_CAPABILITY = (8, 0)


@dataclass(frozen=True)
class Found:
    """A weight in 2:4. elements: with its zeros. fits: whether torch has a kernel for its layer."""

    name: str
    elements: int
    fits: bool


def is_two_of_four(weight: Tensor) -> bool:
    """Whether of every four adjacent inputs (dim 1) no more than two are left, and of most exactly two: a weight that
    is all but empty is nothing of the kind. weight: (rows, inputs, ...)."""
    if weight.dim() < 2 or weight.shape[1] % 4 or not weight.numel():
        return False
    left = (weight != 0).movedim(1, -1).unflatten(-1, (-1, 4)).sum(-1)
    return bool((left <= 2).all()) and float((left == 2).float().mean()) > 0.5


def two_of_four(model: nn.Module) -> tuple[Found, ...]:
    """All such weights of a network, in its order."""
    found = []
    for name, module in model.named_modules():
        kind = weighted(module)
        if kind is None or kind.out_dim != 0 or not is_two_of_four(kind.content(module)):
            continue
        shape = kind.content(module).shape
        fits = len(shape) == 2 and shape[0] % _ROWS == 0 and shape[1] % _COLUMNS == 0
        found.append(Found(f"{name}.{kind.weight}" if name else kind.weight, shape.numel(), fits))
    return tuple(found)


def said(found: Sequence[Found], parameters: int) -> tuple[str, ...]:
    """For a person: what is in 2:4 of so many parameters, and where that is faster; nothing where nothing is."""
    if not found:
        return ()
    held = sum(each.elements for each in found) / max(1, parameters)
    what = f"{len(found)} weight{'s keep' if len(found) > 1 else ' keeps'} 2 of every 4 inputs"
    lines = [f"{what}, {100 * held:.0f} % of the parameters: no faster on CPUs, and in no file written here"]
    count = sum(each.fits for each in found)
    if count:
        rule = f"{count} of them can be made faster with raydistill.export.semi_structured.convert"
        lines.append(f"{rule}, in half precision on NVIDIA GPUs of compute capability 8.0 or more")
    else:
        lines.append(
            f"none is a linear layer of a multiple of {_ROWS} rows and {_COLUMNS} columns: no GPU is faster either"
        )
    return tuple(lines)


def convert(model: nn.Module) -> tuple[str, ...]:
    """Let sparse tensor cores compute with a network's 2:4 weights, in place (``to_sparse_semi_structured``); the names
    of those. For inference: the weights cannot be trained or saved any more.

    model: in half precision (float16 or bfloat16) on a GPU.

    Raises:
        ConfigError: nothing would be faster: it lies elsewhere, in another precision, or holds no such weight.
    """
    names = [each.name for each in two_of_four(model) if each.fits]
    if not names:
        rule = f"no linear layer of a multiple of {_ROWS} rows and {_COLUMNS} columns keeps 2 of every 4 inputs"
        raise ConfigError(Fault("model", rule, way_out="prune with n: 2, m: 4"))
    weights = {name: model.get_parameter(name) for name in names}
    for name, weight in weights.items():
        device = weight.device
        if device.type != "cuda" or torch.version.hip or torch.cuda.get_device_capability(device) < _CAPABILITY:
            rule = "is no faster in 2:4 but on an NVIDIA GPU of compute capability 8.0 or more"
            raise ConfigError(Fault(name, rule, str(device), "leave the network as it is"))
        if weight.dtype not in (torch.float16, torch.bfloat16):
            raise ConfigError(Fault(name, "must be in half precision", str(weight.dtype), "call .half() first"))
    from torch.sparse import to_sparse_semi_structured

    for name, weight in weights.items():
        owner, _, attribute = name.rpartition(".")
        sparse = nn.Parameter(to_sparse_semi_structured(weight.detach()), requires_grad=False)
        setattr(model.get_submodule(owner), attribute, sparse)
    return tuple(names)
