"""What a network reads, as its checkpoint says it: of networks and tasks of one's own nobody else knows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

_MOST_VALUES = 1 << 24


def inputs_state(one: Sequence[Any], two: Sequence[Any]) -> list[dict[str, object]]:
    """Of a task's examples of one sample and of two: of each input its shape, None where the samples lie, and its
    dtype; of numbers of things one sample itself, which others there may be nobody knows. [] where an input is no
    tensor.
    """
    if len(one) != len(two) or not all(isinstance(value, Tensor) for value in (*one, *two)):
        return []
    found = []
    for a, b in zip(one, two, strict=True):
        batch = batch_axis(a, b)
        if batch is None or a.numel() > _MOST_VALUES:
            return []
        shape = [None if axis == batch else size for axis, size in enumerate(a.shape)]
        said: dict[str, Any] = {"shape": shape, "dtype": str(a.dtype).removeprefix("torch.")}
        found.append(said if a.is_floating_point() else {**said, "sample": a.detach().cpu().clone()})
    return found


def batch_axis(one: Tensor, two: Tensor) -> int | None:
    """Where the samples lie in an input, from one sample and from two; None where that does not show."""
    if one.dim() != two.dim():
        return None
    differ = [axis for axis in range(one.dim()) if one.shape[axis] != two.shape[axis]]
    return differ[0] if len(differ) == 1 else None


def are_inputs(value: object) -> bool:
    """Whether this is what `inputs_state` gives."""
    return isinstance(value, list) and all(_is_input(entry) for entry in value)


def _is_input(said: object) -> bool:
    if not isinstance(said, dict) or not isinstance(said.get("shape"), list):
        return False
    sizes = [size for size in said["shape"] if size is not None]
    numel = 1
    for size in sizes:
        if type(size) is not int or size < 1:
            return False
        numel *= size
    dtype = getattr(torch, str(said.get("dtype")), None)
    if len(said["shape"]) - len(sizes) != 1 or len(said["shape"]) > 8 or numel > _MOST_VALUES:
        return False
    if not isinstance(dtype, torch.dtype):
        return False
    sample = said.get("sample")
    one = tuple(1 if size is None else size for size in said["shape"])
    return dtype.is_floating_point if sample is None else isinstance(sample, Tensor) and tuple(sample.shape) == one


def example_inputs(state: Sequence[Mapping[str, Any]], rows: int) -> tuple[Tensor, ...]:
    """So many samples: zeros, or the one that is known again and again."""
    found = []
    for said in state:
        axis = said["shape"].index(None)
        shape = [rows if size is None else size for size in said["shape"]]
        if "sample" in said:
            found.append(torch.cat([said["sample"]] * rows, dim=axis))
        else:
            found.append(torch.zeros(shape, dtype=getattr(torch, said["dtype"])))
    return tuple(found)
