"""Arguments of post-training quantization, and what of them cannot be."""

from __future__ import annotations

from typing import Any

import pytest

from raydistill.compression.quantizers.grid import Mode
from raydistill.compression.quantizers.post_train import PostTrainLinearQuantizer
from raydistill.compression.quantizers.ranges import Clip
from raydistill.compression.quantizers.settings import Rule
from raydistill.errors import ConfigError


def made(**arguments: Any) -> PostTrainLinearQuantizer:
    return PostTrainLinearQuantizer("q", **arguments)


def test_the_defaults_are_distillers() -> None:
    said = made().settings("conv1")
    assert (said.output.bits, said.bits_weights) == (8, 8)
    assert (said.output.mode, said.weights_mode) == (Mode.SYMMETRIC, Mode.SYMMETRIC)
    assert said.output.clip is Clip.NONE
    assert said.fallback
    assert not said.per_channel


def test_a_mode_for_both_or_for_each_and_overrides_over_it() -> None:
    modes = {"weights": "SYMMETRIC_RESTRICTED", "activations": "ASYMMETRIC_UNSIGNED"}
    quantizer = made(mode=modes, overrides={"fc.*": {"mode": "ASYMMETRIC_SIGNED", "clip_acts": "avg"}})
    said = quantizer.settings("conv1")
    assert (said.weights_mode, said.output.mode) == (Mode.SYMMETRIC_RESTRICTED, Mode.ASYMMETRIC_UNSIGNED)
    said = quantizer.settings("fc2")
    assert (said.weights_mode, said.output.mode) == (Mode.ASYMMETRIC_SIGNED, Mode.ASYMMETRIC_SIGNED)
    assert said.output.clip is Clip.AVG


def test_an_input_takes_what_is_not_said_from_the_output_but_for_its_sign() -> None:
    said = made(
        mode="ASYMMETRIC_UNSIGNED", clip_acts="GAUSS", clip_half_range=True,
        overrides={
            "fc": {"bits_activations": 6, "input_overrides": {0: {"from_output": True}, "1": {"clip_acts": None}}},
        },
    ).settings("fc")  # fmt: skip
    assert said.output.half_range
    assert said.inputs[0].bits == said.inputs[1].bits == 6
    assert not said.inputs[0].half_range
    assert (said.inputs[0].clip, said.inputs[1].clip) == (Clip.GAUSS, Clip.NONE)


def test_floats_of_16_bits_by_either_argument() -> None:
    assert made(fp16=True).settings("x").floats == made(fpq_module="16").settings("x").floats == 16
    assert made(fpq_module=32).settings("x").floats == 32


def test_whether_histograms_are_needed_is_known_from_all_of_it() -> None:
    assert not made(clip_acts="AVG").needs_histograms
    assert made(clip_acts="MSE").needs_histograms
    assert made(overrides={"fc": {"clip_acts": "PERCENTILE"}}).needs_histograms
    assert made(overrides={"fc": {"input_overrides": {0: {"clip_acts": "MSE"}}}}).needs_histograms


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"bits_activations": 0}, "bits_activations: must be a whole number from 2 to 32"),
        ({"bits_parameters": 33}, "bits_weights: must be a whole number from 2 to 32"),
        ({"bits_accum": 4}, "bits_accum: must be a whole number from 8 to 32"),
        ({"mode": "SYMETRIC"}, "did you mean 'SYMMETRIC'?"),
        ({"mode": {"weights": "SYMMETRIC"}}, "must name one mode, or map weights and activations"),
        ({"clip_acts": "MEAN"}, "clip_acts: must be one of NONE, AVG"),
        ({"clip_acts": "N_STD"}, "clip_n_stds: must say how many standard deviations"),
        ({"clip_acts": "N_STD", "clip_n_stds": -1.0}, "clip_n_stds: must be at least"),
        ({"clip_acts": "GAUSS", "bits_activations": 12}, "GAUSS is known for up to 8 bits, got 12"),
        ({"clip_half_range": True}, "clip_half_range: SYMMETRIC has no half range"),
        ({"clip_half_range": 1}, "clip_half_range: must be true or false"),
        ({"clip_percentile": 30}, "clip_percentile: must be from 50 to 100"),
        ({"scale_approx_mult_bits": 0}, "scale_approx_mult_bits: must be a whole number from 1 to 31"),
        ({"fpq_module": 8}, "fpq_module: must be 16, 32 or 64"),
        ({"fp16": True, "fpq_module": 32}, "fp16: contradicts fpq_module"),
        ({"per_channel_wts": "yes"}, "per_channel_wts: must be true or false"),
        ({"overrides": {"fc": {"bits": 3}}}, "overrides.fc.bits: unknown key"),
        ({"overrides": {"fc(": {}}}, "overrides.fc(: is no regular expression"),
        ({"overrides": {"(a+)+": {}}}, "may take for ever to match"),
        ({"overrides": {"fc": {"bits_weights": 33}}}, "overrides.fc.bits_weights: must be a whole number"),
        ({"overrides": {"fc": {"clip_half_range": True}}}, "overrides.fc.clip_half_range: SYMMETRIC has no half range"),
        ({"overrides": {"fc": {"mode": "x"}}}, "overrides.fc.mode: must be one of"),
        ({"overrides": {"fc": {"input_overrides": [1]}}}, "overrides.fc.input_overrides: must map positions"),
        ({"overrides": {"fc": {"input_overrides": {0: 1}}}}, "overrides.fc.input_overrides.0: must map arguments"),
        ({"overrides": {"fc": {"input_overrides": {0: {"clip": 1}}}}}, "input_overrides.0.clip: unknown key"),
        (
            {"overrides": {"fc": {"input_overrides": {0: {"bits_activations": 1}}}}},
            "overrides.fc.input_overrides.0.bits_activations: must be a whole number",
        ),
    ],
)
def test_what_cannot_be_is_one_line(arguments: dict[str, Any], text: str) -> None:
    with pytest.raises(ConfigError) as error:
        made(**arguments)
    assert text in str(error.value)
    assert "\n" not in str(error.value)


def test_what_is_not_said_of_a_layer_is_as_the_documents_have_it() -> None:
    said = made().settings("x")
    assert (said.output.num_stds, said.output.percentile, said.output.half_range) == (2.0, 99.99, False)
    assert (said.output.multiplier_bits, said.group, said.inputs, said.floats) == (None, None, {}, None)
    assert (said.fake, said.read) == (None, None)
    assert made(fpq_module="64").settings("x").floats == 64
    assert made(fp16=True, fpq_module=16).settings("x").floats == 16
    assert made(clip_acts=None).settings("x").output.clip is Clip.NONE
    assert made(scale_approx_mult_bits=31).settings("x").output.multiplier_bits == 31
    assert made(scale_approx_mult_bits=1).settings("x").output.multiplier_bits == 1
    assert made(group_size=1, bits_activations=None).settings("x").group == 1
    told = made(overrides={"x": {"fake": True, "quantize_inputs": False}}).settings("x")
    assert (told.fake, told.read) == (True, False)
    assert made(mode="ASYMMETRIC_SIGNED", clip_acts="GAUSS", bits_activations=8).settings("x").output.bits == 8
    assert made(clip_acts="GAUSS", bits_activations=None).settings("x").output.bits is None


def test_what_an_input_takes_over_and_what_it_says_itself() -> None:
    own = {"bits_activations": 4, "mode": "ASYMMETRIC_SIGNED", "clip_acts": "N_STD", "clip_n_stds": 0.5,
           "clip_percentile": 50}  # fmt: skip
    inputs = {0: {}, 1: own, 2: {"from_output": True, **own}, 3: {"clip_percentile": 100, "from_output": False}}
    said = made(
        mode="ASYMMETRIC_UNSIGNED", clip_acts="N_STD", clip_n_stds=3.0, clip_percentile=90.0, clip_half_range=True,
        scale_approx_mult_bits=5, overrides={"x": {"input_overrides": inputs}},
    ).settings("x")  # fmt: skip
    assert said.output == Rule(8, Mode.ASYMMETRIC_UNSIGNED, Clip.N_STD, 3.0, 90.0, True, 5)
    assert said.of_inputs == Rule(8, Mode.ASYMMETRIC_UNSIGNED, Clip.N_STD, 3.0, 90.0, False, 5)
    assert said.inputs[0] == said.inputs[2] == said.of_inputs
    assert said.inputs[1] == Rule(4, Mode.ASYMMETRIC_SIGNED, Clip.N_STD, 0.5, 50.0, False, 5)
    assert said.inputs[3].percentile == 100.0
    assert Rule(9, clip=Clip.LAPLACE).fault() != ""
    assert Rule(8, clip=Clip.LAPLACE).fault() == Rule(None, clip=Clip.LAPLACE).fault() == ""


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"clip_n_stds": 0}, "clip_n_stds: must be at least 1e-06"),
        ({"clip_percentile": 100.1}, "clip_percentile: must be from 50 to 100"),
        ({"clip_percentile": 49.9}, "clip_percentile: must be from 50 to 100"),
        ({"scale_approx_mult_bits": 32}, "scale_approx_mult_bits: must be a whole number from 1 to 31"),
        ({"scale_approx_mult_bits": True}, "scale_approx_mult_bits: must be a whole number"),
        ({"scale_approx_mult_bits": 2.0}, "scale_approx_mult_bits: must be a whole number"),
        ({"group_size": 0, "bits_activations": None}, "group_size: must be a whole number from 1 up"),
        ({"group_size": True, "bits_activations": None}, "group_size: must be a whole number from 1 up"),
        ({"group_size": 8}, "group_size: is for weights alone"),
        ({"fpq_module": True}, "fpq_module: must be 16, 32 or 64"),
        ({"fpq_module": "half"}, "fpq_module: must be 16, 32 or 64"),
        ({"fp16": True, "fpq_module": "64"}, "fp16: contradicts fpq_module"),
        ({"fp16": "yes"}, "fp16: must be true or false"),
        ({"inputs_quant_auto_fallback": None}, "inputs_quant_auto_fallback: must be true or false"),
        ({"overrides": {"x": {"fake": 1}}}, "overrides.x.fake: must be true or false"),
        ({"overrides": {"x": {"input_overrides": {"a": {}}}}}, "overrides.x.input_overrides: must map positions"),
        ({"overrides": {"x": {"input_overrides": {1: {"mode": "x"}}}}}, "overrides.x.input_overrides.1.mode: must be"),
        ({"overrides": {"x": {"input_overrides": {1: {"clip_n_stds": 0}}}}}, "input_overrides.1.clip_n_stds: must be"),
        ({"overrides": {"x": {"input_overrides": {1: {"clip_percentile": 101}}}}}, "1.clip_percentile: must be from"),
        (
            {"overrides": {"x": {"input_overrides": {1: {"clip_acts": "GAUSS", "bits_activations": 9}}}}},
            "overrides.x.input_overrides.1.clip_acts: GAUSS is known for up to 8 bits, got 9",
        ),
    ],
)
def test_values_beyond_their_bounds_are_one_line(arguments: dict[str, Any], text: str) -> None:
    test_what_cannot_be_is_one_line(arguments, text)
