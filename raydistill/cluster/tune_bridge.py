"""A trial of Ray Tune that trains on several workers: Tune over Train.

The trial's own process only starts the workers and passes their figures on. Ray Train reserves places for them beside
what Tune gives the trial, so the trial itself asks for next to nothing, and how many trials may run at once follows
from the workers that there is room for (`team.at_once`).
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from typing import TYPE_CHECKING

from raydistill.cluster.team import Team
from raydistill.cluster.trainer import fit_on_workers
from raydistill.cluster.worker import Finish, Joined
from raydistill.records import EpochMetrics
from raydistill.training import RunConfig

if TYPE_CHECKING:
    import ray

REQUEST = {"cpu": 0, "memory": 1}
"""What a trial with workers asks Tune for: not nothing, which Tune refuses, but no core, which a worker would lack."""


def trial_epochs(
    run: RunConfig, task: ray.ObjectRef, team: Team, finish: Finish, restarted: Callable[[str], None]
) -> Generator[EpochMetrics, None, None]:
    """`fit` for a trial. restarted: told in words when workers have died and all have started again."""

    def on_team(workers: Sequence[Joined], before: int) -> None:
        if before:
            restarted(f"a worker's process died; {len(workers)} workers go on")

    yield from fit_on_workers(run, task, team, on_team=on_team, finish=finish)
