"""A quantizer of a schedule: says what of a network is rounded, and to what, before training begins."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

from torch import Tensor, nn

from raydistill.compression.layer_kinds import kind_of
from raydistill.compression.quantizers.overrides import Overrides, checked_bits, checked_overrides
from raydistill.compression.quantizers.plan import Plan, Rounding
from raydistill.compression.quantizers.points import Point, points_of
from raydistill.compression.trace import Trace, trace
from raydistill.errors import ABSENT, ConfigError, Fault, close_match


class Quantizer:
    """Base of a quantizer. name: of its entry in the schedule.

    bits_activations, bits_weights, bits_bias: of what nothing else is said of; None (and 32) leaves floats. overrides:
    by a regular expression of a module's whole name (a call's, where no module makes it), other values; the first that
    matches counts.
    """

    LEAST_BITS: ClassVar[int] = 1
    KEYS: ClassVar[tuple[str, ...]] = ()
    """What an override may say beside the bits."""

    def __init__(
        self,
        name: str,
        bits_activations: int | None = None,
        bits_weights: int | None = None,
        bits_bias: int | None = None,
        overrides: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> None:
        self.name = name
        given = {"bits_weights": bits_weights, "bits_activations": bits_activations, "bits_bias": bits_bias}
        bits = {key: checked_bits(key, value, self.LEAST_BITS) for key, value in given.items()}
        self.overrides: Overrides = checked_overrides(overrides, bits, self.KEYS, self.LEAST_BITS)

    def plan(self, model: nn.Module, example_input: Sequence[object] | None) -> Plan:
        """What is done to this network. example_input: its positional inputs.

        Raises:
            ConfigError: there is nothing to quantize, or the network does not run on its input.
        """
        if example_input is None:
            rule = "needs an example of the network's input, to see what follows what"
            raise ConfigError(Fault("example_input", rule, ABSENT, "give build(..., example_input=...)"))
        seen = trace(model, tuple(example_input), macs=False)
        points = points_of(model, seen)
        weights = dict(self._weights(model))
        chosen = list(self._activations(model, seen, points))
        inputs = [self._input() for value in example_input if isinstance(value, Tensor) and value.is_floating_point()]
        found = Plan(weights, tuple(chosen), tuple(said for said in inputs if said is not None))
        if not found:
            raise ConfigError(Fault("bits_weights", "nothing would be quantized", ABSENT, "give bits, such as 8"))
        return found

    def idle_overrides(self, model: nn.Module, example_input: Sequence[object] | None) -> list[Fault]:
        """The overrides that mean nothing to this network."""
        if not self.overrides.patterns:
            return []
        points = points_of(model, trace(model, tuple(example_input or ()), macs=False))
        names = {name for name, _ in model.named_modules() if name} | {point.name for point in points.values()}
        return [
            Fault(f"overrides.{pattern}", "matches no layer and no call", ABSENT, close_match(pattern, names))
            for pattern in self.overrides.idle(names)
        ]

    def optimizer_settings(self) -> dict[str, object]:
        """What holds for the parameters that it adds, beside the optimizer's own defaults."""
        return {}

    def _weights(self, model: nn.Module) -> Iterator[tuple[str, Rounding]]:
        done: set[int] = set()
        for name, module in model.named_modules():
            kind = kind_of(module)
            said = self.overrides.of(name)
            named = [(attribute, "bits_weights", axis) for attribute, axis in kind.rounded(module).items()]
            if named and kind.bias_of(module) is not None:
                named.append((kind.bias_name, "bits_bias", None))
            for attribute, key, axis in named:
                parameter = getattr(module, attribute)
                if said[key] is None or not isinstance(parameter, nn.Parameter) or id(parameter) in done:
                    continue
                done.add(id(parameter))
                rounding = self._weight(said[key], parameter, axis, key == "bits_bias")
                yield (f"{name}.{attribute}" if name else attribute), rounding

    def _activations(
        self, model: nn.Module, seen: Trace, points: Mapping[int, Point]
    ) -> Iterable[tuple[Point, Rounding]]:
        done: set[Point] = set()
        for index, argument in self._calls(model, seen):
            point = replace(points[index], argument=argument)
            bits = self.overrides.of(point.name)["bits_activations"]
            if bits is not None and point not in done:
                done.add(point)
                yield point, self._at(bits, model, seen, index, argument)

    def _calls(self, model: nn.Module, seen: Trace) -> Iterable[tuple[int, int]]:
        """What is rounded: the positions of calls in the trace, and which of each one's arguments, or its RESULT."""
        raise NotImplementedError

    def _weight(self, bits: int, parameter: Tensor, axis: int | None, is_bias: bool) -> Rounding:
        """axis: the dimension of the channels of a weight; None: it has none."""
        raise NotImplementedError

    def _at(self, bits: int, model: nn.Module, seen: Trace, index: int, argument: int) -> Rounding:
        """What rounds there: `index` and `argument` are as `_calls` gave them."""
        return self._activation(bits)

    def _activation(self, bits: int) -> Rounding:
        raise NotImplementedError

    def _input(self) -> Rounding | None:
        """What rounds an input of the network."""
        return None
