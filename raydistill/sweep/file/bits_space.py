"""Sweep files over bits, made of the curves of `compression.bit_sensitivity` (``--bits --write-space``)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from raydistill.errors import ConfigError, Fault
from raydistill.metrics import selecting, shown
from raydistill.sweep.file.space_file import (
    Measured,
    SpaceFile,
    amount,
    flow,
    given_baseline,
    measured_sections,
)

QUANTIZER = "integers"


def bits_space_text(file: Path, measured: Measured, borne: Mapping[str, tuple[int, ...]], num_samples: int = 16) -> str:
    """The whole file. file: where it will stand. borne: as `borne_bits` gives it.

    A weight that bears several numbers of bits is searched, one that bears only the most has these, and one that does
    not bear them either stays a float.

    Raises:
        ConfigError: there is nothing to search.
    """
    searched = {weight: sorted(bits) for weight, bits in borne.items() if len(bits) > 1}
    if not searched:
        rule = "no weight bears fewer bits than the most that were measured, for a drop of"
        raise ConfigError(Fault("--max-drop", rule, measured.max_drop, "raise it, or measure more bits"))
    name = selecting(measured.metrics)
    metric = measured.metrics[name]
    cost = amount(metric, measured.max_drop, 1)
    most = max(max(bits) for bits in searched.values())
    floats = [weight for weight, bits in borne.items() if not bits]
    kept = {re.escape(weight.rpartition(".")[0]): {"bits_weights": None} for weight in floats}
    arguments = {
        "class": "QuantAwareTrainRangeLinearQuantizer", "bits_weights": most, "bits_activations": 8,
        "per_channel_wts": True, **({"overrides": kept} if kept else {}),
    }  # fmt: skip
    search = [f"  # What each weight by itself bears for {cost} of {name}, without retraining.", "  per_layer:"]
    for weight, bits in borne.items():
        if weight in searched:
            search.append(f"    - {{weights: [{flow(weight)}], bits_weights: {flow({'choice': searched[weight]})}}}")
        elif bits:
            search.append(f"    # {weight} keeps {bits[0]} bits: fewer cost more")
        else:
            search.append(f"    # {weight} stays a float: rounding it costs more")
    starts = ["warm_start:"]
    for about, pick in (("the most bits", max), ("the fewest that each weight bears", min)):
        starts.append(f"  # {about}")
        lines = [f"per_layer.{weight}.bits_weights: {pick(bits)}" for weight, bits in searched.items()]
        starts += [f"  {'-' if i == 0 else ' '} {line}" for i, line in enumerate(lines)]
    written = SpaceFile(
        about=[
            f"How few bits does each layer of {measured.arch} need?",
            f"    raydistill sweep {file.name}",
            "Choices are from the curves of each weight rounded by itself, without retraining:",
            f"    {measured.command}",
            f"on {measured.samples:,} validation samples, where the float network has a {name} of "
            f"{shown(metric, measured.dense)}.",
        ],
        sections=measured_sections(file, measured, measured.epochs),
        baseline=given_baseline(measured.checkpoint, file),
        pruned={},
        quantizers={QUANTIZER: arguments},
        epochs=measured.epochs,
        search=search,
        starts=starts,
        ends=[
            f"objectives: {{{name}: {metric.direction}, size_bytes: min}}",
            "searcher: {name: sobol}",
            f"num_samples: {num_samples}",
            "seed: 0",
        ],
    )
    return written.text(file)
