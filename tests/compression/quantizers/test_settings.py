"""Arguments of post-training quantization, and what of them cannot be."""

from __future__ import annotations

from typing import Any

import pytest

from raydistill.compression.quantizers.grid import Mode
from raydistill.compression.quantizers.post_train import PostTrainLinearQuantizer
from raydistill.compression.quantizers.ranges import Clip
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
