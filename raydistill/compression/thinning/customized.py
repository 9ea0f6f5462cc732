"""Layers that Torch-Pruning does not know, told to it by their `LayerKind`: each becomes one node of its graph."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch_pruning
from torch import Tensor, nn
from torch_pruning import ops

from raydistill.compression.layer_kinds import MENU, UNKNOWN, LayerKind, kind_of, weighted
from raydistill.compression.thinning.inputs import tensors


class DependencyGraph(torch_pruning.DependencyGraph):  # type: ignore[misc]
    """The library's, which asks the kinds of a model's customized layers what it cannot know.

    Build it with ``customized_pruners=graph.pruners``, and trace the model inside `one_node_each`.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self._of_module: dict[nn.Module, Any] = {module: _pruner(module) for module in customized(model)}
        self.pruners = {type(module): pruner for module, pruner in self._of_module.items()}

    def get_pruner_of_module(self, module: nn.Module) -> Any:
        if module not in self._of_module:  # the library asks again and again while it infers widths
            self._of_module[module] = super().get_pruner_of_module(module)
        return self._of_module[module]

    def is_out_channel_pruning_fn(self, function: object) -> bool:
        own = getattr(function, "__func__", None) is _Pruner.prune_out_channels
        return own or bool(super().is_out_channel_pruning_fn(function))


def customized(model: nn.Module) -> list[nn.Module]:
    """Modules that have a kind, of which the library knows nothing or something else."""
    found = []
    for module in model.modules():
        kind = kind_of(module)
        listed = any(kind is one for one in MENU.values())
        followed = weighted(module) or kind.keeps_apart(module) or kind.whole
        cut_off = kind is UNKNOWN or kind.recurrent or kind.embedding
        if followed and not cut_off and not (listed and ops.module2type(module) != ops.OPTYPE.ELEMENTWISE):
            found.append(module)
    return found


@contextlib.contextmanager
def one_node_each(model: nn.Module) -> Iterator[None]:
    """While this lasts autograd sees one step from a customized layer's inputs to its output, whatever it computes."""

    def hook(module: nn.Module, inputs: tuple[object, ...], named: dict[str, object], output: object) -> object:
        if not isinstance(output, Tensor):
            return output
        read = [tensor for tensor in tensors([*inputs, *named.values()]) if tensor.requires_grad]
        return _Step.apply(output.detach(), *read)

    handles = [m.register_forward_hook(hook, prepend=True, with_kwargs=True) for m in customized(model)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


class _Step(torch.autograd.Function):
    """Gives out its first tensor; the others are what it was made of. Its graph is walked, never run backward."""

    @staticmethod
    def forward(ctx: object, output: Tensor, *read: Tensor) -> Tensor:
        return output.clone()


class _Pruner:
    """What the library asks of a layer. Nothing is cut while groups are looked for."""

    pruning_dim = -1

    def __init__(self, kind: LayerKind) -> None:
        self._kind = kind

    def prune_out_channels(self, layer: nn.Module, idxs: object) -> nn.Module:
        return layer

    def prune_in_channels(self, layer: nn.Module, idxs: object) -> nn.Module:
        return layer

    def get_out_channels(self, layer: nn.Module) -> int | None:
        return self._size(self._kind.rows, layer)

    def get_in_channels(self, layer: nn.Module) -> int | None:
        return self._size(self._kind.columns, layer)

    def get_out_channel_groups(self, layer: nn.Module) -> int:
        return self._kind.groups(layer)

    get_in_channel_groups = get_out_channel_groups

    def _size(self, size: Callable[[nn.Module], int], layer: nn.Module) -> int | None:
        return None if self._kind.whole else size(layer)


class _Through(_Pruner):
    """One function for both sides: whoever takes a channel from one takes it from the other."""

    prune_in_channels = _Pruner.prune_out_channels


def _pruner(module: nn.Module) -> _Pruner:
    kind = kind_of(module)
    apart = weighted(module) and not kind.keeps_apart(module)
    return _Pruner(kind) if apart else _Through(kind)
