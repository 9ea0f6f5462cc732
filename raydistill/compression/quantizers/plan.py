"""What a quantizer is going to do to a network, as plain values: a checkpoint keeps it, and it can be done again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, TypeVar

from torch import nn

from raydistill.compression.quantizers import activations, weights
from raydistill.compression.quantizers.activations import ActivationQuantizer
from raydistill.compression.quantizers.network import Quantization, attach
from raydistill.compression.quantizers.points import Point
from raydistill.compression.quantizers.weights import WeightQuantizer
from raydistill.errors import CheckpointError, Fault, close_match

_WAY_OUT = "it belongs to another architecture, or is damaged"
Kind = TypeVar("Kind", bound=nn.Module)


@dataclass(frozen=True)
class Rounding:
    """A quantizer by its name on the menu of weights or of activations, and its constructor's arguments."""

    kind: str
    args: Mapping[str, Any]


@dataclass(frozen=True)
class Plan:
    """weights: by the parameter's name. activations: the points and what rounds them. inputs: one for each input of
    floats, or none."""

    weights: Mapping[str, Rounding] = field(default_factory=dict)
    activations: Sequence[tuple[Point, Rounding]] = ()
    inputs: Sequence[Rounding] = ()

    def __bool__(self) -> bool:
        return bool(self.weights or self.activations or self.inputs)

    def carry_out(self, model: nn.Module, where: str = "structure") -> Quantization:
        """Make the network a quantized one, in place; it rounds from now on.

        Raises:
            CheckpointError: the network has no such weights, or a kind or its arguments are not known here.
            ConfigError: it is quantized already.
        """
        present = dict(model.named_parameters())
        for name in self.weights:
            if name not in present:
                way_out = close_match(name, present) or _WAY_OUT
                raise CheckpointError(Fault(f"{where}.weights", "the model has no such weight", name, way_out))
        made = Quantization(
            {name: _make(weights.MENU, said, f"{where}.weights.{name}") for name, said in self.weights.items()},
            [(at, _make(activations.MENU, said, f"{where}.activations.{at.name}")) for at, said in self.activations],
            [_make(activations.MENU, said, f"{where}.inputs[{i}]") for i, said in enumerate(self.inputs)],
        )
        attach(model, made)
        return made

    def to_state(self) -> dict[str, object]:
        """Plain values."""
        return {
            "weights": {name: _state(said) for name, said in self.weights.items()},
            "activations": [{**asdict(at), **_state(said)} for at, said in self.activations],
            "inputs": [_state(said) for said in self.inputs],
        }

    @classmethod
    def from_state(cls, state: Mapping[str, object], where: str = "structure") -> Plan:
        """What `to_state` gave, whoever wrote it down.

        Raises:
            CheckpointError: it is not of that form.
        """
        named, listed, inputs = (state.get(key) for key in ("weights", "activations", "inputs"))
        if not isinstance(named, Mapping) or not isinstance(listed, list) or not isinstance(inputs, list):
            raise CheckpointError(Fault(where, "must say weights, activations and inputs", dict(state), _WAY_OUT))
        return cls(
            {str(name): _rounding(said, f"{where}.weights.{name}") for name, said in named.items()},
            tuple((_point(said, f"{where}.activations[{i}]"), _rounding(said, where)) for i, said in enumerate(listed)),
            tuple(_rounding(said, f"{where}.inputs[{i}]") for i, said in enumerate(inputs)),
        )


def plan_of(held: Quantization) -> Plan:
    """What makes another copy of the network one that is quantized so; ranges and the like are in its state."""
    weights = {name: planned(held.weight(name)) for name in held.weight_names()}
    inputs = tuple(planned(quantizer) for quantizer in held.inputs if isinstance(quantizer, ActivationQuantizer))
    return Plan(weights, tuple((point, planned(held.activation(point))) for point in held.points), inputs)


def planned(quantizer: WeightQuantizer | ActivationQuantizer) -> Rounding:
    """A quantizer as a plan says it."""
    return Rounding(quantizer.NAME, quantizer.described())


def _state(said: Rounding) -> dict[str, object]:
    return {"kind": said.kind, "args": dict(said.args)}


def _rounding(said: object, where: str) -> Rounding:
    if not isinstance(said, Mapping) or not isinstance(said.get("kind"), str) or not isinstance(said.get("args"), dict):
        raise CheckpointError(Fault(where, "must say a kind and its args", said, _WAY_OUT))
    return Rounding(said["kind"], said["args"])


def _point(said: object, where: str) -> Point:
    fields = {"name": str, "module": str, "function": str, "position": int, "argument": int}
    if not isinstance(said, Mapping) or any(not isinstance(said.get(key), kind) for key, kind in fields.items()):
        raise CheckpointError(Fault(where, f"must say {', '.join(fields)}", said, _WAY_OUT))
    return Point(**{key: said[key] for key in fields})


def _make(menu: Mapping[str, type[Kind]], said: Rounding, where: str) -> Kind:
    if said.kind not in menu:
        way_out = close_match(said.kind, menu) or "it may be of a later version"
        raise CheckpointError(Fault(f"{where}.kind", "is not known", said.kind, way_out))
    bits = said.args.get("bits")
    if not isinstance(bits, int) or isinstance(bits, bool) or not 1 <= bits <= 32:
        raise CheckpointError(Fault(f"{where}.args.bits", "must be a whole number from 1 to 32", bits, _WAY_OUT))
    try:
        return menu[said.kind](**said.args)
    except (TypeError, ValueError) as error:
        raise CheckpointError(Fault(f"{where}.args", f"do not fit ({error})", dict(said.args), _WAY_OUT)) from error
