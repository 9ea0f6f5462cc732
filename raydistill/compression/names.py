"""Parameter names as files spell them, and as the model at hand does.

A model may be wrapped (DataParallel puts ``module`` into its names, torch.compile ``_orig_mod``), a file may be written
for one that is, and a tied weight has several names. The model's own spelling counts first, then the wrapper's parts
are left out on either side.
"""

from __future__ import annotations

from typing import overload

from torch import nn
from torch.nn.parameter import is_lazy

from raydistill.compression.layer_kinds import kind_of
from raydistill.errors import close_match
from raydistill.schedule.load import without_module_prefix
from raydistill.schedule.naming import Names
from raydistill.schedule.targets import Named, bare


class ParameterNames:
    """Looks up what the model calls a parameter."""

    def __init__(self, model: nn.Module) -> None:
        first: dict[int, str] = {}
        self._exact: dict[str, str] = {}
        for name, parameter in model.named_parameters(remove_duplicate=False):
            self._exact[name] = first.setdefault(id(parameter), name)
        found: dict[str, set[str]] = {}
        for name, own in self._exact.items():
            found.setdefault(bare(name), set()).add(own)
        self._bare = {short: owners.pop() for short, owners in found.items() if len(owners) == 1}

    def of(self, text: str) -> str:
        """The model's first name of the parameter that `text` spells; the text without DataParallel's parts where the
        model has none such.
        """
        if text in self._exact:
            return self._exact[text]
        return self._bare.get(bare(text), without_module_prefix(text))

    def way_out(self, name: str) -> str:
        """For a name that no parameter has: what it is computed from (weight norm), what lies where the layer was (in a
        sequence of its own, as torchvision's have come to do), or the nearest."""
        module, _, attribute = name.rpartition(".")
        marks = (f"{module}.parametrizations.{attribute}.", f"{module}.{attribute}_")
        sources = [own for own in self._exact if own.startswith(marks)]
        if sources:
            return f"it is computed in each forward pass, from {' and '.join(sources)}: name those"
        beneath = [own for own in self._exact if own.startswith(f"{module}.") and own.endswith(f".{attribute}")]
        return close_match(name, beneath if len(beneath) == 1 else set(self._exact.values()))

    @overload
    def within(self, value: dict[str, object]) -> dict[str, object]: ...

    @overload
    def within(self, value: object) -> object: ...

    def within(self, value: object) -> object:
        """`value` with every text in it, in lists and mapping keys too, looked up so."""
        if isinstance(value, str):
            return self.of(value)
        if isinstance(value, list):
            return [self.within(entry) for entry in value]
        if isinstance(value, dict):
            return {self.within(key): self.within(entry) for key, entry in value.items()}
        return value


def names_of(model: nn.Module) -> Names:
    """What a file may name of a model: its parameters, by their first names, and its layers."""
    modules = dict(model.named_modules(remove_duplicate=False))
    types: dict[int, dict[str, None]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        owner = name.partition(".parametrizations.")[0] if ".parametrizations." in name else name.rpartition(".")[0]
        types.setdefault(id(parameter), {}).update(dict.fromkeys(_types(modules[owner])))
    return Names(
        tuple(Named(name, tuple(types[id(p)]), _is_weight(p)) for name, p in model.named_parameters()),
        tuple(
            Named(name, _types(module), bool(kind_of(module).rounded(module)))
            for name, module in model.named_modules()
            if name
        ),
    )


def _is_weight(parameter: nn.Parameter) -> bool:
    return not is_lazy(parameter) and parameter.dim() >= 2


def _types(module: nn.Module) -> tuple[str, ...]:
    """Its class and those it is derived from, nearest first, but those that say nothing of it."""
    return tuple(cls.__name__ for cls in type(module).__mro__ if issubclass(cls, nn.Module) and cls is not nn.Module)
