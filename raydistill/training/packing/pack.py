"""Runs that one process trains side by side, an epoch of all of them at a time.

Runs of one kind (see `Member.kind`) are one network with a leading dimension of trials; what does not fit, for an epoch
or for good, is trained by itself between the others, exactly as `fit` would. A run that ends makes room for another.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from types import TracebackType
from weakref import WeakValueDictionary

from raydistill.errors import ABSENT, ConfigError, Fault
from raydistill.records import EpochMetrics
from raydistill.tasks import Feed, Loading, Task
from raydistill.tasks.feeds import Kept
from raydistill.training.config import RunConfig
from raydistill.training.determinism import training_environment
from raydistill.training.loop import check_run
from raydistill.training.packing.fitting import Fitting, Found, Kind
from raydistill.training.packing.group import Group
from raydistill.training.packing.member import Member
from raydistill.training.packing.remembered import can_be_kept
from raydistill.training.untrained import as_run

Ended = tuple[int, EpochMetrics | BaseException]


def fit_packed(configs: Iterable[RunConfig], task: Task, places: int = 16) -> Iterator[Ended]:
    """`fit` of several runs, `places` at a time: (number of a run, the metrics of an epoch or what ended it).

    What one run learns, writes and fails of is what it would by itself, to rounding. The next run takes the place of
    one that has ended. Closing the generator ends all of them.

    Raises:
        ConfigError: a run with a training loop of its own.
    """
    waiting = enumerate(configs)
    with Pack(task) as pack:
        while True:
            while len(pack) < places and (following := next(waiting, None)) is not None:
                number, config = following
                try:
                    pack.add(number, config)
                except Exception as error:
                    yield number, error
            if not len(pack):
                return
            yield from pack.epoch()


class Pack:
    """task: loaded; all runs train it. say: called with a line that the user has to hear, each once. most: how many are
    one network at most.

    A context: torch's settings are those of the first run until it is left.
    """

    def __init__(self, task: Task, say: Callable[[str], None] | None = None, most: int = 64) -> None:
        self._task, self._most = task, most
        self._said: set[str] = set()
        self._tell = say
        self._members: dict[int, Member] = {}
        self._groups: dict[Kind, Group] = {}
        self._fitting = Fitting(self._say)
        self._tasks: dict[tuple[object, ...], Task] = {}
        self._feeds: WeakValueDictionary[tuple[object, ...], Feed] = WeakValueDictionary()
        self._kept: dict[int, tuple[Feed, Kept | None]] = {}
        self._environment = contextlib.ExitStack()
        self._begun = False

    def __len__(self) -> int:
        return len(self._members)

    @property
    def keys(self) -> tuple[int, ...]:
        return tuple(self._members)

    def add(self, key: int, config: RunConfig) -> int:
        """Take a run in, from its checkpoint where it has one; returns the epoch that it begins with. One that has
        trained all of its epochs is not taken.

        Raises:
            ConfigError, DataError, CheckpointError: as of `fit`; the others go on.
        """
        config = as_run(config)
        check_run(config)
        if config.train is not None:
            raise ConfigError(Fault("train", "is a loop of one's own, which trains one network", ABSENT))
        if not self._begun:
            self._environment.enter_context(training_environment(config.threads, config.deterministic))
            self._begun = True
        member = Member(key, config, self._task, self._same_task, self._feed)
        if member.ended:
            member.close()
        else:
            self._members[key] = member
        return member.epoch

    def drop(self, key: int) -> None:
        """Stop a run; its checkpoint stays."""
        member = self._members.pop(key, None)
        if member is None:
            return
        member.close()
        for group in self._groups.values():
            group.drop(member)

    def epoch(self) -> Iterator[Ended]:
        """One epoch of every run, and what came of it. A run is gone from here when it has ended, or failed."""
        start = time.perf_counter()
        members = list(self._members.values())
        for member in members:
            member.begin_epoch()
        together, alone = self._split([member for member in members if member.error is None])
        for group in together:
            yield from self._trained(group, start)
        for member in alone:
            with member.guarded(), member.chance.in_force():
                metrics = member.run.rest_of_epoch(member.epoch, time.perf_counter(), member.events)
            yield self._closed(member, metrics if member.error is None else None)
        for member in members:
            if member.error is not None and member.key in self._members:
                yield self._closed(member, None)

    def _trained(self, group: Group, start: float) -> Iterator[Ended]:
        members = group.present
        group.train()
        seconds = time.perf_counter() - start
        validated = group.validate(self._kept_of(members[0]))
        for member in members:
            metrics = None
            if member.error is None:
                run = member.run
                with member.guarded(), member.chance.in_force():
                    metrics = run.end_epoch(
                        member.epoch, member.train_loss, run.stepping.learning_rate, validated[member.key], seconds,
                        start, member.events,
                    )  # fmt: skip
            yield self._closed(member, metrics)

    def _closed(self, member: Member, metrics: EpochMetrics | None) -> Ended:
        member.epoch += 1
        if member.ended:
            self.drop(member.key)
        if member.error is not None:
            return member.key, member.error
        assert metrics is not None
        return member.key, metrics

    def _split(self, members: list[Member]) -> tuple[list[Group], list[Member]]:
        """(groups to be trained as one network each, members to be trained by themselves) in this epoch."""
        by_kind: dict[Kind, list[Member]] = {}
        alone = []
        for member in members:
            if member.alone or member.hooked():
                if member.alone:
                    self._say(f"a trial is trained by itself: {member.alone}")
                alone.append(member)
            else:
                by_kind.setdefault(member.kind(), []).append(member)
        for kind in [kind for kind in self._groups if kind not in by_kind]:
            self._groups.pop(kind).release()
        together = []
        for kind, those in by_kind.items():
            known = self._fitting.of(kind, those[0], min(len(those), self._most)) if len(those) > 1 else None
            if known is None or known.why:
                alone += those
                if kind in self._groups:
                    self._groups.pop(kind).release()
                continue
            together.append(self._group(kind, known, those))
        return together, alone

    def _group(self, kind: Kind, found: Found, members: list[Member]) -> Group:
        """The group of before where it still is the right one: places that are free are kept for a while, because with
        another width sums are rounded otherwise."""
        group = self._groups.get(kind)
        if group is not None:
            same = set(map(id, group.present)) == set(map(id, members)) and all(map(group.holds, members))
            if same and 2 * len(members) > len(group.places):
                return group
            group.release()
        most = self._most if group is None else group.most
        self._groups[kind] = Group(_placed(group, members), found.make, found.used, most, self._say)
        return self._groups[kind]

    def _kept_of(self, member: Member) -> Kept | None:
        feed = member.run.validation_feed
        present = {id(other.run.validation_feed) for other in self._members.values()}
        self._kept = {key: kept for key, kept in self._kept.items() if key in present}
        if id(feed) not in self._kept:
            self._kept[id(feed)] = (feed, Kept(feed) if can_be_kept(feed) else None)
        return self._kept[id(feed)][1]

    def _same_task(self, task: Task, config: RunConfig) -> Task:
        """Runs whose data are prepared alike have one task, and with it one feed of each split."""
        about = (type(task), task.name, repr(sorted(task.identity(config.dataset).items(), key=repr)))
        return self._tasks.setdefault(about, task)

    def _feed(self, task: Task, split: str, loading: Loading) -> Feed:
        key = (id(task), split, str(loading.device), loading.batch_size, loading.seed, loading.fraction)
        feed = self._feeds.get(key)
        if feed is None:
            feed = self._feeds[key] = task.feed(split, loading)
        return feed

    def _say(self, line: str) -> None:
        if line not in self._said:
            self._said.add(line)
            if self._tell is not None:
                self._tell(line)

    def close(self) -> None:
        for group in self._groups.values():
            group.release()
        for key in list(self._members):
            self.drop(key)
        self._groups.clear()
        self._environment.close()

    def __enter__(self) -> Pack:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _placed(group: Group | None, members: Sequence[Member]) -> list[Member]:
    """Members in the places that they had, others in those that are free."""
    if group is None:
        return list(members)
    fresh = [member for member in members if member not in group.places]
    kept = [member if member in members else fresh.pop(0) if fresh else None for member in group.places]
    return [*(member for member in kept if member is not None), *fresh]
