"""Which channels of which layers stand and fall together, from Torch-Pruning's dependency graph (arXiv 2301.12900)."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch_pruning import ops

from raydistill.compression.layer_kinds import kind_of, weighted
from raydistill.compression.thinning.customized import DependencyGraph, one_node_each
from raydistill.compression.thinning.ends import left_as_they_are, recurrent
from raydistill.compression.thinning.groups import Group, channel_groups
from raydistill.compression.thinning.inputs import Example, call, map_tensors, tensors
from raydistill.compression.thinning.splits import follow_splits
from raydistill.errors import ConfigError, Fault

if TYPE_CHECKING:
    from torch_pruning.dependency import Node

NOT_NAMED = "is written by a layer that is not to be thinned"
NOTHING: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True)
class Graph:
    """groups: every channel of the model that some layer writes. norm_after: for a layer whose only reader is a batch
    norm that reads nothing else, that norm. training: the paths of training mode (auxiliary heads) are in it too."""

    groups: tuple[Group, ...]
    norm_after: dict[str, str]
    training: bool


def trace(
    model: nn.Module, example: Example, given: Mapping[str, str] = NOTHING, read: Mapping[str, str] = NOTHING
) -> Graph:
    """Trace a model in eval mode on its inputs. All its parameters must require gradients.

    given, read: the bounds of blocks that the trace does not look into; see `left_as_they_are`.

    Raises:
        ConfigError: the model does not run on these inputs, or autograd cannot follow it.
    """
    # Paths that only training takes (auxiliary heads) have to be cut too; models that want labels there have none.
    for training in (True, False):
        try:
            return _trace(model, example, given, read, training)
        except Exception as error:  # whatever the model's own code raises on such a call
            failure = error
        finally:
            model.eval()
            drop_hooks(model)
    rule = f"the model cannot be traced ({type(failure).__name__}: {failure})"
    raise ConfigError(
        Fault("example_input", rule, way_out="give inputs that the model takes, or thin nothing")
    ) from failure


def only_written_by(graph: Graph, layers: Collection[str] | None) -> Graph:
    """The same graph in which the channels that another layer than these writes stay; None: every layer may."""
    if layers is None:
        return graph
    groups = tuple(
        group
        if group.blocked or all(member.layer in layers for member in group.side("out"))
        else replace(group, blocked=NOT_NAMED)
        for group in graph.groups
    )
    return replace(graph, groups=groups)


def drop_hooks(model: nn.Module) -> None:
    """Forget all forward hooks: those of statistics would count calls that are none, and a failed trace leaves its."""
    for module in model.modules():
        module._forward_hooks.clear()
        module._forward_pre_hooks.clear()


def set_training(model: nn.Module, training: bool) -> None:
    """Eval mode; with `training` the containers take their training paths, while norms and dropout stay in eval."""
    model.eval()
    if training:
        for module in model.modules():
            owns = [*module.parameters(recurse=False), *module.buffers(recurse=False)]
            module.training = bool(list(module.children())) and not owns


def _trace(
    model: nn.Module, example: Example, given: Mapping[str, str], read: Mapping[str, str], training: bool
) -> Graph:
    edges: dict[object, str] = {}  # why what is coupled with this node stays as it is

    def mark(tensor: Tensor, why: str) -> Tensor:
        marked = tensor.detach().clone().requires_grad_() * 1.0
        edges[marked.grad_fn] = why
        return marked

    def forward(module: nn.Module, inputs: Example) -> list[Tensor]:

        # Marked inputs and outputs are nodes of their own, so that what is added to an input, or given out in the
        # middle of the network, is seen to be coupled with it.
        set_training(module, training)
        begins = map_tensors(inputs, lambda tensor: mark(tensor, "coupled with an input of the network"))
        with left_as_they_are(module, mark, given, read) as reached, one_node_each(module):
            outputs = tensors(call(module, begins))
        ends = [tensor * 1.0 for tensor in outputs if tensor.requires_grad]
        for tensor, why in reached:
            ends.append(tensor * 1.0)
            edges[ends[-1].grad_fn] = why
        return ends

    with torch.enable_grad(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Maximum recursive depth")
        graph = DependencyGraph(model)
        graph.build_dependency(
            model,
            example,
            forward_fn=forward,
            customized_pruners=graph.pruners,
            ignored_params=[p for _, module in recurrent(model) for p in module.parameters(recurse=False)],
            verbose=False,
        )
    follow_splits(graph)
    names = {module: name for name, module in model.named_modules()}
    shared = _shared(model)

    def why_blocked(node: Node) -> str | None:
        module = node.module
        if node.grad_fn in edges:
            return edges[node.grad_fn]
        if node.type == ops.OPTYPE.OUTPUT:
            return "an output of the network"
        if node.type == ops.OPTYPE.PARAMETER:
            return "coupled with a parameter outside any layer"
        name = names.get(module)
        kind = kind_of(module)
        if kind.whole:
            return f"reaches {name}, {kind.whole}"
        if name is None:
            return None
        if name in shared:
            return f"{name} shares its weight"
        return None if kind.may_be_cut(module) else f"{name} is of a kind that is not thinned"

    return Graph(
        channel_groups(graph, names, why_blocked, model),
        _norms_after(graph.module2node.values(), names),
        training,
    )


def _norms_after(nodes: Iterable[Node], names: dict[nn.Module, str]) -> dict[str, str]:
    result = {}
    for node in nodes:
        if weighted(node.module) and len(set(node.outputs)) == 1:
            after = node.outputs[0]
            if kind_of(after.module).batch_norm and set(after.inputs) == {node}:
                result[names[node.module]] = names[after.module]
    return result


def _shared(model: nn.Module) -> set[str]:
    """Names of modules of which a parameter belongs to another module too."""
    owners = [
        (name, id(parameter))
        for name, module in model.named_modules()
        for parameter in module.parameters(recurse=False)
    ]
    counts = Counter(identity for _, identity in owners)
    return {name for name, identity in owners if counts[identity] > 1}
