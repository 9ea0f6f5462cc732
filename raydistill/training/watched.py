"""Ranks whose loop is the user's: before they exchange what is decided or yielded they wait for each other, and notice
when one of them will never come.

A rank that exchanges more than the others before it gets here (a batch more, say) waits for them inside that exchange,
and they for it here: for ever. Torch counts what a process group has exchanged; each rank's count stands in the group's
store, so those who wait see that the one who is missing has begun an exchange that they have no part in.
"""

from __future__ import annotations

import contextlib
import json
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import TypeVar

from torch import Tensor, distributed

from raydistill.compression.ranks import Ranks, as_text, default_store, said_by
from raydistill.errors import ABSENT, Fault, TrainingError

T = TypeVar("T")

_PULSE_S = 0.5
_LOOK_S = (0.001, 0.1)
_WAY_OUT = "give every worker as many batches, and let each of them call the scheduler and yield as the others do"


class WatchedRanks(Ranks):
    """The same ranks for a training loop that may call other things on each of them; a context, entered by all.

    where: of the loop, for what is said.
    """

    def __init__(self, ranks: Ranks) -> None:
        super().__init__(ranks.rank, ranks.world, ranks.group)
        self.where = "its first epoch"
        self._place = ""
        self._passed = 0
        self._left = threading.Event()
        self._pulse = threading.Thread(target=self._beat, name="ranks", daemon=True)

    def __enter__(self) -> WatchedRanks:
        if self.several:
            self._place = f"raydistill/watched/{Ranks.of_first(self, uuid.uuid4().hex)}"
            self._pulse.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._left.set()
        if not self.several:
            return
        self._pulse.join()
        if isinstance(error, Exception):
            with contextlib.suppress(Exception):  # the store may be gone with the first rank
                default_store().set(self._key("failed", self.rank), str(as_text(error)))

    def gather(self, value: T) -> list[T]:
        self.meet("gather")
        return super().gather(value)

    def of_first(self, value: T) -> T:
        self.meet("of_first")
        return super().of_first(value)

    def tensors_of_first(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        self.meet("tensors_of_first")
        return super().tensors_of_first(tensors)

    def mean(self, figures: Mapping[str, float]) -> dict[str, float]:
        self.meet("mean")
        return super().mean(figures)

    def together(self, action: Callable[[], T]) -> T:
        self.meet("together")
        return super().together(action)

    def meet(self, what: str) -> None:
        """Wait until all ranks are here, each for the same.

        Raises:
            TrainingError: one of them does something else meanwhile. RaydistillError: one of them has failed.
        """
        if not self.several:
            return
        exchanged = self._exchanged()
        self._passed += 1
        default_store().set(self._key("here", self.rank), json.dumps([self._passed, exchanged, what]))
        pause, most = _LOOK_S
        missing = [rank for rank in range(self.world) if rank != self.rank]
        while missing:
            missing = [rank for rank in missing if not self._came(rank, exchanged, what)]
            if missing:
                time.sleep(pause)
                pause = min(2 * pause, most)

    def _came(self, rank: int, exchanged: int, what: str) -> bool:
        failed = self._key("failed", rank)
        if default_store().check([failed]):
            raise said_by(default_store().get(failed).decode(), rank)
        times, theirs, meant = self._told("here", rank)
        came = times >= self._passed
        if not came:
            times, theirs, _ = self._told("pulse", rank)
        if (came and times == self._passed and theirs != exchanged) or (times < self._passed and theirs > exchanged):
            more, fewer = (rank, self.rank) if theirs > exchanged else (self.rank, rank)
            raise self._fault(f"worker {more} exchanges more than worker {fewer}, which is there already")
        if came and times == self._passed and meant != what:
            raise self._fault(f"workers {min(rank, self.rank)} and {max(rank, self.rank)} go different ways")
        return came

    def _fault(self, rule: str) -> TrainingError:
        return TrainingError(Fault("train", f"{self.where}: {rule}", ABSENT, _WAY_OUT))

    def _told(self, kind: str, rank: int) -> tuple[int, int, str]:
        store, key = default_store(), self._key(kind, rank)
        if not store.check([key]):
            return 0, 0, ""
        times, exchanged, what = json.loads(store.get(key))
        return times, exchanged, what

    def _beat(self) -> None:
        while not self._left.wait(_PULSE_S):
            exchanged = self._exchanged()  # before the times: it must not be of after a meeting that is not counted yet
            try:
                default_store().set(self._key("pulse", self.rank), json.dumps([self._passed, exchanged, ""]))
            except Exception:  # the store is gone with the first rank, as its own exchanges will say
                return

    def _key(self, kind: str, rank: int) -> str:
        return f"{self._place}/{kind}/{rank}"

    def _exchanged(self) -> int:
        group = self.group or distributed.GroupMember.WORLD
        return int(group._get_sequence_number_for_group())  # type: ignore[union-attr]
