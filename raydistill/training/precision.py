"""fp32 or bf16 autocast, and which of the two is faster here."""

from __future__ import annotations

import time
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import nn
from torch.nn import functional

from raydistill.compression.copying import copy_of
from raydistill.compression.early_exit import exits
from raydistill.errors import ConfigError, Fault, close_match

PRECISIONS = ("auto", "fp32", "bf16")
_BF16_FLAGS = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
_WARM_UP, _LEAST, _MOST, _MOST_S = 1, 3, 20, 2.0
"""Steps of each precision: before the clock counts, timed at least and at most; and seconds in all, once the least are
done.
"""


def autocast(precision: str, device: torch.device) -> AbstractContextManager[object]:
    """The context a forward pass runs in: bf16 autocast keeps the weights in fp32."""
    if precision == "bf16":
        return torch.autocast(device.type, dtype=torch.bfloat16)
    return nullcontext()


def choose(precision: str, model: nn.Module, device: torch.device, batch: tuple[int, ...], deterministic: bool) -> str:
    """``fp32`` or ``bf16``. ``auto`` measures training steps of both on random images of shape `batch`.

    fp32 without a measurement where the device has no bf16 arithmetic, and in deterministic mode, where the choice
    must not depend on a clock.

    Raises:
        ConfigError: `precision` is none of auto, fp32, bf16.
    """
    if precision not in PRECISIONS:
        raise ConfigError(Fault("precision", "is not known", precision, close_match(precision, PRECISIONS)))
    if precision != "auto":
        return precision
    if deterministic or not has_bf16(device):
        return "fp32"
    seconds = _shortest_steps(("fp32", "bf16"), model, device, batch)
    # bf16 has to earn its rounding: a few percent are within the noise of the measurement.
    return "bf16" if seconds["bf16"] < 0.9 * seconds["fp32"] else "fp32"


def has_bf16(device: torch.device) -> bool:
    """Whether the device computes in bf16 itself: AVX512-BF16 or AMX on a CPU, Ampere or later on a GPU."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    checks = [getattr(torch.cpu, flag, None) for flag in _BF16_FLAGS]
    return device.type == "cpu" and any(check() for check in checks if check is not None)


def _shortest_steps(
    precisions: tuple[str, ...], model: nn.Module, device: torch.device, batch: tuple[int, ...]
) -> dict[str, float]:
    """Seconds of the shortest training step in each precision. They take turns: another process that comes or goes
    meanwhile slows all of them.
    """
    probe = copy_of(model).train()
    turns: list[dict[str, float]] = []
    # Neither the images nor dropout may move the run's own random state.
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        images = torch.randn(batch, device=device).contiguous(memory_format=torch.channels_last)
        begun = time.perf_counter()
        while len(turns) < _WARM_UP + _LEAST or (
            len(turns) < _WARM_UP + _MOST and time.perf_counter() - begun <= _MOST_S
        ):
            turns.append({precision: _step_seconds(precision, probe, images) for precision in precisions})
    return {precision: min(turn[precision] for turn in turns[_WARM_UP:]) for precision in precisions}


def _step_seconds(precision: str, model: nn.Module, images: torch.Tensor) -> float:
    """Seconds of one pass forward and backward."""
    _wait_for(images.device)
    start = time.perf_counter()
    with autocast(precision, images.device):
        loss = torch.stack([functional.cross_entropy(o, o.argmax(1)) for o in exits(model(images))]).sum()
    loss.backward()
    _wait_for(images.device)
    return time.perf_counter() - start


def _wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
