"""Trials that are trained several as one network: who has which, and what becomes of them when a process dies.

A *host* is a process with what one trial takes; it trains an epoch of all its trials for each call. To the search
driver these are trials like any other: their legs, reports and ends are those that Ray Tune would bring.
"""

from __future__ import annotations

import contextlib
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import ray
import torch
from ray.exceptions import RayError

from raydistill.errors import Fault, ResourceError
from raydistill.sweep.search_driver import SearchDriver
from raydistill.sweep.session import Session
from raydistill.sweep.trial.packed import EpochOfAll, PackedLeg, PackedTrials
from raydistill.sweep.tune.callback import LOST_MACHINE, MOST_LOSSES, disk_is_full, why_it_died
from raydistill.tasks import Task
from raydistill.training.determinism import training_environment
from raydistill.training.packing.cost import fastest_width

if TYPE_CHECKING:
    from ray.actor import ActorHandle

_POLL_S = 0.1


@dataclass
class Host:
    """width: how many trials it is given; fewer after its process has died, so that who ends it is found out. most:
    what width may grow to. legs: of its trials, by their ids. fresh: those it has yet to be told of. stopped: those
    that it is to let go. suspects: its trials were in a process that has died, and no others are with them.
    """

    most: int
    width: int
    actor: ActorHandle | None = None
    place: tuple[str, int] | None = None
    call: ray.ObjectRef | None = None
    legs: dict[str, PackedLeg] = field(default_factory=dict)
    fresh: list[PackedLeg] = field(default_factory=list)
    stopped: list[str] = field(default_factory=list)
    suspects: bool = False


def run_packed(session: Session, search_driver: SearchDriver, most: int) -> None:
    """Everything that a search driver has to run, at most `most` trials at once."""
    hosts = max(1, -(-most // session.pack))
    packs = Packs(session, search_driver, hosts, min(session.pack, most))
    try:
        packs.run()
    finally:
        packs.end()


def settled_pack(session: Session) -> int:
    """How many trials are trained as one network: what the file says, or what is measured where one will be trained."""
    packing = session.packing
    if not packing.wanted:
        return 1
    if packing.asked is not None:
        return packing.asked
    session.observer.step("measuring how many trials are fastest as one network")
    sections, share = session.sweep.sections, session.share
    precision = sections.training.precision
    measure = ray.remote(num_cpus=share.cpu, num_gpus=share.gpu)(_measured)
    said = (sections.model.arch, sections.model.args, sections.training.batch_size, precision, share.device)
    try:
        width, rates = ray.get(measure.remote(session.shared, share.threads, *said))
    except RayError as error:
        session.observer.warning(f"trials are trained one by one: measuring a pack failed ({why_it_died(str(error))})")
        return 1
    faster = f", {rates[width] / rates[1]:.1f} times as fast as one by one" if width > 1 else ": packing is no gain"
    session.observer.step(f"{width} trial{'s' * (width > 1)} as one network{faster}")
    return int(width)


def _measured(
    shared: list[Any],
    threads: int,
    arch: str,
    arguments: Mapping[str, object],
    batch_size: int,
    precision: str,
    device: str,
) -> tuple[int, dict[int, float]]:
    """In a process of a trial's size."""
    task: Task = ray.get(shared[0])
    with training_environment(threads, deterministic=False):
        network = task.network(arch, arguments, fetch=False).to(device).to(memory_format=torch.channels_last)
        return fastest_width(network, task, batch_size, "fp32" if precision == "auto" else precision)


class Packs:
    """start: a process for a host; its epochs."""

    def __init__(
        self,
        session: Session,
        search_driver: SearchDriver,
        hosts: int,
        width: int,
        start: Callable[[], ActorHandle] | None = None,
    ) -> None:
        self._session, self._search_driver = session, search_driver
        self._hosts = [Host(width, width) for _ in range(hosts)]
        self._start = start or self._started
        self._waiting: list[PackedLeg] = []
        self._suspects: list[PackedLeg] = []
        self._alone: Counter[str] = Counter()
        self._among: dict[str, float] = defaultdict(float)
        self._losses: Counter[str] = Counter()
        self._said: set[str] = set()

    def run(self) -> None:
        interrupt = self._session.interrupt
        while not interrupt.stop_all():
            self._hand_out()
            calls = {host.call: host for host in self._hosts if host.call is not None}
            if not calls:
                return
            ready, _ = ray.wait(list(calls), timeout=_POLL_S)
            self._session.observer.beat()
            for call in ready:
                self._take(calls[call])

    def end(self) -> None:
        """End all processes; what they trained is in their checkpoints."""
        for host in self._hosts:
            self._release(host)

    def _hand_out(self) -> None:
        """Give each host that waits what there is room for, and let it train an epoch."""
        for host in self._hosts:
            if host.call is not None:
                continue
            if not host.legs:
                host.suspects = bool(self._suspects)
            while len(host.legs) < host.width and (leg := self._next(host)) is not None:
                host.legs[leg.trial_id] = leg
                host.fresh.append(leg)
            if not host.legs:
                continue
            if host.actor is None:
                host.actor = self._start()
            told = (host.fresh, host.stopped)
            host.fresh, host.stopped = [], []
            host.call = host.actor.epoch.remote(*told)

    def _next(self, host: Host) -> PackedLeg | None:
        if host.suspects:
            return self._suspects.pop(0) if self._suspects else None
        if self._waiting:
            return self._waiting.pop(0)
        leg = self._search_driver.next_leg()
        return None if leg is None else PackedLeg(leg.plan, leg.known, leg.until)

    def _take(self, host: Host) -> None:
        call, host.call = host.call, None
        try:
            if host.place is None and host.actor is not None:
                host.place = ray.get(host.actor.place.remote())
            found: EpochOfAll = ray.get(call)
        except RayError as error:
            self._died(host, str(error))
            return
        for line in found.lines:
            if line not in self._said:
                self._said.add(line)
                self._session.observer.warning(line)
        for trial_id, report in found.reports:
            if trial_id in host.legs and not self._search_driver.report(trial_id, report):
                self._over(host, trial_id)
                host.stopped.append(trial_id)
        for trial_id in found.ended:
            if trial_id in host.legs:
                self._over(host, trial_id)
        self._cleared(host)

    def _cleared(self, host: Host) -> None:
        """Its process has lived through an epoch: those in it are no suspects, and make way for others that are."""
        for trial_id in host.legs:
            self._among.pop(trial_id, None)
        if host.suspects and self._suspects:
            host.stopped += host.legs
            self._waiting += [self._from_here(leg) for leg in host.legs.values()]
            host.legs = {}
        elif not self._suspects:
            host.width = min(host.most, 2 * host.width)
        host.suspects = False

    def _from_here(self, leg: PackedLeg) -> PackedLeg:
        """The rest of a leg."""
        last = self._session.ledger.records[leg.trial_id].last
        return replace(leg, known=0 if last is None else last.epoch + 1)

    def _over(self, host: Host, trial_id: str) -> None:
        del host.legs[trial_id]
        self._search_driver.completed(trial_id)

    def _died(self, host: Host, text: str) -> None:
        """Its trials go on from their checkpoints, half as many together and with no others, until those are found that
        end their process. A death counts for a trial by its share in the process, and as long as nobody knows better,
        so that none is failed for its neighbour.
        """
        why = why_it_died(text, place=host.place)
        legs = list(host.legs.values())
        self._release(host)
        host.legs, host.fresh, host.stopped = {}, [], []
        if disk_is_full(text):
            self._search_driver.halt(ResourceError(Fault(f"trial {legs[0].trial_id}", why)))
            return
        host.width = max(1, len(legs) // 2)
        if "out of memory" in why:
            host.most = host.width
        lost = why == LOST_MACHINE
        for leg in legs:
            trial_id = leg.trial_id
            if lost and self._losses[trial_id] < MOST_LOSSES:
                self._losses[trial_id] += 1
            elif len(legs) == 1:
                self._alone[trial_id] += 1
            else:
                self._among[trial_id] += 1 / len(legs)
            deaths = self._alone[trial_id] + int(self._among[trial_id] + 1e-9)
            if deaths > self._session.sweep.sections.max_failures:
                self._search_driver.failed(trial_id, why)
                continue
            self._search_driver.retried(trial_id, why)
            (self._waiting if lost else self._suspects).append(self._from_here(leg))
        if lost:
            host.width = host.most

    def _release(self, host: Host) -> None:
        actor, host.actor, host.place, host.call = host.actor, None, None, None
        if actor is not None:
            with contextlib.suppress(RayError, ValueError):
                ray.kill(actor)

    def _started(self) -> ActorHandle:
        session = self._session
        share: Any = session.share
        remote = ray.remote(num_cpus=share.cpu, num_gpus=share.gpu, max_restarts=0)(PackedTrials)
        return remote.remote(session.shared, session.store, session.sweep.wants_latency, session.sweep.own_figures)
