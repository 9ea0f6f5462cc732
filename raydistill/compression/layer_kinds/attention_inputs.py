"""What the projections of `torch.nn.MultiheadAttention` are multiplied by, from the arguments of a call.

Shapes: E the width, S a query's or a key's tokens of all samples; what is read (groups of rows, S, E).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

_ORDER = ("query", "key", "value")
_PACKED, _OUT = "in_proj_weight", "out_proj.weight"
_APART = {"q_proj_weight": "query", "k_proj_weight": "key", "v_proj_weight": "value"}


def weights(module: nn.Module) -> tuple[str, ...]:
    """The projections that are parameters, by their names in the module."""
    own = [name for name in (_PACKED, *_APART) if isinstance(getattr(module, name, None), nn.Parameter)]
    out: Any = module.get_submodule("out_proj")
    return (*own, *((_OUT,) if isinstance(out.weight, nn.Parameter) else ()))


def reads(module: nn.Module, weight: str, arguments: Sequence[Any], named: Mapping[str, Any]) -> Tensor:
    """arguments, named: of the call. Queries, keys and values, where their projections are packed, are three groups; of
    fewer tokens than another has, the rest is zero."""
    if weight == _OUT:
        return _mixed(module, arguments, named)
    given = {**dict(zip(_ORDER, arguments, strict=False)), **named}
    if weight in _APART:
        return _rows(given[_APART[weight]]).unsqueeze(0)
    each = [_rows(given[name]) for name in _ORDER]
    most = max(len(rows) for rows in each)
    return torch.stack([nn.functional.pad(rows, (0, 0, 0, most - len(rows))) for rows in each])


class _Unprojected(nn.Module):
    """An attention without the hooks of its own."""

    def __init__(self, attention: nn.Module) -> None:
        super().__init__()
        self.attention = attention

    def forward(self, *arguments: object, **named: object) -> object:
        return self.attention.forward(*arguments, **named)


def _mixed(module: nn.Module, arguments: Sequence[object], named: Mapping[str, object]) -> Tensor:
    """The values as attention has mixed them: what it gives where the output projection is the identity."""
    out: Any = module.get_submodule("out_proj")
    plain = {"attention.out_proj.weight": torch.eye(out.weight.shape[0]).to(out.weight)}
    if out.bias is not None:
        plain["attention.out_proj.bias"] = torch.zeros_like(out.bias)
    found = functional_call(_Unprojected(module), plain, tuple(arguments), dict(named))
    return _rows(found[0]).unsqueeze(0)


def _rows(values: Tensor) -> Tensor:
    return values.reshape(-1, values.shape[-1])
