"""What rounding the weights adds to a layer's output on average is taken off its bias again.

Nagel et al. 2019 (arXiv 1906.04721), section 4.2, with calibration data (appendix D): layer by layer, each with those
before it corrected.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from raydistill.compression.floats import as_floats
from raydistill.compression.layer_kinds import weighted
from raydistill.compression.quantizers.network import quantization_of
from raydistill.compression.quantizers.statistics import Batches
from raydistill.compression.quantizers.watch import Place, given, watching
from raydistill.errors import ABSENT, ConfigError, Fault


def channel_sums(values: Tensor, axis: int) -> tuple[Tensor, int]:
    """The sum over everything but the channels, float64, shape (channels,), and of how many values each is."""
    rows = values.detach().movedim(axis, 0).flatten(1)
    return rows.sum(1, dtype=torch.float64), rows.shape[1]


@torch.no_grad()
def correct_biases(model: nn.Module, batches: Batches) -> dict[str, float]:
    """Correct every rounded layer that runs once and has a bias, in place; the network is in eval mode then.

    batches: calibration data; they are read once for all layers, and once for each. Returns by the layer's name the
    largest that was taken off a bias.

    Raises:
        ConfigError: the network is not quantized.
    """
    held = quantization_of(model)
    if held is None:
        raise ConfigError(Fault("bias_correction", "is for a quantized network", ABSENT, "quantize it first"))
    model.eval()
    rounded = {name.rpartition(".")[0] for name in held.weight_names()}
    with as_floats():
        expected, order = _means(model, batches, rounded)
    corrected = {}
    for name in order:
        kind, module = weighted(model.get_submodule(name)), model.get_submodule(name)
        bias = None if kind is None else kind.bias_of(module)
        if not isinstance(bias, nn.Parameter):
            continue
        found, _ = _means(model, batches, {name})
        if name not in found:
            continue
        off = (found[name] - expected[name]).to(bias.dtype)
        bias.data.sub_(off)
        corrected[name] = float(off.abs().max())
    return corrected


def _means(model: nn.Module, batches: Batches, names: set[str]) -> tuple[dict[str, Tensor], Sequence[str]]:
    """Of what these layers give, one a channel; and their order. Those that run more than once are left out."""
    sums: dict[str, Tensor] = {}
    counts: dict[str, int] = {}
    runs: dict[str, int] = {}

    def see(place: Place, arguments: object, result: object) -> None:
        output, name = given(result), place[0]
        if name not in names or output is None:
            return
        module = model.get_submodule(name)
        kind = weighted(module)
        if kind is None:
            return
        runs[name] = runs.get(name, 0) + 1
        total, count = channel_sums(output, kind.channel_axis(module, output.dim()))
        sums[name] = sums.get(name, torch.zeros_like(total)) + total
        counts[name] = counts.get(name, 0) + count

    passes = 0
    with watching(model, see):
        for inputs in batches():
            passes += 1
            model(*inputs)
    return {name: sums[name] / counts[name] for name in sums if runs[name] == passes}, list(sums)
