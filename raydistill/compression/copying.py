"""Copies of models, also of those that Python will not copy."""

from __future__ import annotations

import copy

from torch import Tensor, nn


def copy_of(model: nn.Module) -> nn.Module:
    """A deep copy. What cannot be copied is shared with the original (a lock, a generator, an open file); a tensor that
    is computed anew in each forward pass (old weight_norm's and torch.nn.utils.prune's ``weight``) is copied as it is.
    """
    memo: dict[int, object] = {}
    try:
        return copy.deepcopy(model, memo)
    except Exception:  # whatever an object's own code raises
        memo = {}
    for module in model.modules():
        for value in vars(module).values():
            _prepare(value, memo)
    return copy.deepcopy(model, memo)


def _prepare(value: object, memo: dict[int, object]) -> None:
    """Put into `memo` what is to stand for the parts of an attribute that cannot be copied."""
    if isinstance(value, nn.Module) or id(value) in memo:
        return
    if isinstance(value, Tensor):
        if not value.is_leaf:
            memo[id(value)] = value.detach().clone()
        return
    if isinstance(value, (dict, list, tuple, set)):
        for entry in value.values() if isinstance(value, dict) else value:
            _prepare(entry, memo)
        return
    try:
        copy.deepcopy(value, dict(memo))
    except Exception:
        memo[id(value)] = value
