"""The workers of one run: how many there are, what each takes, and whether a cluster has room for them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from raydistill.cluster.nodes import Node, room
from raydistill.errors import ABSENT, Fault, ResourceError


@dataclass(frozen=True)
class Team:
    """workers: how many. cpu, gpu: what each takes. max_failures: how often all are started again when some die.

    fewest: where the cluster has no room for all of them, or loses some, training goes on with so many; None: all.
    """

    workers: int
    cpu: float = 1.0
    gpu: int = 0
    max_failures: int = 1
    fewest: int | None = None

    @property
    def least(self) -> int:
        return self.workers if self.fewest is None else self.fewest

    @property
    def threads(self) -> int:
        """torch's CPU threads of each."""
        return max(1, math.floor(self.cpu))

    @property
    def device(self) -> str:
        return "cuda" if self.gpu else "cpu"

    def __str__(self) -> str:
        each = [f"{amount:g} {unit}" for amount, unit in ((self.gpu, "GPU"), (self.cpu, "CPU")) if amount > 0]
        number = str(self.workers) if self.fewest is None else f"{self.fewest} to {self.workers}"
        return f"{number} workers of {' and '.join(each)}"


def check_room(team: Team, nodes: Sequence[Node], where: str) -> None:
    """Say in a line what a cluster lacks, before anything waits for it.

    Raises:
        ResourceError: it has not room for the workers.
    """
    places = room(team.cpu, team.gpu, nodes)
    if places >= team.least:
        return
    found = ", ".join(f"{node.cpu:g} CPU + {node.gpu:g} GPU" for node in nodes)
    way_out = f"use {places} workers" if places > 1 else "ask for less a worker"
    raise ResourceError(Fault(where, f"asks for {team}, there is room for {places} (nodes: {found})", ABSENT, way_out))


def trial_team(workers: int, cpu: float, gpu: float, max_failures: int, nodes: Sequence[Node], where: str) -> Team:
    """The workers of each trial. cpu, gpu: of each; where: the key that asks for them.

    Raises:
        ResourceError: they do not fit, or would share a GPU.
    """
    if gpu != int(gpu) or gpu > 1:
        rule = "must be 0 or 1 where trials have workers: each trains on one GPU of its own"
        raise ResourceError(Fault(f"{where}: resources_per_trial.gpu", rule, gpu))
    team = Team(workers, cpu, int(gpu), max_failures)
    check_room(team, nodes, f"{where}: workers_per_trial")
    return team


def at_once(team: Team, nodes: Sequence[Node]) -> int:
    """How many trials there is room for: those that each had half of their workers would wait for ever."""
    return room(team.cpu, team.gpu, nodes) // team.workers
