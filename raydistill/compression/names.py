"""Parameter names as files spell them, and as the model at hand does.

A model may be wrapped (DataParallel puts ``module`` into its names, torch.compile ``_orig_mod``), a file may be written
for one that is, and a tied weight has several names. The model's own spelling counts first, then the wrapper's parts
are left out on either side.
"""

from __future__ import annotations

from typing import overload

from torch import nn

from raydistill.errors import close_match
from raydistill.schedule.load import without_module_prefix

_WRAPPERS = ("module", "_orig_mod")


class ParameterNames:
    """Looks up what the model calls a parameter."""

    def __init__(self, model: nn.Module) -> None:
        first: dict[int, str] = {}
        self._exact: dict[str, str] = {}
        for name, parameter in model.named_parameters(remove_duplicate=False):
            self._exact[name] = first.setdefault(id(parameter), name)
        found: dict[str, set[str]] = {}
        for name, own in self._exact.items():
            found.setdefault(_bare(name), set()).add(own)
        self._bare = {bare: owners.pop() for bare, owners in found.items() if len(owners) == 1}

    def of(self, text: str) -> str:
        """The model's first name of the parameter that `text` spells; the text without DataParallel's parts where the
        model has none such.
        """
        if text in self._exact:
            return self._exact[text]
        return self._bare.get(_bare(text), without_module_prefix(text))

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


def _bare(name: str) -> str:
    return ".".join(part for part in name.split(".") if part not in _WRAPPERS) or name
