"""Which batch norm reads which convolution: found by one forward pass, so any way of writing the model will do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from raydistill.compression.layer_kinds import kind_of, weighted


def batch_norms(model: nn.Module, example_input: Sequence[Any]) -> dict[str, str]:
    """Name of each convolution or linear module to the name of the batch norm that reads its output directly.

    example_input: the model's positional inputs, on any device. The model is run once in eval mode and left as it was.
    """
    pairs: dict[str, str] = {}
    made: dict[int, tuple[str, Tensor]] = {}  # the tensor is kept, so that its id stays its own
    hooks = []

    def producer(name: str) -> Any:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            if isinstance(output, Tensor):
                made[id(output)] = (name, output)

        return hook

    def norm(name: str) -> Any:
        def hook(module: nn.Module, inputs: tuple[Any, ...]) -> None:
            found = made.get(id(inputs[0])) if inputs else None
            if found is not None:
                pairs[found[0]] = name

        return hook

    for name, module in model.named_modules():
        kind = weighted(module)
        if kind is not None and kind.out_dim == 0:
            hooks.append(module.register_forward_hook(producer(name)))
        elif kind_of(module).batch_norm:
            hooks.append(module.register_forward_pre_hook(norm(name)))
    try:
        run_once(model, example_input)
    finally:
        for handle in hooks:
            handle.remove()
    return pairs


@torch.no_grad()
def run_once(model: nn.Module, example_input: Sequence[Any]) -> Any:
    """One forward pass in eval mode; each module's training flag is put back, and no random number is used up."""
    flags = {module: module.training for module in model.modules()}
    device = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
    moved = [value.to(device) if isinstance(value, Tensor) else value for value in example_input]
    model.eval()
    try:
        with torch.random.fork_rng(devices=[]):
            return model(*moved)
    finally:
        for module, training in flags.items():
            module.training = training
