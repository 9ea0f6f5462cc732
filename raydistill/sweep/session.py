"""What the steps of one running sweep share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from raydistill.cluster.nodes import Node
from raydistill.cluster.team import Team
from raydistill.storage import Store
from raydistill.sweep.file.load import Sweep
from raydistill.sweep.planning.packing import Packing
from raydistill.sweep.planning.plan import Plan
from raydistill.sweep.planning.resources import Share
from raydistill.sweep.record.ledger import Ledger
from raydistill.sweep.record.observer import Observer
from raydistill.sweep.tune.interrupt import Interrupt
from raydistill.tasks import Task


@dataclass
class Session:
    """folder: ``storage/NAME`` on this machine. fingerprint: the task's, a hash of its data.

    shared: the task's object reference, boxed: Ray would unpack a bare one. team: the workers of each trial, where
    it has several. packing: what the file asks for. pack: how many trials are trained as one network. branches: the
    trunk's networks, references by numbers of its epochs. common_start: a reference to the checkpoint of the epochs
    that trials have in common; None: they have none. trained_again: trials whose finished checkpoint was lost.
    """

    sweep: Sweep
    store: Store
    folder: Path
    task: Task
    fingerprint: str
    plan: Plan
    ledger: Ledger
    observer: Observer
    interrupt: Interrupt
    nodes: Sequence[Node]
    share: Share
    shared: list[object] = field(default_factory=list)
    team: Team | None = None
    packing: Packing = field(default_factory=lambda: Packing(1))
    pack: int = 1
    branches: dict[int, str] = field(default_factory=dict)
    common_start: str | None = None
    trained_again: set[str] = field(default_factory=set)

    @property
    def kept(self) -> str:
        """The sweep's folder as the journal names it: a path or a URI."""
        return self.store.reference(self.folder)
