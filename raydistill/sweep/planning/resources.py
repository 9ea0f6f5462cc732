"""What a trial takes and what the cluster has: settled before anything is queued."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from raydistill.cluster.nodes import Node, fit, room
from raydistill.errors import ABSENT, Fault, ResourceError
from raydistill.sweep.file.spec import ResourcesSection


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


def trial_share(asked: ResourcesSection | None, nodes: Sequence[Node], where: str, here: str = "the cluster") -> Share:
    """What each trial gets: what the file asks for, else one GPU where there are some, else one CPU core.

    nodes: also those that an autoscaler may start. here: what they are, for the error.

    Raises:
        ResourceError: no node has that much, or a GPU share that Ray cannot give.
    """
    if asked is None:
        sized = [node for node in nodes if math.isfinite(node.gpu)]
        return Share(cpu=1.0, gpu=1.0 if any(node.gpu >= 1 for node in sized) else 0.0)
    share = Share(cpu=asked.cpu if asked.cpu is not None else 1.0, gpu=asked.gpu)
    if share.gpu > 1 and share.gpu != int(share.gpu):
        raise ResourceError(Fault(f"{where}.gpu", "above one GPU must be a whole number", share.gpu))
    for unit in ("cpu", "gpu"):
        amount = getattr(share, unit)
        largest = max(getattr(node, unit) for node in nodes)
        if amount > largest:
            asks = f"asks for {unit}: {amount:g}"
            if unit == "gpu" and not largest:
                rule, way_out = f"{asks}, {here} has none", "use --cpu to run trials on CPU cores, or add a GPU"
            else:
                whole = here if len(nodes) == 1 else f"the largest node of {here}"
                rule, way_out = f"{asks}, {whole} has {largest:g}", "lower it, or leave it out"
            raise ResourceError(Fault(f"{where}.{unit}", rule, ABSENT, way_out))
    if concurrent(share, nodes) < 1:
        found = ", ".join(sorted({f"{node.cpu:g} CPU + {node.gpu:g} GPU" for node in nodes}))
        raise ResourceError(Fault(where, f"no node of {here} has {share} together", ABSENT, f"its nodes have {found}"))
    return share


def baseline_share(trial: Share, nodes: Sequence[Node]) -> Share:
    """The baseline is alone on the cluster: all cores of one node, or one whole GPU where trials use GPUs.

    It does not wait for a larger machine where one that is there would do for a trial.
    """
    nodes = [node for node in nodes if node.alive and _fit(trial, node)] or nodes
    if trial.gpu > 0:
        return Share(cpu=trial.cpu, gpu=max(1.0, trial.gpu) if any(node.gpu >= 1 for node in nodes) else trial.gpu)
    cores = max(node.cpu for node in nodes)
    return Share(cpu=cores if math.isfinite(cores) else trial.cpu, gpu=0.0)


def concurrent(share: Share, nodes: Sequence[Node]) -> int:
    """How many trials fit at once, when the cluster has grown as far as it may."""
    return room(share.cpu, share.gpu, nodes)


def must_wait(share: Share, nodes: Sequence[Node]) -> bool:
    """No node that is there has room for a trial: the autoscaler has to start one."""
    return not any(_fit(share, node) for node in nodes if node.alive)


def _fit(share: Share, node: Node) -> int:
    return fit(share.cpu, share.gpu, node)
