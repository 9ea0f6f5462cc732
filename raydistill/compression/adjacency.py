"""Which layers follow each other in one model: found out by one `trace` of it, and shared by all who ask."""

from __future__ import annotations

import functools
from collections.abc import Sequence

from torch import nn

from raydistill.compression.layer_kinds import kind_of, weighted
from raydistill.compression.trace import Trace, trace
from raydistill.errors import ABSENT, ConfigError, Fault


class Adjacency:
    """Of one model, on one input; nothing is run before somebody asks. Names stay true where the model is thinned.

    example_input: the model's positional inputs, on any device; None if they are not known.
    """

    def __init__(self, model: nn.Module, example_input: Sequence[object] | None) -> None:
        self._model, self._input = model, example_input

    def batch_norms(self, who: str) -> dict[str, str]:
        """`batch_norms` of the model. who: asks, for errors.

        Raises:
            ConfigError: there is no example input, or the model does not run on it.
        """
        if self._input is None:
            raise ConfigError(
                Fault(who, "needs an example input of the model", ABSENT, "pass example_input to build()")
            )
        return batch_norms(self._model, self._seen)

    @functools.cached_property
    def _seen(self) -> Trace:
        assert self._input is not None
        return trace(self._model, self._input, macs=False)


def batch_norms(model: nn.Module, seen: Trace) -> dict[str, str]:
    """Name of each convolution or linear module to the name of the batch norm that reads its output directly.

    seen: the model's trace.
    """
    modules = dict(model.named_modules())
    pairs: dict[str, str] = {}
    made: dict[int, str] = {}
    for visit in seen.visits:
        kind = weighted(modules[visit.module])
        if kind is not None and kind.out_dim == 0 and len(visit.outputs) == 1:
            made[visit.outputs[0]] = visit.module
        elif kind_of(modules[visit.module]).batch_norm and visit.inputs and visit.inputs[0] in made:
            pairs[made[visit.inputs[0]]] = visit.module
    return pairs
