"""What a pruned network costs to keep and to run: figures that a sweep can optimise or bound.

All are of the network as it is deployed, registered and exported: filters and channels that are zero as a whole are
taken out and batch norms folded first (see `raydistill.compression.deployment`), which leaves its outputs as they are.

- ``macs``: multiply-accumulates of one image, counted as `compression.summaries` does; single zeros still count.
- ``parameters``: those that are not zero.
- ``bops``: each multiply-accumulate times the bits of the weight and of what it reads (32 of a float), times the
  fraction of the weight that is not zero (bit operations, van Baalen et al. 2020, arXiv 2005.07093).
- ``size_bytes``: every parameter and buffer at its own width, a quantized weight by its bits (see `stored`).
- ``compressed_size_bytes``: of each tensor the smaller of that and a bitmap, one bit an element, with the other values.
- ``latency_ms``: milliseconds of one image on the given device, the median of many passes; beside it
  ``latency_iqr_ms``, their interquartile range, and ``latency_busy``, 1 where the machine had other work meanwhile.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from raydistill.compression.copying import copy_of
from raydistill.compression.deployment import deploy
from raydistill.compression.storage import bytes_of, stored
from raydistill.compression.summaries import total_macs
from raydistill.compression.summaries.bit_operations import bit_operations
from raydistill.errors import Fault, TrainingError, users_code
from raydistill.metrics import LATENCY, LATENCY_BUSY, LATENCY_SPREAD, NetworkFigure
from raydistill.resolve import in_folder, resolve_object
from raydistill.tasks import Task, Weights
from raydistill.training.checkpoint import model_of, read_checkpoint
from raydistill.training.latency import at_rest


def footprint(
    checkpoint: str | Path,
    task: Task,
    device: str = "cpu",
    *,
    latency: bool = False,
    arch: str | None = None,
    own: Sequence[str] = (),
) -> dict[str, float]:
    """The figures of a checkpoint's network by the names of `raydistill.metrics.FOOTPRINT`, then one's own by theirs.

    task: what the network is for. latency: measured only when asked for, it takes half a
    second to seven. arch: see `checkpoint.load_model`. own: ``pkg.mod:FIGURE`` of each `NetworkFigure`.

    Raises:
        CheckpointError, ConfigError: the checkpoint cannot be used.
        TrainingError: a figure of one's own fails.
    """
    content = read_checkpoint(checkpoint)
    example = task.wanted_by(Weights.of_checkpoint(content, str(checkpoint), arch)).example_input()
    model = model_of(content, str(checkpoint), arch)
    deploy(model, example)
    figures = figures_of(model, example)
    for path in own:
        figure = resolve_object(path, {}, NetworkFigure, "figure of the network", "figure")
        figures[figure.name] = measured(figure, model, example)
    return {**figures, **latency_of(model, example, device)} if latency else figures


def figures_of(model: nn.Module, example: tuple[object, ...]) -> dict[str, float]:
    """The figures of a network as it is, by the names of `raydistill.metrics.FOOTPRINT`, without its latency."""
    whole, packed = stored(model), stored(model, zeros=False)
    return {
        "macs": float(total_macs(model, example)),
        "bops": bit_operations(model, example),
        "parameters": float(sum(int(torch.count_nonzero(p)) for p in model.parameters())),
        "size_bytes": float(bytes_of(whole)),
        "compressed_size_bytes": float(sum(min(_dense(tensor), _bitmap(tensor)) for tensor in packed.values())),
    }


def measured(figure: NetworkFigure, model: nn.Module, example: tuple[object, ...]) -> float:
    """Raises TrainingError: it fails, or gives something else than a finite number."""
    with users_code(f"figure {figure.name}", kind=TrainingError), torch.no_grad(), in_folder():
        value = float(figure.measure(copy_of(model).eval(), example))
    if not math.isfinite(value):
        raise TrainingError(Fault(f"figure {figure.name}", "must be a finite number", value))
    return value


def latency_of(model: nn.Module, example: tuple[object, ...], device: str = "cpu") -> dict[str, float]:
    """Of one forward pass in eval mode: the median, the interquartile range, and whether the machine was busy. On a GPU
    the device is waited for."""
    target = torch.device(device)
    model = model.to(target).eval()
    example = tuple(value.to(target) if isinstance(value, Tensor) else value for value in example)

    def run() -> None:
        model(*example)
        if target.type == "cuda":
            torch.cuda.synchronize(target)

    with torch.inference_mode():
        found = at_rest({LATENCY: run}, torch.get_num_threads() if target.type == "cpu" else 1)
    timed = found.ms[LATENCY]
    return {LATENCY: timed.median, LATENCY_SPREAD: timed.upper - timed.lower, LATENCY_BUSY: float(found.busy)}


def _dense(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def _bitmap(tensor: Tensor) -> int:
    return math.ceil(tensor.numel() / 8) + int(torch.count_nonzero(tensor)) * tensor.element_size()
