"""A summary of one's own: a function of (model, example input) that gives rows as `rows` has them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import is_dataclass
from typing import TYPE_CHECKING

from torch import nn

from raydistill.errors import ConfigError, Fault, users_code
from raydistill.resolve import in_folder, resolve

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


def own_table(
    name: str, model: nn.Module, example_input: tuple[object, ...], where: str
) -> tuple[DataclassInstance, ...]:
    """The rows of the function that ``pkg.mod:function`` names: dataclasses of one kind, one or more.

    where: for the errors. example_input: positional inputs of one sample.

    Raises:
        ConfigError: it cannot be imported, fails, or gives something else.
    """
    function = resolve(name, {}, where, "summary")
    if not callable(function) or isinstance(function, type):
        way_out = "name a function of (model, example_input)"
        raise ConfigError(Fault(where, "is no function", name, way_out))
    with users_code(where, f"'{name}'"), in_folder():
        rows = function(model, example_input)
    kinds = {type(row) for row in rows} if isinstance(rows, Sequence) else set()
    if len(kinds) != 1 or not is_dataclass(kinds.pop()):
        rule = f"'{name}' must give a list of rows, dataclasses of one kind"
        raise ConfigError(Fault(where, rule, rows, "such as raydistill.compression.summaries.ModuleRow"))
    return tuple(rows)
