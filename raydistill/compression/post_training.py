"""Quantizing a trained network: batch norms folded, what its activations are like collected, weights and activations
rounded from then on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from torch import nn

from raydistill.compression.bias_correction import correct_biases
from raydistill.compression.deployment import folding
from raydistill.compression.equalization import equalize
from raydistill.compression.quantizers.adaptive_rounding import Learning, round_adaptively
from raydistill.compression.quantizers.gptq import compensate
from raydistill.compression.quantizers.kept_statistics import KeptStatistics
from raydistill.compression.quantizers.network import Quantization
from raydistill.compression.quantizers.plan import Plan, plan_of
from raydistill.compression.quantizers.post_train import PostTrainLinearQuantizer
from raydistill.compression.quantizers.statistics import (
    Batches,
    LayerRecords,
    Statistics,
    collect,
    read_statistics,
    statistics_of,
)
from raydistill.compression.structure import Change, Folded, Quantized
from raydistill.errors import ABSENT, ConfigError, Fault
from raydistill.resolve import in_folder


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

    @property
    def changes(self) -> tuple[Change, ...]:
        """What makes another copy of the network one that is quantized so."""
        return (*((self.folded,) if self.folded else ()), Quantized(self.plan))


@dataclass(frozen=True)
class Steps:
    """What is done beside rounding over ranges.

    equalize: channels of layers that follow each other are scaled against each other first. rounding: steps in which
    each layer's rounding is learned; 0: to the nearest. compensate: a layer's other weights make good what rounding
    each adds, with this damping (`gptq`); None: they do not. biases: what rounding adds on average is taken off the
    biases at the end.
    """

    equalize: bool = False
    rounding: int = 0
    biases: bool = False
    compensate: float | None = None


PLAIN = Steps()


def rounded_over_ranges(
    model: nn.Module,
    quantizer: PostTrainLinearQuantizer,
    example: Sequence[object],
    batches: Batches,
    dynamic: bool = False,
    steps: Steps = PLAIN,
    kept: KeptStatistics | None = None,
) -> PostTrained:
    """Calibrate and quantize a trained network, in place, to the nearest numbers; it is in eval mode then. `mended`
    does the rest of the steps.

    example: its positional inputs. batches: of training data, looked at where the quantizer names no statistics.
    dynamic: ranges are found anew in each forward pass. kept: statistics of other runs.

    Raises:
        ConfigError, DataError: as `post_train` and `statistics.collect`. StorageError: as `KeptStatistics.of`.
    """
    known = None if dynamic else statistics_named(quantizer)
    first = Folded({})
    if steps.equalize:
        if known is not None:
            rule = "changes what layers give, so that statistics of before do not fit"
            raise ConfigError(Fault("equalize", rule, ABSENT, "calibrate in the same run"))
        model.eval()
        first, _ = folding(model, example)
        first.apply(model)
        equalize(model, example)
    if known is None and not dynamic:
        model.eval()
        known = calibrate(model, example, batches, quantizer, kept)
    report = post_train(model, quantizer, example, known)
    return replace(report, folded=Folded({**first.norms, **report.folded.norms}))


def mended(model: nn.Module, report: PostTrained, batches: Batches, steps: Steps) -> PostTrained:
    """Behind `rounded_over_ranges`: what learns from data how to round, and what takes off the errors that are left."""
    if steps.rounding:
        list(round_adaptively(model, report.quantization, batches, Learning(steps.rounding)))
    if steps.compensate is not None:
        list(compensate(model, report.quantization, batches, steps.compensate))
    if steps.biases:
        correct_biases(model, batches)
    return replace(report, plan=plan_of(report.quantization))


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
    """What the quantizer's own argument says, a file (of the user's folder) or its content.

    Raises:
        ConfigError: it cannot be used.
    """
    said = quantizer.model_activation_stats
    if isinstance(said, Mapping):
        return statistics_of(said, "model_activation_stats")
    if said is None:
        return None
    with in_folder():
        return read_statistics(said)


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
    model: nn.Module,
    example: Sequence[object],
    batches: Batches,
    quantizer: PostTrainLinearQuantizer | None = None,
    kept: KeptStatistics | None = None,
) -> dict[str, LayerRecords]:
    """What a network's activations are like over calibration data; as far as the quantizer needs it: without a
    second pass over the data where it clips nothing, or by averages. Histograms are not kept.

    Raises:
        ConfigError, DataError: as `statistics.collect`.
    """
    if quantizer is None:
        return collect(model, example, batches)
    wanted = (quantizer.needs_spread, quantizer.needs_histograms)
    if kept is None or quantizer.needs_histograms:
        return collect(model, example, batches, *wanted)
    return kept.of(model, f"spread: {quantizer.needs_spread}", lambda: collect(model, example, batches, *wanted))
