"""Several processes that train one model together, over an initialised `torch.distributed`.

Every rank holds the whole model and a share of each minibatch's rows. What is decided, is decided by the *first* rank
(rank 0) and sent to the others; what is counted, is added up over all of them. `Ranks()` is one process by itself: the
same calls, and nothing is sent.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from typing import TypeVar

import torch
from torch import Tensor, distributed

from raydistill.errors import ABSENT, Fault, RaydistillError, TrainingError

T = TypeVar("T")

_OF_ONE_KIND = "use machines of one kind; if they are, this is a defect of raydistill: please report it"
_REASON = "raydistill/reason"
_entries = itertools.count()
_WAIT_FOR_REASON_S = 5.0
_LOST = ("connection closed by peer", "connection reset", "broken pipe", "gloo", "nccl", "process group", "timed out")


_present: ContextVar[Ranks | None] = ContextVar("ranks", default=None)


@contextlib.contextmanager
def statistics_over(ranks: Ranks) -> Iterator[None]:
    """In the block what is learned of activations while training (statistics of batch norms that are told so, ranges of
    quantizers) is of the rows of all ranks."""
    token = _present.set(ranks)
    try:
        yield
    finally:
        _present.reset(token)


def present() -> Ranks | None:
    """The ranks that `statistics_over` has told; None outside of it."""
    return _present.get()


class Ranks:
    """rank: of this process, from 0. world: how many there are. idle: set by the training loop where a minibatch has
    no rows for this rank: it then takes part with a row that counts for nothing.
    """

    def __init__(self, rank: int = 0, world: int = 1, group: distributed.ProcessGroup | None = None) -> None:
        self.rank, self.world, self.group = rank, world, group
        self.idle = False

    @classmethod
    def of_process_group(cls, group: distributed.ProcessGroup | None = None) -> Ranks:
        """The ranks of an initialised process group; None: of the default one. Gloo for CPUs, NCCL for GPUs."""
        return cls(distributed.get_rank(group), distributed.get_world_size(group), group)

    @property
    def first(self) -> bool:
        return self.rank == 0

    @property
    def several(self) -> bool:
        return self.world > 1

    def sum(self, tensor: Tensor) -> Tensor:
        """The sum over all ranks, a new tensor; every rank gets the same bits."""
        if not self.several:
            return tensor
        total = tensor.detach().clone(memory_format=torch.contiguous_format)
        distributed.all_reduce(total, group=self.group)
        return total

    def stack(self, tensor: Tensor) -> Tensor:
        """The tensors of all ranks, of one shape, as (world, ...)."""
        parts = [torch.empty_like(tensor) for _ in range(self.world)]
        distributed.all_gather(parts, tensor, group=self.group)
        return torch.stack(parts)

    def gather(self, value: T) -> list[T]:
        """The values of all ranks, on every rank."""
        if not self.several:
            return [value]
        values = [value] * self.world
        distributed.all_gather_object(values, value, group=self.group)
        return values

    def of_first(self, value: T) -> T:
        """The first rank's value."""
        if not self.several:
            return value
        values = [value]
        distributed.broadcast_object_list(values, src=self._source, group=self.group)
        return values[0]

    def tensors_of_first(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The first rank's tensors; the others hand in some of the same names, shapes and dtypes."""
        if not self.several:
            return dict(tensors)
        sent = {name: tensors[name].detach().contiguous() for name in sorted(tensors)}
        for name, tensor in sent.items():
            sent[name] = tensor.clone() if tensor is tensors[name] else tensor  # a caller's own tensor stays its own
            distributed.broadcast(sent[name], src=self._source, group=self.group)
        return {name: sent[name] for name in tensors}

    def mean(self, figures: Mapping[str, float]) -> dict[str, float]:
        """The mean over the ranks of each figure; a number that all of them have stays as it is. A rank that has none
        at all leaves it to the others.

        Raises:
            TrainingError: on every rank: some have other figures than the rest.
        """
        if not self.several:
            return dict(figures)
        found = self.gather({name: float(value) for name, value in figures.items()})
        told = {rank: of_rank for rank, of_rank in enumerate(found) if of_rank}
        names = list(next(iter(told.values()), {}))
        for rank, of_rank in told.items():
            if of_rank.keys() != set(names):
                rule = f"worker {rank} must have the same as worker {min(told)}, {names}"
                raise TrainingError(Fault("metrics", rule, list(of_rank), "or none at all"))
        return {name: _mean([of_rank[name] for of_rank in told.values()]) for name in names}

    def same(self, tensors: Iterable[tuple[str, Tensor]], where: str, what: str, way_out: str = _OF_ONE_KIND) -> None:
        """Check by hash that all ranks hold the same bits. way_out: what the user does where they do not.

        Raises:
            TrainingError: on every rank: some differ.
        """
        if not self.several:
            return
        found = self.gather(digest(tensors))
        differing = [rank for rank, value in enumerate(found) if value != found[0]]
        if differing:
            rule = f"{what} must be the same on all {self.world} workers, those of workers {differing} differ"
            raise TrainingError(Fault(where, rule, ABSENT, way_out))

    def by_first(self, action: Callable[[], None]) -> None:
        """Let the first rank do something that the others wait for; what goes wrong, goes wrong on all of them."""
        if not self.several:
            action()
            return
        error: Exception | None = None
        if self.first:
            error = _caught(action)[1]
        self._raise_first([self.of_first(as_text(error))], error)

    def together(self, action: Callable[[], T]) -> T:
        """Do something on every rank that may go wrong on some: then all of them raise."""
        if not self.several:
            return action()
        result, error = _caught(action)
        self._raise_first(self.gather(as_text(error)), error)
        return result  # type: ignore[return-value]

    @contextlib.contextmanager
    def failing_together(self) -> Iterator[None]:
        """In the block a rank that fails alone leaves its reason; the others, which lose it, raise that reason.

        They notice when the process of the one that failed ends, or when someone ends theirs.
        """
        place = f"{_REASON}/{next(_entries)}"
        try:
            yield
        except Exception as error:
            if not self.several:
                raise
            if not _is_lost_peer(error):
                self._leave_reason(place, error)
                raise
            reason = self._others_reason(place)
            if reason is None:
                rule = "lost the connection to another worker"
                raise LostWorker(Fault(f"worker {self.rank}", rule, ABSENT, "see what that one said")) from error
            raise reason from error

    @property
    def _source(self) -> int:
        """The first rank's number in the default group, which `broadcast` wants."""
        return 0 if self.group is None else distributed.get_global_rank(self.group, 0)

    def _raise_first(self, told: list[str | None], own: Exception | None) -> None:
        for rank, reason in enumerate(told):
            if reason is not None:
                if own is not None:
                    raise own
                raise said_by(reason, rank)

    def _leave_reason(self, place: str, error: Exception) -> None:
        with contextlib.suppress(Exception):  # the store may be gone with the first rank
            default_store().set(place, json.dumps([self.rank, as_text(error)]))

    def _others_reason(self, place: str) -> RaydistillError | None:
        deadline = time.monotonic() + _WAIT_FOR_REASON_S
        while time.monotonic() < deadline:
            try:
                if default_store().check([place]):
                    rank, reason = json.loads(default_store().get(place))
                    return said_by(reason, rank)
            except Exception:
                return None
            time.sleep(0.1)
        return None


class LostWorker(TrainingError):
    """Another rank's process has died, and nobody knows why."""


def digest(tensors: Iterable[tuple[str, Tensor]]) -> str:
    """A hash of tensors' bits, names and shapes, on whatever device."""
    content = hashlib.blake2b(digest_size=16)
    for name, tensor in tensors:
        content.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        bits = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
        content.update(bits.numpy().data)
    return content.hexdigest()


def _mean(values: Sequence[float]) -> float:
    return values[0] if len(set(values)) == 1 else math.fsum(values) / len(values)


def _caught(action: Callable[[], T]) -> tuple[T | None, Exception | None]:
    try:
        return action(), None
    except Exception as error:
        return None, error


def as_text(error: Exception | None) -> str | None:
    """An error as text that travels: its class, if it is the user's to mend, and its lines."""
    if error is None:
        return None
    if isinstance(error, RaydistillError):
        return json.dumps([type(error).__name__, *(str(fault) for fault in error.faults)])
    first_line = str(error).strip().partition("\n")[0][:300]
    return json.dumps([TrainingError.__name__, f"{type(error).__name__}: {first_line}"])


def said_by(text: str, rank: int) -> RaydistillError:
    """The error that `as_text` was given, as another rank raises it."""
    name, *lines = json.loads(text)
    kinds = {kind.__name__: kind for kind in RaydistillError.__subclasses__()}
    return kinds.get(name, TrainingError)(*(f"worker {rank}: {line}" for line in lines))


def _is_lost_peer(error: Exception) -> bool:
    if isinstance(error, RaydistillError) or not isinstance(error, RuntimeError):
        return False
    text = str(error).lower()
    return isinstance(error, distributed.DistError) or any(word in text for word in _LOST)


def default_store() -> distributed.Store:
    """What the ranks of this process's default group leave each other: TCPStore."""
    from torch.distributed import distributed_c10d

    return distributed_c10d._get_default_store()
