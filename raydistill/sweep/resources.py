"""What a trial takes and what the cluster has: settled before anything is queued."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from raydistill.cluster.nodes import Node
from raydistill.errors import ABSENT, Fault, ResourceError
from raydistill.sweep.spec import ResourcesSection


@dataclass(frozen=True)
class Share:
    """What one trial, or the baseline, gets. threads: torch's CPU threads."""

    cpu: float
    gpu: float

    @property
    def threads(self) -> int:
        return max(1, math.floor(self.cpu))

    @property
    def device(self) -> str:
        return "cuda" if self.gpu > 0 else "cpu"

    def request(self) -> dict[str, float]:
        """As `tune.with_resources` takes it."""
        return {"cpu": self.cpu, **({"gpu": self.gpu} if self.gpu > 0 else {})}

    def __str__(self) -> str:
        parts = [f"{amount:g} {unit}" for amount, unit in ((self.gpu, "GPU"), (self.cpu, "CPU")) if amount > 0]
        return " and ".join(parts)


def trial_share(asked: ResourcesSection | None, nodes: Sequence[Node], where: str) -> Share:
    """What each trial gets: what the file asks for, else one GPU where there are some, else one CPU core.

    Raises:
        ResourceError: no node has that much, or a GPU share that Ray cannot give.
    """
    if asked is None:
        return Share(cpu=1.0, gpu=1.0 if any(node.gpu >= 1 for node in nodes) else 0.0)
    share = Share(cpu=asked.cpu if asked.cpu is not None else 1.0, gpu=asked.gpu)
    if share.gpu > 1 and share.gpu != int(share.gpu):
        raise ResourceError(Fault(f"{where}.gpu", "above one GPU must be a whole number", share.gpu))
    for unit in ("cpu", "gpu"):
        amount = getattr(share, unit)
        largest = max(getattr(node, unit) for node in nodes)
        if amount > largest:
            way_out = "lower it, or leave it out" if largest else "leave it out: trials run on CPU cores"
            rule = f"asks for more than any node has ({largest:g})"
            raise ResourceError(Fault(f"{where}.{unit}", rule, amount, way_out))
    if concurrent(share, nodes) < 1:
        found = ", ".join(f"{node.cpu:g} CPU + {node.gpu:g} GPU" for node in nodes)
        raise ResourceError(Fault(where, f"no node has {share} together", ABSENT, f"the nodes have {found}"))
    return share


def baseline_share(trial: Share, nodes: Sequence[Node]) -> Share:
    """The baseline is alone on the cluster: all cores of one node, or one whole GPU where trials use GPUs."""
    if trial.gpu > 0:
        return Share(cpu=trial.cpu, gpu=max(1.0, trial.gpu) if any(node.gpu >= 1 for node in nodes) else trial.gpu)
    return Share(cpu=max(node.cpu for node in nodes), gpu=0.0)


def concurrent(share: Share, nodes: Sequence[Node]) -> int:
    """How many trials fit at once."""
    slack = 1e-9
    return sum(
        min(math.floor(node.cpu / share.cpu + slack), math.floor(node.gpu / share.gpu + slack) if share.gpu else 10**6)
        for node in nodes
    )
