"""fp32 or bf16 autocast, and which of the two is faster here."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import get_args

import torch
from torch import Tensor, nn

from raydistill.compression.copying import copy_of
from raydistill.errors import ABSENT, ConfigError, Fault, RaydistillError, close_match
from raydistill.parts.training import Precision
from raydistill.tasks.base import autocast
from raydistill.training.memory import ran_out

PRECISIONS: tuple[str, ...] = get_args(Precision)
Loss = Callable[[nn.Module], Tensor]
"""Of a batch that was chosen already."""
_BF16_FLAGS = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
_WARM_UP, _LEAST, _MOST, _MOST_S = 1, 3, 20, 2.0
"""Steps of each precision: before the clock counts, timed at least and at most; and seconds in all, once the least are
done.
"""


def choose(
    precision: str,
    model: nn.Module,
    device: torch.device,
    example: tuple[object, ...],
    deterministic: bool,
    loss: Loss | None = None,
) -> str:
    """``fp32`` or ``bf16``. ``auto`` measures training steps of both on inputs like `example`, a batch of them, or of
    `loss`, for a network that takes more than inputs when it trains.

    fp32 without a measurement where the device has no bf16 arithmetic, and in deterministic mode, where the choice
    must not depend on a clock.

    Raises:
        ConfigError: `precision` is none of auto, fp32, bf16; or it cannot be measured.
    """
    if precision not in PRECISIONS:
        raise ConfigError(Fault("precision", "is not known", precision, close_match(precision, PRECISIONS)))
    if precision != "auto":
        return precision
    if deterministic or not has_bf16(device):
        return "fp32"
    try:
        seconds = _shortest_steps(("fp32", "bf16"), model, device, example, loss)
    except Exception as error:  # a network of the user's may fail in any way
        if isinstance(error, RaydistillError) or ran_out(error):
            raise
        rule = f"cannot be measured: a step on the task's example fails ({type(error).__name__}: {error})"
        raise ConfigError(Fault("precision", rule.splitlines()[0], ABSENT, "say fp32 or bf16")) from error
    # bf16 has to earn its rounding: a few percent are within the noise of the measurement.
    return "bf16" if seconds["bf16"] < 0.9 * seconds["fp32"] else "fp32"


def has_bf16(device: torch.device) -> bool:
    """Whether the device computes in bf16 itself: AVX512-BF16 or AMX on a CPU, Ampere or later on a GPU."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    checks = [getattr(torch.cpu, flag, None) for flag in _BF16_FLAGS]
    return device.type == "cpu" and any(check() for check in checks if check is not None)


def _shortest_steps(
    precisions: tuple[str, ...],
    model: nn.Module,
    device: torch.device,
    example: tuple[object, ...],
    loss: Loss | None = None,
) -> dict[str, float]:
    """Seconds of the shortest training step in each precision. They take turns: another process that comes or goes
    meanwhile slows all of them.
    """
    probe = copy_of(model).train()
    turns: list[dict[str, float]] = []
    # Neither the inputs nor dropout may move the run's own random state.
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        if loss is None:
            inputs = tuple(_random_like(value, device) for value in example)
            loss = lambda network: _loss_of(network(*inputs))  # noqa: E731
        begun = time.perf_counter()
        while len(turns) < _WARM_UP + _LEAST or (
            len(turns) < _WARM_UP + _MOST and time.perf_counter() - begun <= _MOST_S
        ):
            turns.append({precision: _step_seconds(precision, probe, loss, device) for precision in precisions})
    return {precision: min(turn[precision] for turn in turns[_WARM_UP:]) for precision in precisions}


def _random_like(value: object, device: torch.device) -> object:
    if not isinstance(value, Tensor) or not value.is_floating_point():
        return value.to(device) if isinstance(value, Tensor) else value
    drawn = torch.randn(value.shape, dtype=value.dtype, device=device)
    return drawn.contiguous(memory_format=torch.channels_last) if drawn.dim() == 4 else drawn


def _loss_of(output: object) -> Tensor:
    """A figure that every tensor of a network's output has a part in."""
    outputs = [part for part in flattened(output) if part.requires_grad]
    return torch.stack([part.float().square().mean() for part in outputs]).sum()


def _step_seconds(precision: str, model: nn.Module, loss: Loss, device: torch.device) -> float:
    """Seconds of one pass forward and backward."""
    _wait_for(device)
    start = time.perf_counter()
    with autocast(precision, device):
        found = loss(model)
    found.backward()
    _wait_for(device)
    return time.perf_counter() - start


def flattened(output: object) -> Iterator[Tensor]:
    """The tensors in a network's output of any nesting."""
    if isinstance(output, Tensor):
        yield output
    elif isinstance(output, dict):
        yield from flattened(list(output.values()))
    elif isinstance(output, (list, tuple)):
        for part in output:
            yield from flattened(part)


def _wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
