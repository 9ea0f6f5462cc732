"""What packing costs and what it gains: bytes of a trial, and how many trials together are fastest."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from raydistill.compression.copying import copy_of
from raydistill.errors import TrainingError
from raydistill.tasks import TRAIN, Batch, Loading, Task
from raydistill.tasks.base import autocast
from raydistill.training.memory import ran_out
from raydistill.training.packing.fitting import Found, find
from raydistill.training.packing.stack import Stack
from raydistill.training.packing.ways import losses

WIDTHS = (2, 4, 8, 16, 32, 64)
GAIN = 1.1
"""So many times the images a second that trials one by one have, at least; each wider pack has to gain that again."""

_TURNS = 3


@dataclass(frozen=True)
class TrialBytes:
    """Of one trial of a pack. held: weights, gradients, momentum and masks. passing: what a minibatch leaves for its
    backward pass."""

    held: int
    passing: int

    @property
    def total(self) -> int:
        return self.held + self.passing


def fits(network: nn.Module, task: Task, batch_size: int, precision: str = "fp32") -> Found:
    """Whether trials of this network are one network, tried on a small batch where it lies."""
    device = next(network.parameters()).device
    batch = first_batch(task, min(batch_size, 16), device)
    return find(network, task, batch, precision, 2, deterministic=True)


def bytes_of_trial(network: nn.Module, task: Task, batch_size: int, precision: str = "fp32") -> TrialBytes:
    """Counted on a small batch: activations grow with its rows."""
    device = next(network.parameters()).device
    batch = first_batch(task, rows := min(batch_size, 8), device)
    own = copy_of(network).train()
    seen: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        seen[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    counted = torch.autograd.graph.saved_tensors_hooks(pack, lambda kept: kept)
    with torch.random.fork_rng(devices=[]), counted, autocast(precision, device):
        task.loss(own, batch)
    weights = {parameter.untyped_storage().data_ptr() for parameter in own.parameters()}
    passing = sum(size for where, size in seen.items() if where not in weights)
    state = sum(parameter.numel() * parameter.element_size() for parameter in own.parameters())
    buffers = sum(buffer.numel() * buffer.element_size() for buffer in own.buffers())
    return TrialBytes(4 * state + buffers, passing * batch_size // rows)


def first_batch(task: Task, rows: int, device: torch.device) -> Batch:
    return next(iter(task.feed(TRAIN, Loading(device, rows)).epoch(0)))


def fastest_width(
    network: nn.Module, task: Task, batch_size: int, precision: str = "fp32", widths: Sequence[int] = WIDTHS
) -> tuple[int, dict[int, float]]:
    """(how many trials together are fastest, samples a second by width). One where packing is no gain, or where trials
    do not fit."""
    device = next(network.parameters()).device
    batch = first_batch(task, batch_size, device)
    found = find(network, task, batch, precision, widths[0])
    if found.why:
        return 1, {}
    rates = {1: batch_size / _alone_s(network, task, batch, precision)}
    best = 1
    for width in widths:
        try:
            rates[width] = width * batch_size / _packed_s(found, network, task, batch, precision, width)
        except (RuntimeError, MemoryError, TrainingError) as error:
            if not ran_out(error):
                raise
            break
        if rates[width] < GAIN * rates[best]:
            break
        best = width
    return best, rates


def _alone_s(network: nn.Module, task: Task, batch: Batch, precision: str) -> float:
    own = copy_of(network).train()
    optimizer = torch.optim.SGD(own.parameters(), lr=1e-6, momentum=0.9)
    device = next(own.parameters()).device

    def step() -> None:
        optimizer.zero_grad()
        with autocast(precision, device):
            loss = task.loss(own, batch)
        loss.backward()
        optimizer.step()

    return _shortest(step, device)


def _packed_s(found: Found, network: nn.Module, task: Task, batch: Batch, precision: str, width: int) -> float:
    networks = [copy_of(network) for _ in range(width)]
    optimizers = [torch.optim.SGD(own.parameters(), lr=1e-6, momentum=0.9) for own in networks]
    stack = Stack(networks, found.used)
    stack.begin_gradients()
    part, way = stack.part(0, width), found.make()

    def step() -> None:
        stack.clear_gradients(range(width))
        losses(way, task, part.parameters, part.buffers, batch, True, precision).sum().backward()
        for optimizer in optimizers:
            optimizer.step()

    return _shortest(step, next(network.parameters()).device)


def _shortest(step: object, device: torch.device) -> float:
    seconds = []
    for _ in range(1 + _TURNS):
        start = time.perf_counter()
        step()  # type: ignore[operator]
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        seconds.append(time.perf_counter() - start)
    return min(seconds[1:])
