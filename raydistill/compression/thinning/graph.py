"""Which channels of which layers stand and fall together, from Torch-Pruning's dependency graph (arXiv 2301.12900)."""

from __future__ import annotations

import contextlib
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence
from torch_pruning import ops

from raydistill.compression.layer_kinds import kind_of, weighted
from raydistill.compression.thinning.customized import DependencyGraph, one_node_each
from raydistill.compression.thinning.inputs import Example, call, map_tensors, tensors
from raydistill.errors import ConfigError, Fault

_MOST_INDICES = 300_000


@dataclass(frozen=True)
class Member:
    """One layer's side in a group.

    layer: the module's name. side: "out" (rows of its weight), "in" (columns) or "through" (norms, depthwise convs).
    where, channels: int64 tensors of one length; position on that side, and the channel of the group that it is of.
    """

    layer: str
    side: str
    where: Tensor
    channels: Tensor


@dataclass(frozen=True)
class Group:
    """Channels 0 to width - 1, each written and read by all members together. blocked: why none may go, or None."""

    width: int
    members: tuple[Member, ...]
    blocked: str | None

    def side(self, *sides: str) -> list[Member]:
        return [member for member in self.members if member.side in sides]


@dataclass(frozen=True)
class Graph:
    """groups: every channel of the model that some layer writes. norm_after: for a layer whose only reader is a batch
    norm that reads nothing else, that norm. training: the paths of training mode (auxiliary heads) are in it too."""

    groups: tuple[Group, ...]
    norm_after: dict[str, str]
    training: bool


def trace(model: nn.Module, example: Example) -> Graph:
    """Trace a model in eval mode on its inputs. All its parameters must require gradients.

    Raises:
        ConfigError: the model does not run on these inputs, or autograd cannot follow it.
    """
    # Paths that only training takes (auxiliary heads) have to be cut too; models that want labels there have none.
    for training in (True, False):
        try:
            return _trace(model, example, training)
        except Exception as error:  # whatever the model's own code raises on such a call
            failure = error
        finally:
            model.eval()
            drop_hooks(model)
    rule = f"the model cannot be traced ({type(failure).__name__}: {failure})"
    raise ConfigError(
        Fault("example_input", rule, way_out="give inputs that the model takes, or thin nothing")
    ) from failure


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


def _trace(model: nn.Module, example: Example, training: bool) -> Graph:
    edges: dict[Any, str] = {}  # why what is coupled with this node stays as it is

    def mark(tensor: Tensor, why: str) -> Tensor:
        marked = tensor.detach().clone().requires_grad_() * 1.0
        edges[marked.grad_fn] = why
        return marked

    def forward(module: nn.Module, inputs: Example) -> list[Tensor]:

        # Marked inputs and outputs are nodes of their own, so that what is added to an input, or given out in the
        # middle of the network, is seen to be coupled with it.
        set_training(module, training)
        begins = map_tensors(inputs, lambda tensor: mark(tensor, "coupled with an input of the network"))
        with _left_as_they_are(module, mark) as reached, one_node_each(module):
            outputs = tensors(call(module, begins))
        ends = [tensor * 1.0 for tensor in outputs if tensor.requires_grad]
        for tensor, name in reached:
            ends.append(tensor * 1.0)
            edges[ends[-1].grad_fn] = f"reaches {name}, which is not thinned"
        return ends

    with torch.enable_grad(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Maximum recursive depth")
        graph = DependencyGraph(model)
        graph.build_dependency(
            model,
            example,
            forward_fn=forward,
            customized_pruners=graph.pruners,
            ignored_params=[p for _, module in _recurrent(model) for p in module.parameters(recurse=False)],
            verbose=False,
        )
    names = {module: name for name, module in model.named_modules()}
    shared = _shared(model)

    def why_blocked(node: Any) -> str | None:
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
        _joined(list(_groups(graph, names, why_blocked)), model),
        _norms_after(graph.module2node.values(), names),
        training,
    )


class _Endless(Exception):
    """The library walks in circles: its index mappings do not come back to the indices that they left from."""


class _Walk:
    """How many indices the library may map from one layer on."""

    def __init__(self) -> None:
        self.mapped = 0

    def counted(self, mapping: Callable[[Any], Any], indices: Any) -> Any:
        found = mapping(indices)
        self.mapped += len(found)
        if self.mapped > _MOST_INDICES:
            raise _Endless
        return found


class _Counted(list[Any]):
    """A dependency's index mappings, which count what they map."""

    def __init__(self, mappings: list[Any], walk: _Walk) -> None:
        super().__init__(mappings)
        self._walk = walk

    def __iter__(self) -> Iterator[Any]:
        return (mapping and partial(self._walk.counted, mapping) for mapping in super().__iter__())


def _groups(graph: Any, names: dict[nn.Module, str], why_blocked: Callable[[Any], str | None]) -> Iterator[Group]:
    """The group of every layer that is in no group before it."""
    nodes = graph.module2node
    walk = _Walk()
    for dependency in (dependency for node in nodes.values() for dependency in node.dependencies):
        dependency.index_mapping = _Counted(dependency.index_mapping, walk)
    seen: set[nn.Module] = set()
    for module in list(nodes):
        if not weighted(module) or module in seen:
            continue
        pruner = graph.get_pruner_of_module(module)
        width = pruner.get_out_channels(module)
        walk.mapped = 0
        try:
            found = graph.get_pruning_group(module, pruner.prune_out_channels, list(range(width)))
        except _Endless:
            every = torch.arange(width)
            member = Member(names[module], "out", every, every)
            yield Group(width, (member,), "what its channels are coupled with cannot be followed")
            continue
        seen.update(dep.target.module for dep, _ in found if graph.is_out_channel_pruning_fn(dep.handler))
        yield _group(found, graph, names, why_blocked)


def _recurrent(model: nn.Module) -> list[tuple[str, nn.Module]]:
    return [(name, module) for name, module in model.named_modules() if kind_of(module).recurrent]


@contextlib.contextmanager
def _left_as_they_are(model: nn.Module, mark: Callable[[Tensor, str], Tensor]) -> Iterator[list[tuple[Tensor, str]]]:
    """The library follows nothing through recurrent layers. While this lasts the trace ends where it reaches one (gives
    what reaches which), and begins anew behind it.
    """
    reached: list[tuple[Tensor, str]] = []

    def see(name: str, module: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any]) -> None:
        reached.extend((tensor, name) for tensor in tensors([*inputs, *named.values()]) if tensor.requires_grad)

    def begin(name: str, module: nn.Module, inputs: Any, output: Any) -> Any:
        return _mapped(output, lambda tensor: mark(tensor, f"comes out of {name}, which is not thinned"))

    handles = []
    for name, module in _recurrent(model):
        handles.append(module.register_forward_pre_hook(partial(see, name), with_kwargs=True))
        handles.append(module.register_forward_hook(partial(begin, name)))
    try:
        yield reached
    finally:
        for handle in handles:
            handle.remove()


def _mapped(output: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """What a recurrent layer gives, with its tensors changed: a tensor, packed or not, or a tuple of such."""
    if isinstance(output, PackedSequence):
        return output._replace(data=change(output.data))
    if isinstance(output, tuple):
        return tuple(_mapped(entry, change) for entry in output)
    return change(output) if isinstance(output, Tensor) and output.is_floating_point() else output


def _group(found: Any, graph: Any, names: dict[nn.Module, str], why_blocked: Callable[[Any], str | None]) -> Group:
    root, width = found[0].dep.target, len(found[0].idxs)
    members = []
    reason = None
    for item in found.items:
        node, module = item.dep.target, item.dep.target.module
        reason = reason or why_blocked(node)
        if module not in names:
            continue
        kind = kind_of(module)
        if kind.keeps_apart(module):
            side = "through"
        elif not weighted(module):
            continue
        else:
            side = "out" if graph.is_out_channel_pruning_fn(item.dep.handler) else "in"
        size = kind.columns(module) if side == "in" else kind.rows(module)
        if None in item.root_idxs or max(item.root_idxs) >= width or max(item.idxs) >= size:
            # The library's index mappings do not know every way to slice, repeat and reshape.
            reason = reason or f"the channels of {names[module]} cannot be followed"
            continue
        members.append(Member(names[module], side, torch.tensor(item.idxs), torch.tensor(item.root_idxs)))
    if root.module not in names:
        reason = reason or "first layer is not known"
    if reason is None and not any(member.side == "in" for member in members):
        reason = "no layer reads it"
    return Group(width, tuple(members), reason)


def _joined(groups: list[Group], model: nn.Module) -> tuple[Group, ...]:
    """The same groups, but those that a grouped conv reads together (a concatenation) are one: it must lose as many
    channels in each of its own groups."""
    result: list[Group] = []
    for group in groups:
        grouped = {(m.layer, m.side) for m in group.members if m.side != "through"}
        grouped = {(name, side) for name, side in grouped if _groups_of(model.get_submodule(name)) > 1}
        for other in [g for g in result if grouped & {(m.layer, m.side) for m in g.members}]:
            result.remove(other)
            moved = [replace(member, channels=member.channels + other.width) for member in group.members]
            members: dict[tuple[str, str], Member] = {}
            for member in (*other.members, *moved):
                first = members.get((member.layer, member.side))
                if first is not None:
                    where, channels = (first.where, member.where), (first.channels, member.channels)
                    member = replace(member, where=torch.cat(where), channels=torch.cat(channels))
                members[member.layer, member.side] = member
            group = Group(other.width + group.width, tuple(members.values()), other.blocked or group.blocked)
        result.append(group)
    return tuple(result)


def _groups_of(module: nn.Module) -> int:
    return kind_of(module).groups(module)


def _norms_after(nodes: Any, names: dict[nn.Module, str]) -> dict[str, str]:
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
