"""Quantization of a trained network: weights over their range, activations over ranges that calibration has found.

Jacob et al. 2018 (arXiv 1712.05877), section 2; clipping as `ranges` has it. Batch norms are folded beforehand
(`compression.post_training`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from raydistill.compression.quantizers.activations import (
    Accumulator,
    ActivationQuantizer,
    DynamicRange,
    FixedGrid,
    ReducedFloat,
    approximated,
)
from raydistill.compression.quantizers.base import Quantizer
from raydistill.compression.quantizers.grid import FLOAT_BITS, Grid, Mode, grid_of
from raydistill.compression.quantizers.network import Quantization
from raydistill.compression.quantizers.overrides import checked_bits
from raydistill.compression.quantizers.plan import Plan, Rounding, planned
from raydistill.compression.quantizers.points import ACCUMULATOR, RESULT, Point, points_of
from raydistill.compression.quantizers.ranges import Clip, range_of_histogram, range_of_statistics
from raydistill.compression.quantizers.reading import Reading, read_network
from raydistill.compression.quantizers.settings import KEYS, LEAST_BITS, Rule, Settings, settings_of
from raydistill.compression.quantizers.statistics import LayerRecords, Record, Statistics
from raydistill.compression.quantizers.weights import FixedWeight, LinearWeight, ReducedFloatWeight
from raydistill.compression.trace import Call, trace
from raydistill.errors import ABSENT, ConfigError, Fault, close_match

_FEW = 3


@dataclass(frozen=True)
class Found:
    """What is done to a network, and the grids that go with it: of points by their key, of weights by their name.

    notes: what is left as a float for want of statistics, a line each.
    """

    plan: Plan
    activations: Mapping[str, Grid] = field(default_factory=dict)
    weights: Mapping[str, Grid] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def carry_out(self, model: nn.Module, where: str = "quantizer") -> Quantization:
        """Make the network a quantized one, in place, that rounds to these grids."""
        held = self.plan.carry_out(model, where)
        fill(held, self.activations, self.weights)
        return held


def fill(held: Quantization, activations: Mapping[str, Grid], weights: Mapping[str, Grid]) -> None:
    """Give quantizers of fixed grids theirs: those of points by their key, of weights by their name."""
    for point in held.points:
        if point.key in activations:
            quantizer = held.activation(point)
            assert isinstance(quantizer, FixedGrid)
            quantizer.take(activations[point.key])
    for name, grid in weights.items():
        of_weight = held.weight(name)
        assert isinstance(of_weight, FixedWeight)
        of_weight.take(grid)


class PostTrainLinearQuantizer(Quantizer):
    """Distiller's quantizer of trained networks, by its arguments.

    bits_activations, bits_parameters: 8 unless said; None leaves floats. bits_accum: of the sums of products, and of
    the bias that is added to them. mode: of `grid.Mode`, or {weights: ..., activations: ...}. clip_acts: of
    `ranges.Clip`, of activations; clip_n_stds, clip_percentile, clip_half_range go with it. per_channel_wts: each
    output channel of a weight has a range of its own. model_activation_stats: a statistics file, or its content; None:
    ranges are found anew in each forward pass. scale_approx_mult_bits: scales are a multiplier of so many bits and a
    shift. inputs_quant_auto_fallback: what a layer reads that nothing has rounded is rounded as what it gives is.
    fpq_module (fp16): layers compute with floats of so many bits; what other calls give is rounded. also_clip_weights:
    weights are clipped as activations are, one range for all of it. group_size: where activations stay floats, so many
    columns of a row of a weight have a range of their own. save_fp_weights: has no effect, floats are kept.

    overrides: any of these of the layers and calls that a regular expression matches; input_overrides: {position:
    {from_output: true} or bits_activations, mode, clip_acts, ...} of what they read.
    """

    LEAST_BITS = LEAST_BITS
    KEYS = KEYS

    def __init__(
        self,
        name: str,
        bits_activations: int | None = 8,
        bits_parameters: int | None = 8,
        bits_accum: int = 32,
        overrides: Mapping[str, Mapping[str, Any]] | None = None,
        mode: str | Mapping[str, str] = Mode.SYMMETRIC.value,
        clip_acts: str | None = "NONE",
        per_channel_wts: bool = False,
        model_activation_stats: str | Mapping[str, Any] | None = None,
        fp16: bool = False,
        clip_n_stds: float | None = None,
        clip_half_range: bool = False,
        scale_approx_mult_bits: int | None = None,
        inputs_quant_auto_fallback: bool = True,
        fpq_module: int | str | None = None,
        save_fp_weights: bool = False,
        also_clip_weights: bool = False,
        clip_percentile: float = 99.99,
        group_size: int | None = None,
    ) -> None:
        super().__init__(name, bits_activations, bits_parameters, None, overrides)
        self.bits_accum = checked_bits("bits_accum", bits_accum, 8) or FLOAT_BITS
        self.model_activation_stats, self.clip_weights = model_activation_stats, bool(also_clip_weights)
        own = {
            "mode": mode, "clip_acts": clip_acts, "clip_n_stds": clip_n_stds, "clip_percentile": clip_percentile,
            "clip_half_range": clip_half_range, "per_channel_wts": per_channel_wts,
            "scale_approx_mult_bits": scale_approx_mult_bits, "input_overrides": None, "fpq_module": fpq_module,
            "inputs_quant_auto_fallback": inputs_quant_auto_fallback, "fp16": fp16, "fake": None,
            "quantize_inputs": None, "group_size": group_size,
        }  # fmt: skip
        self.overrides = replace(self.overrides, defaults={**own, **self.overrides.defaults})
        settings_of(self.overrides.defaults, "")
        for pattern, said in self.overrides.patterns.items():
            settings_of({**self.overrides.defaults, **said}, f"overrides.{pattern}.")

    def settings(self, name: str) -> Settings:
        """Of the layer or call of this name."""
        return settings_of(self.overrides.of(name), f"{name}.")

    @property
    def needs_histograms(self) -> bool:
        """Whether a way of clipping that it is told counts values."""
        return any(clip.counts for clip in self._clips())

    @property
    def needs_spread(self) -> bool:
        """Whether one needs standard or mean absolute deviations."""
        return any(clip.of_distribution or clip is Clip.N_STD for clip in self._clips())

    def _clips(self) -> set[Clip]:
        told = [{}, *self.overrides.patterns.values()]
        found = [settings_of({**self.overrides.defaults, **own}, "") for own in told]
        return {rule.clip for settings in found for rule in (settings.output, *settings.inputs.values())}

    def plan(self, model: nn.Module, example_input: Sequence[object] | None) -> Plan:
        """What is done where no statistics are at hand: ranges are found anew in each forward pass."""
        if example_input is None:
            return super().plan(model, None)
        return self.find(model, example_input, None).plan

    def find(self, model: nn.Module, example_input: Sequence[object], statistics: Statistics | None) -> Found:
        """What is done to this network, and the grids, by these statistics of its activations.

        Raises:
            ConfigError: there is nothing to quantize, the statistics are another network's or lack a layer, or an
                input would stay a float that nobody says may be rounded.
        """
        seen = trace(model, tuple(example_input), macs=False)
        found = _Finding(self, model, read_network(model, seen, points_of(model, seen)), statistics)
        found.run()
        if not (found.weights or found.points):
            raise ConfigError(Fault("bits_parameters", "nothing would be quantized", ABSENT, "give bits, such as 8"))
        if found.faults:
            raise ConfigError(*found.faults[:_FEW])
        plan = Plan(found.weights, tuple(found.points.values()))
        return Found(plan, found.grids, found.weight_grids, tuple(dict.fromkeys(found.notes)))


class _Finding:
    """The calls of a network one after the other, and what of each is rounded."""

    def __init__(
        self, quantizer: PostTrainLinearQuantizer, model: nn.Module, reading: Reading, statistics: Statistics | None
    ) -> None:
        self.quantizer, self.model, self.reading, self.statistics = quantizer, model, reading, statistics
        self.weights: dict[str, Rounding] = {}
        self.weight_grids: dict[str, Grid] = {}
        self.points: dict[str, tuple[Point, Rounding]] = {}
        self.grids: dict[str, Grid] = {}
        self.faults: list[Fault] = []
        self.notes: list[str] = []
        self.on_grid: set[int] = set()
        self.parameters = dict(model.named_parameters())

    def run(self) -> None:
        if self.statistics is not None:
            self._check_statistics(self.statistics)
        for index, point in self.reading.points.items():
            call = self.reading.calls[index]
            if self.reading.moves_only(index):
                if call.arguments and set(call.arguments) <= self.on_grid:
                    self.on_grid.add(index)
            elif self.reading.is_quantizable(index):
                self._quantize(index, call, point)

    def _check_statistics(self, statistics: Statistics) -> None:
        layers = [point.name for index, point in self.reading.points.items() if self.reading.is_layer(index)]
        missing = [name for name in dict.fromkeys(layers) if name not in statistics and self._wants(name)]
        if missing and len(missing) == len(set(layers)):
            rule, way_out = "hold none of this network's layers: they are another network's", "calibrate this one"
            self.faults.append(Fault("model_activation_stats", rule, missing[:_FEW], way_out))
        else:
            rule = "hold nothing of a layer of this network"
            self.faults += [
                Fault("model_activation_stats", rule, name, close_match(name, statistics)) for name in missing
            ]

    def _wants(self, name: str) -> bool:
        settings = self.quantizer.settings(name)
        return settings.output.bits is not None and (settings.floats is None or bool(settings.fake))

    def _quantize(self, index: int, call: Call, point: Point) -> None:
        settings = self.quantizer.settings(point.name)
        if self.reading.is_layer(index) and settings.floats is not None and not settings.fake:
            self._as_reduced_float(call, point, settings.floats)
            return
        bits = settings.output.bits
        records = self._records(index, point)
        if bits is not None and self.statistics is not None and records is None and call.function != "embedding":
            if not self.reading.is_layer(index):  # that has been said already
                self.notes.append(f"{point.name} stays a float: the statistics hold nothing of it")
            bits = None
        weighted = bool(self._round_weights(call, point, settings, records, bits))
        if call.function == "embedding":
            if weighted:
                self.on_grid.add(index)
            return
        if bits is None:
            return
        only_results = bool(self.reading.weights_of(call)) and not weighted and settings.floats is None
        if settings.floats is not None and settings.floats != FLOAT_BITS:
            self._parameters_as_floats(call, settings.floats)
        reads = settings.read if settings.read is not None else not only_results
        if reads:
            self._round_inputs(call, point, settings, records)
        self._round_result(index, point, settings, records, reads and self.reading.multiplies(index))
        self.on_grid.add(index)

    def _records(self, index: int, point: Point) -> LayerRecords | None:
        if self.statistics is None:
            return None
        found = self.statistics.get(point.name)
        return found if found is not None or not self.reading.ends_module(index) else self.statistics.get(point.module)

    def _round_weights(
        self, call: Call, point: Point, settings: Settings, records: LayerRecords | None, bits: int | None
    ) -> list[str]:
        """The names of this call's weights that are rounded; those that another call has had before are not again."""
        if settings.bits_weights is None or settings.floats is not None:
            return []
        named = self.reading.weights_of(call)
        for name, axis in named.items():
            if name in self.weights:
                continue
            group = settings.group if axis == 0 else None
            axis = axis if settings.per_channel or group is not None else None
            self._set_weight(name, settings, axis, group, records if call.function == "embedding" else None)
        if named and bits is None and self.quantizer.bits_accum < FLOAT_BITS:
            for name in call.parameters:
                if name not in named and self.parameters[name].dim() == 1:
                    self.weights[name] = planned(LinearWeight(self.quantizer.bits_accum))
        return list(named)

    def _set_weight(
        self, name: str, settings: Settings, axis: int | None, group: int | None, records: LayerRecords | None
    ) -> None:
        bits, mode = settings.bits_weights, settings.weights_mode
        assert bits is not None
        rule = replace(settings.of_inputs, bits=bits, mode=mode)
        weight = self.parameters[name]
        if records is not None:  # what an embedding gives is a part of its weight
            self._fix_weight(
                name, weight, self._grid(rule if self.quantizer.clip_weights else _whole(rule), records.output)
            )
        elif self.quantizer.clip_weights and axis is None:
            probe = DynamicRange(bits, mode.value, rule.clip.value, rule.num_stds, rule.percentile)
            self._fix_weight(name, weight, probe.grid_for(weight.detach()))
        else:
            self.weights[name] = planned(LinearWeight(bits, mode.value, axis, group))

    def _fix_weight(self, name: str, weight: Tensor, grid: Grid) -> None:
        bits = (grid.high - grid.low).bit_length()
        self.weights[name] = planned(FixedWeight(bits, grid.low, grid.high, [1] * weight.dim()))
        self.weight_grids[name] = grid

    def _round_inputs(self, call: Call, point: Point, settings: Settings, records: LayerRecords | None) -> None:
        for position, maker in enumerate(call.arguments):
            said = settings.inputs.get(position)
            if maker < 0:
                continue
            if maker in self.on_grid:
                if said is not None:
                    rule = "says what is rounded already: what gives this input says how"
                    self.faults.append(
                        Fault(f"{point.name}.input_overrides.{position}", rule, said.bits, "leave it out")
                    )
                continue
            if said is None and not settings.fallback:
                rule = "reads a float that nothing has rounded"
                way_out = f"give it input_overrides: {{{position}: ...}}, or set inputs_quant_auto_fallback"
                self.faults.append(Fault(f"{point.name}, input {position}", rule, ABSENT, way_out))
                continue
            rule_of_input = said if said is not None else settings.of_inputs
            if rule_of_input.bits is None:
                continue
            record = None if records is None else records.inputs.get(position)
            if record is None and self.statistics is not None:
                self.notes.append(f"{point.name} reads a float: the statistics hold nothing of its input {position}")
                continue
            self._set_point(replace(point, argument=position), rule_of_input, record)

    def _round_result(
        self, index: int, point: Point, settings: Settings, records: LayerRecords | None, accumulates: bool
    ) -> None:
        rule, at = settings.output, point
        record = None if records is None else records.output
        after = self.reading.activation_after(index)
        if after is not None and settings.output.bits is not None:
            if after.function in ("relu", "relu6"):
                # Rounding commutes with it; where one module serves several layers each has its range before it.
                at = point if record is not None and self.reading.runs_often(after.index) else after.point
                rule = replace(rule, half_range=not rule.mode.symmetric)
                self.reading.takes_over(after.index)
                self.on_grid.add(after.index)
            if record is not None:
                record = record.clipped(*after.bounds(record.max))
                self._tell_reader(after.point, record)
        if accumulates and self.reading.function(index) not in ("add", "sub", "cat"):
            multiplier = rule.multiplier_bits
            whole = Accumulator(self.quantizer.bits_accum, multiplier)
            self.points.setdefault((said := replace(point, argument=ACCUMULATOR)).key, (said, planned(whole)))
        elif self.reading.function(index) in ("relu", "relu6"):
            rule = replace(rule, half_range=not rule.mode.symmetric)
            if record is not None and records is not None and rule.clip.of_distribution and 0 in records.inputs:
                before = records.inputs[0]  # a ReLU's own zeros tell nothing of the distribution
                record = replace(record, mean=before.mean, std=before.std, b=before.b)
        self._set_point(replace(at, argument=RESULT), rule, record)

    def _tell_reader(self, point: Point, record: Record) -> None:
        """What an activation function reads is what was clipped for it."""
        if self.statistics is not None and point.name in self.statistics:
            held = self.statistics[point.name]
            self.statistics = {**self.statistics, point.name: replace(held, inputs={**held.inputs, 0: record})}

    def _set_point(self, point: Point, rule: Rule, record: Record | None) -> None:
        if point.key in self.points or rule.bits is None:
            return
        if self.statistics is None:
            self._add(point, _dynamic(rule))
        elif record is not None:
            if rule.clip.counts and record.histogram is None:
                way_out = "calibrate in the same run: files hold no histograms"
                self.faults.append(
                    Fault(f"{point.name}.clip_acts", f"{rule.clip.value} needs histograms", ABSENT, way_out)
                )
                return
            grid = self._grid(rule, record)
            self._add(point, FixedGrid(rule.bits, grid.low, grid.high, rule.multiplier_bits))
            self.grids[point.key] = grid

    def _add(self, point: Point, quantizer: ActivationQuantizer) -> None:
        self.points[point.key] = (point, planned(quantizer))

    def _grid(self, rule: Rule, record: Record) -> Grid:
        assert rule.bits is not None
        half = rule.half_range and rule.clip.of_distribution
        if rule.clip.counts and record.histogram is not None:
            lowest, highest = range_of_histogram(record.histogram, rule.mode, rule.bits, rule.clip, rule.percentile)
        else:
            lowest, highest = range_of_statistics(record.numbers, rule.mode, rule.bits, rule.clip, rule.num_stds, half)
        lowest, highest = torch.minimum(lowest, highest), torch.maximum(lowest, highest)
        return approximated(grid_of(lowest, highest, rule.bits, rule.mode), rule.multiplier_bits)

    def _as_reduced_float(self, call: Call, point: Point, bits: int) -> None:
        """A layer that computes with floats of fewer bits: what it reads, its parameters and what it gives are such."""
        if bits != 16:
            return
        self._parameters_as_floats(call, bits)
        for position, maker in enumerate(call.arguments):
            if maker >= 0:
                self._add(replace(point, argument=position), ReducedFloat(bits))
        self._add(replace(point, argument=RESULT), ReducedFloat(bits))

    def _parameters_as_floats(self, call: Call, bits: int) -> None:
        for name in call.parameters if bits == 16 else ():
            self.weights.setdefault(name, planned(ReducedFloatWeight(bits)))


def _whole(rule: Rule) -> Rule:
    return Rule(rule.bits, rule.mode)


def _dynamic(rule: Rule) -> DynamicRange:
    assert rule.bits is not None
    half = rule.half_range and rule.clip.of_distribution
    return DynamicRange(
        rule.bits, rule.mode.value, rule.clip.value, rule.num_stds, rule.percentile, half, rule.multiplier_bits
    )
