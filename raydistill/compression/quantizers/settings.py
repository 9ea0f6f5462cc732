"""What a layer's activations and weights are rounded to after training: defaults, and what overrides say otherwise."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from raydistill.compression.pruners.arguments import checked_number, chosen
from raydistill.compression.quantizers.aware import checked_modes
from raydistill.compression.quantizers.grid import Mode
from raydistill.compression.quantizers.overrides import checked_bits
from raydistill.compression.quantizers.ranges import Clip, most_bits, unfit
from raydistill.errors import ConfigError, Fault, close_match

LEAST_BITS = 2
KEYS = (
    "mode", "clip_acts", "clip_n_stds", "clip_percentile", "clip_half_range", "per_channel_wts",
    "scale_approx_mult_bits", "input_overrides", "inputs_quant_auto_fallback", "fpq_module", "fp16", "fake",
    "quantize_inputs", "group_size",
)  # fmt: skip
"""What an override may say beside the bits."""
INPUT_KEYS = ("from_output", "bits_activations", "mode", "clip_acts", "clip_n_stds", "clip_percentile")
_CLIPS = {clip.value: clip for clip in Clip}
_FLOATS = (16, 32, 64)


@dataclass(frozen=True)
class Rule:
    """How a tensor of activations is rounded. multiplier_bits: of scales that are approximated; None: they are not."""

    bits: int | None
    mode: Mode = Mode.SYMMETRIC
    clip: Clip = Clip.NONE
    num_stds: float = 2.0
    percentile: float = 99.99
    half_range: bool = False
    multiplier_bits: int | None = None

    def fault(self) -> str:
        """Why no range can be found so; "" where it can."""
        if self.bits is None:
            return ""
        return unfit(self.mode, self.bits, self.clip, self.num_stds, self.half_range, False)


@dataclass(frozen=True)
class Settings:
    """Of one layer or call. output: of what it gives. inputs: of those inputs of which something is said, by their
    position. bits_weights, weights_mode, per_channel: of its weight. group: columns of a row of the weight that
    have a range of their own; None: all. floats: 16, 32 or 64, in which it computes in
    place of whole numbers; None: it does not. fake: it computes with floats, and what it gives is rounded. fallback:
    whether an input that nothing has rounded is rounded by `output`. read: whether inputs are rounded at all."""

    output: Rule
    bits_weights: int | None = None
    weights_mode: Mode = Mode.SYMMETRIC
    per_channel: bool = False
    group: int | None = None
    inputs: Mapping[int, Rule] = field(default_factory=dict)
    floats: int | None = None
    fake: bool | None = None
    fallback: bool = True
    read: bool | None = None

    @property
    def of_inputs(self) -> Rule:
        """The rule of an input of which nothing is said: what is known of the output's sign is not known of it."""
        return replace(self.output, half_range=False)


def settings_of(said: Mapping[str, Any], where: str) -> Settings:
    """What arguments of the quantizer, those of an override put over them, say of a layer.

    Raises:
        ConfigError: one of them cannot be, or they do not go together.
    """
    weights, activations = _under(where, checked_modes, said["mode"], None)
    multiplier = _multiplier(said["scale_approx_mult_bits"], f"{where}scale_approx_mult_bits")
    clip = _clip(said["clip_acts"], f"{where}clip_acts")
    if clip is Clip.N_STD and said["clip_n_stds"] is None:
        rule = "must say how many standard deviations N_STD leaves"
        raise ConfigError(Fault(f"{where}clip_n_stds", rule, None, "such as 2.0"))
    output = Rule(
        said["bits_activations"],
        activations,
        clip,
        2.0 if said["clip_n_stds"] is None else checked_number(f"{where}clip_n_stds", said["clip_n_stds"], 1e-6),
        checked_number(f"{where}clip_percentile", said["clip_percentile"], 50.0, 100.0),
        _switch(said["clip_half_range"], f"{where}clip_half_range"),
        multiplier,
    )
    _fits(output, where)
    return Settings(
        output,
        said["bits_weights"],
        weights,
        _switch(said["per_channel_wts"], f"{where}per_channel_wts"),
        _group(said["group_size"], output.bits, f"{where}group_size"),
        _inputs(said["input_overrides"], output, f"{where}input_overrides"),
        _floats(said, where),
        said["fake"] if said["fake"] is None else _switch(said["fake"], f"{where}fake"),
        _switch(said["inputs_quant_auto_fallback"], f"{where}inputs_quant_auto_fallback"),
        said["quantize_inputs"],
    )


def _fits(rule: Rule, where: str) -> None:
    if rule.half_range and rule.mode.symmetric:
        way_out = "use an ASYMMETRIC mode, or leave it out"
        raise ConfigError(Fault(f"{where}clip_half_range", rule.fault(), True, way_out))
    reason = rule.fault()
    if reason:
        way_out = f"give at most {most_bits(rule.clip)} bits, or another way of clipping"
        raise ConfigError(Fault(f"{where}clip_acts", reason, rule.bits, way_out))


def _inputs(said: object, output: Rule, where: str) -> dict[int, Rule]:
    if said is None:
        return {}
    if not isinstance(said, Mapping) or not all(str(key).isdigit() for key in said):
        way_out = "such as {0: {from_output: true}}"
        raise ConfigError(Fault(where, "must map positions of inputs to what holds for them", said, way_out))
    found = {}
    for key, own in said.items():
        at = f"{where}.{key}."
        if not isinstance(own, Mapping):
            raise ConfigError(Fault(at.rstrip("."), "must map arguments to values", own, "such as {clip_acts: AVG}"))
        unknown = [name for name in own if name not in INPUT_KEYS]
        if unknown:
            raise ConfigError(Fault(f"{at}{unknown[0]}", "unknown key", own, close_match(unknown[0], INPUT_KEYS)))
        rule = replace(output, half_range=False)
        if not own.get("from_output"):
            bits = checked_bits(f"{at}bits_activations", own.get("bits_activations", rule.bits), LEAST_BITS)
            clip = _clip(own["clip_acts"], f"{at}clip_acts") if "clip_acts" in own else rule.clip
            mode = _under(at, checked_modes, own["mode"], None)[1] if "mode" in own else rule.mode
            stds = own.get("clip_n_stds", rule.num_stds)
            rule = replace(
                rule, bits=bits, clip=clip, mode=mode, num_stds=checked_number(f"{at}clip_n_stds", stds, 1e-6)
            )
            share = own.get("clip_percentile", rule.percentile)
            rule = replace(rule, percentile=checked_number(f"{at}clip_percentile", share, 50.0, 100.0))
            _fits(rule, at)
        found[int(key)] = rule
    return found


def _clip(value: object, where: str) -> Clip:
    value = "NONE" if value is None else value.upper() if isinstance(value, str) else value
    return chosen(where, value, _CLIPS, Clip)


def _floats(said: Mapping[str, object], where: str) -> int | None:
    value = said["fpq_module"]
    number = int(value) if isinstance(value, str) and value.isdigit() else value
    if number is not None and (isinstance(number, bool) or number not in _FLOATS):
        raise ConfigError(Fault(f"{where}fpq_module", "must be 16, 32 or 64", value, "the bits of its floats"))
    if _switch(said["fp16"], f"{where}fp16"):
        if number not in (None, 16):
            raise ConfigError(Fault(f"{where}fp16", "contradicts fpq_module", value, "leave fp16 out"))
        return 16
    return number  # type: ignore[no-any-return]


def _multiplier(value: object, where: str) -> int | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= 31:
        raise ConfigError(Fault(where, "must be a whole number from 1 to 31", value, "the bits of a multiplier"))
    return value


def _group(value: object, bits_activations: int | None, where: str) -> int | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ConfigError(Fault(where, "must be a whole number from 1 up", value, "such as 64, columns of a weight"))
    if bits_activations is not None:
        rule = "is for weights alone: sums of several scales are no whole numbers"
        raise ConfigError(Fault(where, rule, value, "leave activations floats, with 0 or null bits"))
    return value


def _switch(value: object, where: str) -> bool:
    if not isinstance(value, bool):
        raise ConfigError(Fault(where, "must be true or false", value))
    return value


def _under(where: str, check: Any, *args: Any) -> Any:
    """What a check gives; its faults are said of a place inside of `where`."""
    try:
        return check(*args)
    except ConfigError as error:
        said = [fault for fault in error.faults if isinstance(fault, Fault)]
        raise ConfigError(*(replace(fault, where=f"{where}{fault.where}") for fault in said)) from error
