"""Whether runs of one kind can be one network, found out by trying, and the fastest way to compute with it."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from raydistill.compression.copying import copy_of
from raydistill.tasks import Batch, Task
from raydistill.training.packing.chance import Chance
from raydistill.training.packing.member import Member
from raydistill.training.packing.stack import Stack
from raydistill.training.packing.ways import WAYS, Way, check_way, losses

Kind = tuple[object, ...]
_TURNS = 4


@dataclass(frozen=True)
class Found:
    """why: the runs are trained by themselves, for this reason; "" where they are one network. make: its code for any
    number of them. used: names of the parameters that get a gradient."""

    make: Callable[[], Way]
    used: frozenset[str]
    why: str = ""


class Fitting:
    """say: told once of each kind that does not fit."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._known: dict[Kind, Found] = {}

    def of(self, kind: Kind, member: Member, places: int) -> Found:
        """places: how many runs there are to be computed at once."""
        if kind not in self._known:
            self._known[kind] = found = self._find(member, places)
            if found.why:
                self._say(f"trials of {member.run.config.arch} are trained one by one: {found.why}")
        return self._known[kind]

    def _find(self, member: Member, places: int) -> Found:
        run = member.run
        outside = Chance()
        try:
            batch = next(iter(run.train_feed.epoch(member.epoch)))
            network = copy_of(run.model)
            return find(network, run.task, batch, run.precision, places, run.config.deterministic)
        finally:
            outside.put_back()


def find(
    network: nn.Module, task: Task, batch: Batch, precision: str, places: int, deterministic: bool = False
) -> Found:
    """The way for this network. On a GPU ways are timed, unless the choice must not depend on a clock."""
    timed = next(network.parameters()).device.type == "cuda" and not deterministic
    fitting: list[Found] = []
    why = ""
    for way in WAYS:
        make = functools.partial(way, network)
        why, used = check_way(make(), network, task, batch, precision)
        if not why:
            fitting.append(Found(make, used))
            if not timed:
                return fitting[0]
    if not fitting:
        return Found(functools.partial(WAYS[0], network), frozenset(), why)
    return min(fitting, key=lambda found: step_seconds(found.make(), network, task, batch, precision, places))


def step_seconds(way: Way, network: nn.Module, task: Task, batch: Batch, precision: str, places: int) -> float:
    """Of the shortest of a few passes forward and backward of so many places."""
    stack = Stack([copy_of(network) for _ in range(places)])
    part = stack.part(0, places)
    seconds = []
    for _ in range(_TURNS):
        _wait(next(network.parameters()).device)
        start = time.perf_counter()
        losses(way, task, part.parameters, part.buffers, batch, True, precision).sum().backward()
        _wait(next(network.parameters()).device)
        seconds.append(time.perf_counter() - start)
    return min(seconds[1:])


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
