"""``raydistill compress --num-workers``: the same run on several workers of a Ray cluster, or of this machine."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from raydistill.cli.run_report import RunReport
    from raydistill.cluster.address import Address
    from raydistill.cluster.nodes import Node
    from raydistill.cluster.team import Team
    from raydistill.cluster.worker import Joined
    from raydistill.records import EpochMetrics
    from raydistill.tasks import Task
    from raydistill.training import RunConfig
    from raydistill.training.loop import OnStep

_WHERE = "--num-workers"


@dataclass(frozen=True)
class Asked:
    """The command's options. gpus: of each worker; None: one where there are some and the run is not told otherwise."""

    fewest: int
    workers: int
    cpus: float
    gpus: int | None
    max_failures: int
    address: Address | None

    def team(self, nodes: Sequence[Node], device: str) -> Team:
        """The workers, for these nodes.

        Raises:
            ResourceError: they have no room for them.
        """
        from raydistill.cluster.team import Team, check_room

        gpus = self.gpus
        if gpus is None:
            gpus = 1 if device != "cpu" and any(node.gpu >= 1 for node in nodes) else 0
        fewest = self.fewest if self.fewest < self.workers else None
        team = Team(self.workers, self.cpus, gpus, self.max_failures, fewest)
        check_room(team, nodes, _WHERE)
        return team


def asked(
    num_workers: str | None, cpus: float, gpus: int | None, max_failures: int, address: str | None, device: str
) -> Asked | None:
    """What the options ask for; None: one process, without Ray. Checked as far as that goes without a cluster.

    num_workers: ``4``, or ``2:4``.

    Raises:
        ConfigError: the number makes no sense, or an option is for workers and there are none.
        ResourceError: this machine is to run them and has no room.
    """
    from raydistill.errors import ABSENT, ConfigError, Fault

    if num_workers is None:
        for option, given in (("--address", address is not None), ("--gpus-per-worker", gpus is not None)):
            if given:
                raise ConfigError(Fault(option, "is for several workers", ABSENT, f"add {_WHERE} N"))
        return None
    fewest, colon, most = num_workers.partition(":")
    parts = [part.strip() for part in ((fewest, most) if colon else (fewest, fewest))]
    if not all(part.isdigit() and int(part) >= 1 for part in parts) or int(parts[0]) > int(parts[1]):
        rule = "must be a whole number from 1 up, or the fewest and the most"
        raise ConfigError(Fault(_WHERE, rule, num_workers, "such as 4, or 2:4 for whatever the cluster has"))
    if device.startswith("cuda:"):
        raise ConfigError(
            Fault("--gpus", "chooses a GPU for one process", device, "use --gpus-per-worker, or --gpus -1")
        )
    from raydistill.cluster.address import choose

    cluster = choose(address, os.environ.get("RAY_ADDRESS"))
    wanted = Asked(int(parts[0]), int(parts[1]), cpus, gpus, max_failures, cluster)
    if cluster is None:
        from raydistill.cluster.nodes import this_machine

        wanted.team([this_machine()], device)
    return wanted


@contextlib.contextmanager
def epochs_on_workers(
    config: RunConfig, task: Task, wanted: Asked, report: RunReport, on_step: OnStep | None, steps: int
) -> Iterator[Iterator[EpochMetrics]]:
    """The epochs of a run on workers, while the block runs; what becomes of the workers is said in lines.

    Raises:
        RaydistillError: no cluster, no room in it, or what training raises.
    """
    from raydistill.cluster.quiet import quieten

    quieten()
    from raydistill.cluster.connect import connected, put
    from raydistill.cluster.modules import named_in
    from raydistill.cluster.trainer import fit_on_workers

    if config.train is not None:
        from raydistill.training.own_loop import loop_of

        loop_of(config, "--train", wanted.workers > 1)
    last: list[EpochMetrics] = []

    def on_team(workers: Sequence[Joined], before: int) -> None:
        hosts = len({worker.host for worker in workers})
        places = f" on {hosts} machines" if hosts > 1 else ""
        if not before:
            report.say(f"{len(workers)} workers{places}: {config.batch_size} samples a step, of all of them together")
            return
        after = f"after epoch {last[-1].epoch + 1}" if last else "at the beginning"
        report.warn(f"the workers were started again: {len(workers)}{places} go on {after}")

    def on_wait() -> None:
        report.warn("no workers yet: the cluster may be busy; waiting for room")

    report.say("starting Ray" if wanted.address is None else f"connecting to Ray at {wanted.address}")
    with connected(wanted.address, task.nbytes, named_in(asdict(config)), report.warn) as nodes:
        team = wanted.team(nodes, config.device)
        shared = put(task, task.nbytes)
        run = fit_on_workers(config, shared, team, on_step=on_step, steps=steps, on_team=on_team, on_wait=on_wait)

        def epochs() -> Iterator[EpochMetrics]:
            for metrics in run:
                last[:] = [metrics]
                yield metrics

        with contextlib.closing(run):
            yield epochs()
