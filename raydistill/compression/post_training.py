"""Quantizing a trained network: batch norms folded, what its activations are like collected, weights and activations
rounded from then on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from torch import nn

from raydistill.compression.deployment import folding
from raydistill.compression.quantizers.network import Quantization
from raydistill.compression.quantizers.plan import Plan
from raydistill.compression.quantizers.post_train import PostTrainLinearQuantizer
from raydistill.compression.quantizers.statistics import (
    Batches,
    LayerRecords,
    Statistics,
    collect,
    read_statistics,
    statistics_of,
)
from raydistill.compression.structure import Folded


@dataclass(frozen=True)
class PostTrained:
    """What was done to a network. folded: the batch norms that went into the layers before them. plan: of what is
    rounded; the ranges are buffers of `quantization`. statistics: that were used; None where ranges are found anew each
    time. notes: what was not possible, a line each."""

    folded: Folded
    plan: Plan
    quantization: Quantization
    statistics: Statistics | None = None
    notes: tuple[str, ...] = ()


def post_train(
    model: nn.Module,
    quantizer: PostTrainLinearQuantizer,
    example: Sequence[object],
    statistics: Statistics | None = None,
) -> PostTrained:
    """Quantize a trained network, in place; it is in eval mode then.

    example: its positional inputs. statistics: of the network as it is now, or with its batch norms folded; None: those
    that the quantizer names, and where it names none ranges are found anew in each forward pass.

    Raises:
        ConfigError: as `PostTrainLinearQuantizer.find`, or the file of statistics cannot be used.
    """
    model.eval()
    if statistics is None:
        statistics = statistics_named(quantizer)
    folded, note = folding(model, example)
    folded.apply(model)
    if statistics is not None:
        statistics = moved(statistics, folded.norms)
    found = quantizer.find(model, example, statistics)
    held = found.carry_out(model)
    return PostTrained(folded, found.plan, held, statistics, (*((note,) if note else ()), *found.notes))


def statistics_named(quantizer: PostTrainLinearQuantizer) -> Statistics | None:
    """What the quantizer's own argument says, a file or its content.

    Raises:
        ConfigError: it cannot be used.
    """
    said = quantizer.model_activation_stats
    if isinstance(said, Mapping):
        return statistics_of(said, "model_activation_stats")
    return None if said is None else read_statistics(said)


def moved(statistics: Statistics, norms: Mapping[str, str]) -> dict[str, LayerRecords]:
    """The statistics of a network whose batch norms are folded: what a norm gave its layer gives now.

    norms: by the name of a layer, that of the norm. Where nothing is known of the norm, it was folded before.
    """
    found = dict(statistics)
    for layer, norm in norms.items():
        of_norm = found.pop(norm, None)
        if of_norm is None:
            continue
        inputs = found[layer].inputs if layer in found else {}
        found[layer] = replace(of_norm, inputs=inputs)
    return found


def calibrate(
    model: nn.Module, example: Sequence[object], batches: Batches, quantizer: PostTrainLinearQuantizer | None = None
) -> dict[str, LayerRecords]:
    """What a network's activations are like over calibration data; as far as the quantizer needs it: without a
    second pass over the data where it clips nothing, or by averages.

    Raises:
        ConfigError, DataError: as `statistics.collect`.
    """
    if quantizer is None:
        return collect(model, example, batches)
    return collect(model, example, batches, quantizer.needs_spread, quantizer.needs_histograms)
