"""The modules a model is made of, and the optimizer's settings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

from torch import Tensor, nn
from torch.optim import Optimizer


@dataclass(frozen=True)
class ModuleRow:
    """One module of the tree.

    parameters: elements of its own parameters, without its children's. children: how many modules it has. same_as: its
    other name, where a module stands in several places; empty elsewhere.
    """

    name: str
    type: str
    parameters: int
    children: int
    same_as: str


@dataclass(frozen=True)
class OptimizerRow:
    """One setting of one parameter group; value as text (``0.9``, ``True``)."""

    group: int
    setting: str
    value: str


def module_table(model: nn.Module) -> tuple[ModuleRow, ...]:
    """Every place in the module tree, in order; the model itself has the name ""."""
    first: dict[int, str] = {}
    rows = []
    for name, module in model.named_modules(remove_duplicate=False):
        same_as = first.get(id(module), "")
        first.setdefault(id(module), name)
        own = sum(parameter.numel() for parameter in module.parameters(recurse=False))
        rows.append(ModuleRow(name, type(module).__name__, own, len(list(module.children())), same_as))
    return tuple(rows)


def optimizer_table(optimizer: Optimizer | Mapping[str, object]) -> tuple[OptimizerRow, ...]:
    """The settings of each parameter group, and how many parameters (tensors) it has.

    optimizer: an optimizer, or the ``state_dict()`` of one, which does not say its class.
    """
    if isinstance(optimizer, Optimizer):
        groups, kind = optimizer.param_groups, type(optimizer).__name__
    else:
        groups, kind = cast(list[dict[str, object]], optimizer["param_groups"]), ""
    rows = []
    for index, group in enumerate(groups):
        if kind:
            rows.append(OptimizerRow(index, "class", kind))
        rows.append(OptimizerRow(index, "parameters", str(len(group["params"]))))
        for setting, value in group.items():
            if setting != "params" and value is not None:
                rows.append(OptimizerRow(index, setting, _text(value)))
    return tuple(rows)


def _text(value: object) -> str:
    if isinstance(value, Tensor):  # a capturable optimizer keeps its learning rate on the device
        value = value.tolist()
    return f"{value:g}" if isinstance(value, float) else str(value)
