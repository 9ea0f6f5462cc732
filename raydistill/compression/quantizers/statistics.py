"""What a network's activations are like over calibration data, and Distiller's YAML files of it.

A file maps the names of layers and calls to ``{inputs: {0: RECORD, ...}, output: RECORD}``; a record has min, max,
avg_min and avg_max (means over samples of each one's extremes), mean, std, b (mean absolute deviation from the mean),
shape (text, of the first batch) and total_numel.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from raydistill.compression.quantizers.histograms import Histogram, histogram_of
from raydistill.compression.quantizers.points import Point, points_of
from raydistill.compression.quantizers.watch import Place, computed, given, watching
from raydistill.compression.trace import trace
from raydistill.errors import ABSENT, ConfigError, DataError, Fault, close_match
from raydistill.files import write_atomically
from raydistill.schedule.yaml_file import dump_yaml, read_yaml

NUMBERS = ("min", "max", "avg_min", "avg_max", "mean", "std", "b")
_FEW = 3
_SILENT = frozenset(
    {"chunk", "clone", "contiguous", "detach", "dim", "expand", "expand_as", "flatten", "getitem", "numel", "permute",
     "repeat", "reshape", "shape", "size", "split", "squeeze", "t", "to", "transpose", "unbind", "unsqueeze", "view"}
)  # fmt: skip
"""Functions that only move values; nothing is written of them where no module of their own stands for them."""

Batches = Callable[[], Iterable[Sequence[Any]]]
"""Gives the calibration data, the same ones each time: the positional inputs of one forward pass after the other."""


@dataclass(frozen=True)
class Record:
    """One tensor's statistics over all batches. histogram: not in files; None where nobody asked for it."""

    min: float
    max: float
    avg_min: float
    avg_max: float
    mean: float
    std: float = 0.0
    b: float = 0.0
    shape: str = ""
    total_numel: int = 0
    histogram: Histogram | None = field(default=None, compare=False)

    @property
    def numbers(self) -> dict[str, float]:
        return {name: getattr(self, name) for name in NUMBERS}

    def clipped(self, lowest: float, highest: float) -> Record:
        """Of the values as far as they lie in this range: behind a function that does not tell apart what is outside.

        mean, std and b stay those of all values, as Distiller has them.
        """
        within = {name: min(max(getattr(self, name), lowest), highest) for name in ("min", "max", "avg_min", "avg_max")}
        histogram = None if self.histogram is None else self.histogram.within(lowest, highest)
        return replace(self, histogram=histogram, **within)


@dataclass(frozen=True)
class LayerRecords:
    """inputs: by the position of a tensor among those that the call is given, parameters not counted."""

    output: Record
    inputs: Mapping[int, Record] = field(default_factory=dict)


Statistics = Mapping[str, LayerRecords]
"""By the name of a layer, or of a call as `Point.name` has it."""


class _Running:
    """One tensor's statistics while they are collected, sums in float64."""

    def __init__(self) -> None:
        self.min, self.max = math.inf, -math.inf
        self.sums = dict.fromkeys(("avg_min", "avg_max", "mean", "square", "b"), 0.0)
        self.samples = self.numel = 0
        self.shape = ""
        self.counts: Tensor | None = None

    def add(self, facts: _Facts) -> None:
        self.min, self.max = min(self.min, facts.min), max(self.max, facts.max)
        for name, value in (("avg_min", facts.lows), ("avg_max", facts.highs), ("mean", facts.total)):
            self.sums[name] += value
        self.samples += facts.samples
        self.numel += facts.numel
        self.shape = self.shape or facts.shape

    @property
    def mean(self) -> float:
        return self.sums["mean"] / self.numel

    def add_spread(self, values: Tensor, histogram: bool) -> None:
        """Of a second pass over the same values, when their mean and extremes are known."""
        away = values.detach().float() - self.mean
        self.sums["b"] += _total(away.abs())
        self.sums["square"] += _total(away.square_())
        if histogram:
            counts = histogram_of(values, self.min, self.max).counts
            self.counts = counts if self.counts is None else self.counts + counts

    def record(self) -> Record:
        return Record(
            self.min,
            self.max,
            self.sums["avg_min"] / self.samples,
            self.sums["avg_max"] / self.samples,
            self.mean,
            math.sqrt(self.sums["square"] / self.numel),
            self.sums["b"] / self.numel,
            self.shape,
            self.numel,
            None if self.counts is None else Histogram(self.counts, self.min, self.max),
        )


@dataclass(frozen=True)
class _Facts:
    """Of one batch's tensor. lows, highs: sums over samples of each one's extremes. version: of the tensor, which in
    place operations raise."""

    min: float
    max: float
    lows: float
    highs: float
    total: float
    samples: int
    numel: int
    shape: str
    version: int

    @classmethod
    def of(cls, values: Tensor) -> _Facts:
        """Found once for a tensor, which is one call's result and another's input."""
        known = getattr(values, _FACTS, None)
        if isinstance(known, _Facts) and known.version == values._version:
            return known
        rows = values.detach().reshape(len(values), -1) if values.dim() else values.detach().reshape(1, 1)
        if rows.shape[1] == 1:  # a sample of one number has no extremes; the batch has
            rows = rows.T
        lows, highs = rows.amin(1), rows.amax(1)  # on a CPU three times as fast as aminmax of a dimension
        found = cls(
            float(lows.min()),
            float(highs.max()),
            float(lows.sum(dtype=torch.float64)),
            float(highs.sum(dtype=torch.float64)),
            _total(rows),
            len(rows),
            rows.numel(),
            str(tuple(values.shape)),
            values._version,
        )
        setattr(values, _FACTS, found)
        return found


_FACTS = "_raydistill_facts"
"""The attribute of a tensor whose statistics are known."""


def _copied(values: Tensor) -> Tensor:
    """A copy, of which is known what is known of the tensor now."""
    copy, known = values.clone(), getattr(values, _FACTS, None)
    if isinstance(known, _Facts) and known.version == values._version:
        setattr(copy, _FACTS, replace(known, version=copy._version))
    return copy


def _total(values: Tensor) -> float:
    """The sum. Within each sample torch adds in float32, in a tree: a sum in float64 copies all of it first, which on a
    CPU takes ten times as long."""
    rows = values.reshape(len(values), -1) if values.dim() > 1 else values.reshape(1, -1)
    narrow = rows.is_floating_point() and rows.element_size() < 4
    return float(rows.sum(1, dtype=torch.float32 if narrow else None).sum(dtype=torch.float64))


class _Collecting:
    """By the name of a layer and by the position of an input, -1 for the output, what was seen."""

    def __init__(self, names: Mapping[Place, str]) -> None:
        self.names = names
        self.running: dict[str, dict[int, _Running]] = {}
        self.spread = self.histogram = False

    @torch.no_grad()
    def __call__(self, place: Place, arguments: Sequence[object], result: object) -> None:
        name, output = self.names.get(place), given(result)
        if name is None or output is None or not output.numel():
            return
        tensors = {-1: output, **dict(enumerate(computed(arguments)))}
        of_layer = self.running.setdefault(name, {})
        for at, values in tensors.items():
            if not values.numel() or values.is_complex():
                continue
            running = of_layer.setdefault(at, _Running())
            if self.spread:
                running.add_spread(values, self.histogram)
            else:
                running.add(_Facts.of(values))


def collect(
    model: nn.Module,
    example: Sequence[object],
    batches: Batches,
    spread: bool = True,
    histograms: bool = False,
) -> dict[str, LayerRecords]:
    """Run the network, in eval mode, over calibration data, one batch at a time in memory.

    example: its positional inputs, to see what follows what. spread: a second pass finds std and b, without which they
    are 0. histograms: that pass counts values, too, for percentiles and least errors.

    Raises:
        ConfigError: the network does not run on the example.
        DataError: there is no batch, or what a layer gives is not finite.
    """
    watched = _Collecting(_names(model, points_of(model, trace(model, example, macs=False)).values()))
    passes = [False, True] if spread or histograms else [False]
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        for watched.spread in passes:
            watched.histogram = histograms
            seen = False
            for inputs in batches():
                seen = True
                with watching(model, watched, _copied), torch.no_grad():
                    model(*inputs)
            if not seen:
                raise DataError(Fault("calibration", "needs at least one batch", 0, "use more of the data"))
    finally:
        for module in training:
            module.training = True
    for name, of_layer in watched.running.items():
        if not all(math.isfinite(running.min) and math.isfinite(running.max) for running in of_layer.values()):
            rule = "gives values that are not finite on the calibration data"
            raise DataError(Fault(name, rule, ABSENT, "the network or the data are damaged"))
    return {
        name: LayerRecords(of_layer[-1].record(), {at: of_layer[at].record() for at in sorted(of_layer) if at >= 0})
        for name, of_layer in watched.running.items()
    }


def _names(model: nn.Module, points: Iterable[Point]) -> dict[Place, str]:
    leaves = {name for name, module in model.named_modules() if not list(module.children())}
    return {
        (point.module, point.function, point.position): point.name
        for point in points
        if point.function not in _SILENT or (point.module in leaves and point.name == point.module)
    }


def write_statistics(path: str | Path, statistics: Statistics) -> None:
    """Write them in Distiller's form.

    Raises:
        StorageError: the file cannot be written.
    """
    write_atomically(path, dump_yaml({name: as_mapping(records) for name, records in statistics.items()}))


def as_mapping(records: LayerRecords) -> dict[str, object]:
    """A layer's entry of a file."""
    inputs = {at: _written(record) for at, record in records.inputs.items()}
    return {**({"inputs": inputs} if inputs else {}), "output": _written(records.output)}


def _written(record: Record) -> dict[str, object]:
    return {**record.numbers, "shape": record.shape, "total_numel": record.total_numel}


def read_statistics(path: str | Path) -> dict[str, LayerRecords]:
    """What a file says.

    Raises:
        ConfigError: there is none, or it is not of that form; all faults together, the first few of them.
    """
    return statistics_of(read_yaml(path), str(path))


def statistics_of(content: Mapping[Any, Any], where: str) -> dict[str, LayerRecords]:
    """The same of a mapping that is at hand. where: it is from, for errors."""
    faults: list[Fault] = []
    found: dict[str, LayerRecords] = {}
    for name, said in content.items():
        at = f"{where}: {name}"
        if not isinstance(name, str) or not isinstance(said, Mapping) or "output" not in said:
            faults.append(Fault(at, "must map 'output', and 'inputs' if any, to their statistics", said))
            continue
        inputs = said.get("inputs") or {}
        if not isinstance(inputs, Mapping) or not all(str(key).isdigit() for key in inputs):
            faults.append(Fault(f"{at}.inputs", "must map positions to statistics", inputs))
            continue
        read = {int(key): _record(value, f"{at}.inputs.{key}", faults) for key, value in inputs.items()}
        output = _record(said["output"], f"{at}.output", faults)
        if output is not None:
            kept = {key: record for key, record in read.items() if record is not None}
            found[name.removeprefix("module.")] = LayerRecords(output, kept)
    if not content:
        faults.append(Fault(where, "holds no statistics", ABSENT, "calibrate first"))
    if faults:
        raise ConfigError(*faults[:_FEW])
    return found


def _record(said: object, where: str, faults: list[Fault]) -> Record | None:
    if not isinstance(said, Mapping):
        faults.append(Fault(where, "must map min, max, ... to numbers", said))
        return None
    before = len(faults)
    numbers: dict[str, float] = {}
    for name in NUMBERS:
        value = said.get(name, 0.0 if name in ("std", "b") else ABSENT)  # files of older versions lack b
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            faults.append(Fault(f"{where}.{name}", "must be a number", value, close_match(name, map(str, said))))
        elif not math.isfinite(value):
            faults.append(Fault(f"{where}.{name}", "must be finite", value, "calibrate again"))
        else:
            numbers[name] = float(value)
    if len(faults) > before:
        return None
    if numbers["min"] > numbers["max"] or numbers["std"] < 0 or numbers["b"] < 0:
        faults.append(Fault(where, "cannot be: min must not be above max, nor std or b below 0", numbers))
        return None
    total = said.get("total_numel", 0)
    record = Record(*(numbers[name] for name in NUMBERS))  # type: ignore[call-arg, arg-type]
    return replace(record, shape=str(said.get("shape", "")), total_numel=total if isinstance(total, int) else 0)
