"""A model's inputs and outputs, whatever their form."""

from __future__ import annotations

import dataclasses
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from raydistill.errors import ConfigError, Fault

Example = Tensor | Sequence[object] | Mapping[str, object]
"""The input, the positional inputs, or the named ones."""


def call(model: nn.Module, example: Example) -> object:
    """The model's output on its inputs."""
    if isinstance(example, Tensor):
        return model(example)
    if isinstance(example, Mapping):
        return model(**example)
    return model(*example)


def map_tensors(example: Example, change: Callable[[Tensor], Tensor]) -> Example:
    """The same inputs with every floating-point tensor changed, in lists, tuples and dicts too; all others stay."""

    def one(value: object) -> object:
        if isinstance(value, Tensor):
            return change(value) if value.is_floating_point() else value
        made: Any = type(value)
        if isinstance(value, (list, tuple)) and made in (list, tuple):
            return made(map(one, value))
        if isinstance(value, dict) and made in (dict, OrderedDict):
            return made((name, one(entry)) for name, entry in value.items())
        return value

    if isinstance(example, Tensor):
        return change(example) if example.is_floating_point() else example
    if isinstance(example, Mapping):
        return {name: one(value) for name, value in example.items()}
    if isinstance(example, Sequence) and not isinstance(example, str):
        return tuple(one(value) for value in example)
    way_out = "give a tensor, a sequence of positional inputs or a mapping of named ones"
    raise ConfigError(Fault("example_input", "cannot be fed to a model", type(example).__name__, way_out))


def to_device(example: Example, device: torch.device, dtype: torch.dtype) -> Example:
    """The inputs on the model's device; floating-point ones in the model's dtype."""
    moved = map_tensors(example, lambda tensor: tensor.detach().to(device, dtype))
    if isinstance(moved, Tensor):
        return moved.to(device)
    if isinstance(moved, Mapping):
        return {name: value.to(device) if isinstance(value, Tensor) else value for name, value in moved.items()}
    return tuple(value.to(device) if isinstance(value, Tensor) else value for value in moved)


def kind(model: nn.Module) -> tuple[torch.device, torch.dtype]:
    """Device and floating-point dtype of a model, by its first parameter."""
    first = next((p for p in model.parameters() if p.is_floating_point()), torch.zeros(()))
    return first.device, first.dtype


def noise_like(example: Example) -> Example:
    """Normal noise of the inputs' shapes, always the same; an example of zeros would hide differences."""
    generator = torch.Generator().manual_seed(0)
    return map_tensors(example, lambda t: torch.randn(t.shape, generator=generator).to(t.device, t.dtype))


def tensors(output: object) -> list[Tensor]:
    """The floating-point tensors of an output, in order, however it nests them."""
    if isinstance(output, Tensor):
        return [output] if output.is_floating_point() else []
    if isinstance(output, PackedSequence):
        return [output.data]
    if isinstance(output, Mapping):
        output = list(output.values())
    elif dataclasses.is_dataclass(output) and not isinstance(output, type):
        output = [getattr(output, field.name) for field in dataclasses.fields(output)]
    if isinstance(output, (list, tuple)):
        return [tensor for value in output for tensor in tensors(value)]
    return []
