"""What a sweep tells whoever watches it. Only cli/ prints; a notebook hands in an `Observer` of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from raydistill.errors import RayLostError
from raydistill.records import EpochMetrics, TrialRecord
from raydistill.search import FrontRow


@dataclass(frozen=True)
class Opening:
    """Known before the first trial starts. records: what an interrupted sweep left, by trial id. epochs: of a
    trial; 0: nothing is trained."""

    name: str
    trials: int
    epochs: int
    max_concurrent: int
    dataset: str
    arch: str
    records: Mapping[str, TrialRecord]


class Observer:
    """Does nothing; override what is of interest. Called on the driver's main thread, so be quick."""

    def step(self, text: str) -> None:
        """What the sweep is about to do, in words."""

    def warning(self, text: str) -> None:
        """Something the user has to know."""

    def started(self) -> None:
        """The journal is open: from here on the sweep can be resumed."""

    def opening(self, opening: Opening) -> None:
        """Trials are about to start."""

    def baseline_epoch(self, metrics: EpochMetrics) -> None:
        """The dense baseline has trained one epoch."""

    def trunk_epoch(self, metrics: EpochMetrics) -> None:
        """The trunk, which trials will branch off from, has trained one epoch."""

    def common_epoch(self, metrics: EpochMetrics) -> None:
        """One of the epochs that all trials have in common has been trained."""

    def trial(self, record: TrialRecord) -> None:
        """A trial started, trained an epoch, or ended."""

    def front(self, rows: Sequence[FrontRow]) -> None:
        """The front may have changed: a trial finished, or was evaluated on the test split."""

    def lost(self, error: RayLostError) -> None:
        """Ray has gone; all that can be is recorded. Called on another thread, while the main one is held inside Ray.

        Say so and end the process: if this returns, Ray does that before long, with a paragraph of its own.
        """

    def beat(self) -> None:
        """Nothing happened; called about ten times a second while trials run."""
