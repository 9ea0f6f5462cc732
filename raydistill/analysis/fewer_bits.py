"""The greedy search for the bits of a network that is quantized after training; what was measured is kept."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from raydistill.compression.quantizers.bit_search import Overrides, Step, fewer_bits
from raydistill.compression.quantizers.network import Quantization
from raydistill.compression.quantizers.plan import plan_of
from raydistill.compression.quantizers.weights import LinearWeight
from raydistill.compression.ranks import digest
from raydistill.errors import ABSENT, ConfigError, Fault
from raydistill.files import write_atomically

_WRITE_EVERY_S = 2.0
_KEY = "bits_weights"


@dataclass(frozen=True)
class Asked:
    """choices: of bits. judge: what the network, as it is, costs: the lower, the better. most: what it may cost. file:
    where the costs are kept. about: what they are measured on, as plain values. told: called with each step."""

    choices: Sequence[int]
    judge: Callable[[], float]
    most: float
    file: Path
    about: Mapping[str, Any]
    told: Callable[[Step], None]


def searched(model: nn.Module, held: Quantization) -> dict[str, int]:
    """The weights whose bits can be changed, those that are rounded over their own range, and how large each is."""
    return {
        name: model.get_parameter(name).numel()
        for name in held.weight_names()
        if isinstance(held.weight(name), LinearWeight) and model.get_parameter(name).dim() > 1
    }


def search_bits(model: nn.Module, held: Quantization, asked: Asked) -> dict[str, int]:
    """Give each weight of a quantized network the bits that the search finds, in place; the bits by the weight.

    A cost that was measured by an earlier call on the same network, data and choices is not measured again.

    Raises:
        ConfigError: no weight is rounded over its own range. StorageError: the costs cannot be kept.
    """
    counts = searched(model, held)
    if not counts:
        rule = "no weight is rounded over its own range, so that there are no bits to search"
        raise ConfigError(Fault("--qe-bit-search", rule, ABSENT, "leave out what clips weights"))
    own: dict[str, LinearWeight] = {name: held.weight(name) for name in counts}  # type: ignore[misc]

    def put(said: Mapping[str, int]) -> None:
        for name, bits in said.items():
            mode, axis, group = own[name].mode.value, own[name].axis, own[name].group
            held.replace_weight(name, LinearWeight(bits, mode, axis, group).to(model.get_parameter(name).device))

    network = {"values": digest(model.state_dict().items()), "plan": plan_of(held).to_state()}
    costs = _Costs(asked.file, {**asked.about, **network})

    def cost(overrides: Overrides) -> float:
        bits = {name: int(said[_KEY]) for name, said in overrides.items()}

        def measured() -> float:
            put(bits)
            return asked.judge()

        return costs.of(bits, measured)

    found = dict.fromkeys(counts, max(asked.choices))
    try:
        for step in fewer_bits(counts, asked.choices, cost, asked.most, _KEY):
            found = dict(step.bits)
            asked.told(step)
    finally:
        costs.write()
    put(found)
    return found


class _Costs:
    """Costs by the bits of each weight, in a file that says what they are of; one that says otherwise is begun anew."""

    def __init__(self, file: Path, about: Mapping[str, object]) -> None:
        self._file, self._about = file, json.loads(json.dumps(about))
        self._known: dict[str, float] = {}
        self._written = time.monotonic()
        try:
            content = json.loads(file.read_text())
            if content["about"] == self._about:
                self._known = {str(key): float(value) for key, value in content["costs"].items()}
        except (OSError, ValueError, TypeError, KeyError, AttributeError):  # costs can be measured again
            pass

    def of(self, bits: Mapping[str, int], measure: Callable[[], float]) -> float:
        key = json.dumps(bits, sort_keys=True)
        if key not in self._known:
            self._known[key] = measure()
            if time.monotonic() - self._written >= _WRITE_EVERY_S:
                self.write()
        return self._known[key]

    def write(self) -> None:
        write_atomically(self._file, json.dumps({"about": self._about, "costs": self._known}) + "\n")
        self._written = time.monotonic()
