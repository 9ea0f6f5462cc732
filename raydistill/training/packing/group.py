"""An epoch of several runs as one network: the same minibatches, one forward and one backward pass for all of them.

for minibatch in ...:
    of each run: policies begin          # its own epoch, schedule and random states
    of all:      forward, losses, backward
    of each run: policies, optimizer, masks, average
"""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from raydistill.errors import Fault, TrainingError
from raydistill.tasks import Batch, Feed, Task
from raydistill.tasks.feeds import Kept
from raydistill.training.loop import LOOK_EVERY
from raydistill.training.memory import WAY_OUT, ran_out
from raydistill.training.packing.member import Member
from raydistill.training.packing.remembered import Remembered, outputs_of
from raydistill.training.packing.stack import Part, Stack
from raydistill.training.packing.steps import steps_of
from raydistill.training.packing.ways import Way, losses

Make = Callable[[], Way]


@dataclass
class Piece:
    """A part of the stack with its own copy of the network's code. batch norms' buffers before a step are kept, for
    one that has to be done again."""

    part: Part
    way: Way
    before: list[Tensor] = field(default_factory=list)


class Group:
    """members: of one kind, in their places; None: a place whose run has ended, which computes for nothing.

    make: the code of one network for any number of them. used: names of the parameters that get a gradient. most: how
    many are computed at once; fewer where memory runs out. say: told of that.
    """

    def __init__(
        self,
        members: Sequence[Member],
        make: Make,
        used: frozenset[str],
        most: int,
        say: Callable[[str], None],
    ) -> None:
        self.places: list[Member | None] = list(members)
        self._all = tuple(members)
        self.most = most
        self._make, self._used, self._say = make, used, say
        self._stack = Stack([member.network for member in members], used)
        for member in members:
            member.run.scheduler.masks.follow(member.network)
        first = members[0]
        self._task: Task = first.run.task
        self._device = first.run.device
        self._stack.begin_gradients()
        self._together = steps_of(members, self._stack)
        self._pieces = [self._piece(*bounds) for bounds in _bounds(len(members), most)]

    @property
    def present(self) -> list[Member]:
        return [member for member in self.places if member is not None]

    def drop(self, member: Member) -> None:
        self.places = [None if other is member else other for other in self.places]

    def holds(self, member: Member) -> bool:
        return self._stack.holds(self.places.index(member))

    def release(self) -> None:
        """Give every network tensors of its own again."""
        self._stack.release()
        if self._together is not None:
            self._together.release()
        for member in self._all:  # also those that are trained by themselves for an epoch
            if member.error is None:
                member.run.scheduler.masks.follow(member.network)

    def train(self) -> None:
        """An epoch of every member that is present; what goes wrong in one of them is its own."""
        batches = _Together(self.places, self.present[0])
        feed, device = self.present[0].run.train_feed, self._device
        count, trained = feed.batches, 0
        look_every = 1 if device.type == "cpu" else LOOK_EVERY
        total = torch.zeros(len(self.places), device=device)
        for member in self.present:
            member.network.train()
        for index, (batch, shared) in enumerate(batches):
            rows, _ = feed.rows(index)
            self._begin(index, count)
            seen = torch.zeros_like(total)
            for piece in list(self._pieces):
                self._learn(piece, batch, shared, index, count, rows, seen)
            self._end(index, count)
            total += seen * rows
            trained += rows
            if index % look_every == 0 or index + 1 == count:
                values = total.tolist()
                for place, member in self._going():
                    member.check_loss(values[place], index)
                    member.train_loss = values[place] / max(1, feed.samples)

    def _begin(self, index: int, count: int) -> None:
        begun = []
        for place, member in self._going():
            stepping = member.run.stepping
            step, begins, _ = stepping.place(index, count)
            if begins:
                begun.append(place)
                with member.guarded(), member.at_minibatch():
                    member.run.scheduler.on_minibatch_begin(member.epoch, step, stepping.steps(count))
        self._stack.clear_gradients(range(len(self.places)) if len(begun) == len(self.present) else begun)

    def _learn(self, piece: Piece, batch: Batch, shared: bool, index: int, count: int, rows: int, seen: Tensor) -> None:
        """Forward and backward pass of a piece; by halves where memory runs out. seen: gets the losses, by place."""
        _keep(piece)
        try:
            self._pass(piece, batch, shared, index, count, rows, seen)
            return
        except (RuntimeError, MemoryError) as error:
            if not ran_out(error):
                raise
            if len(piece.part.places) == 1:
                self._fail(piece, error)
                return
        _restore(piece)
        self._stack.clear_gradients(piece.part.places)
        halves = self._halve(piece)
        for half in halves:
            self._learn(half, batch, shared, index, count, rows, seen)

    def _pass(self, piece: Piece, batch: Batch, shared: bool, index: int, count: int, rows: int, seen: Tensor) -> None:
        part = piece.part
        precision = self.present[0].run.precision
        own = batch if shared else pytree.tree_map_only(Tensor, lambda t: t[part.first : part.last], batch)
        values = losses(piece.way, self._task, part.parameters, part.buffers, own, shared, precision)
        terms: list[Tensor] = []
        found: list[Tensor] = []
        for place, value in zip(part.places, values.unbind(), strict=True):
            found.append(value)
            member = self.places[place]
            if member is None or member.error is not None:
                continue
            stepping = member.run.stepping
            step, _, _ = stepping.place(index, count)
            weight = rows / stepping.rows(member.run.train_feed, index, count)
            with member.guarded():
                loss, term = member.loss_of(value, step, stepping.steps(count), weight)
                found[-1] = loss
                terms.append(term)
        seen[part.first : part.last] = torch.stack([value.detach() for value in found])
        if terms:
            torch.stack(terms).sum().backward()

    def _end(self, index: int, count: int) -> None:
        for _, member in self._going():
            run = member.run
            step, _, ends = run.stepping.place(index, count)
            if not ends:
                continue
            steps = run.stepping.steps(count)
            with member.guarded(), member.at_minibatch():
                run.stepping.gradients_are_whole()
                run.scheduler.before_parameter_optimization(member.epoch, step, steps)
                if self._together is None:
                    run.stepping.step(member.epoch + (step + 1) / steps)
                    run.scheduler.on_minibatch_end(member.epoch, step, steps)
                    self._average(member)
        if self._together is None:
            return
        self._together.step([member for _, member in self._going()], (index + 1) / count)
        for _, member in self._going():
            with member.guarded(), member.at_minibatch():
                member.run.scheduler.on_minibatch_end(member.epoch, index, count, masked=True)
                self._average(member)

    def _average(self, member: Member) -> None:
        if member.run.average is not None:
            member.run.average.update()

    def validate(self, kept: Kept | None) -> dict[int, Mapping[str, float]]:
        """The metrics of each member that goes on, by its key. kept: the validation split; None: it is too large."""
        going = [member for _, member in self._going()]
        found: dict[int, Mapping[str, float]] = {}
        with contextlib.ExitStack() as delivered:
            for member in going:
                delivered.enter_context(member.run.as_delivered())
            for piece in self._pieces:
                known = None if kept is None else self._outputs(piece, kept)
                for place, member in self._going():
                    if place not in piece.part.places:
                        continue
                    run = member.run
                    loading = replace(run.validating, precision=run.precision)
                    with member.guarded(), member.chance.in_force():
                        if known is None or kept is None:
                            found[member.key] = run.task.evaluate(run.model, run.validation_feed, loading)
                        else:
                            network = Remembered(run.model, known, place - piece.part.first)
                            found[member.key] = run.task.evaluate(network, kept, loading)
        return found

    def _outputs(self, piece: Piece, kept: Kept) -> Any:
        run = self.present[0].run
        loading = replace(run.validating, precision=run.precision)
        part = piece.part
        try:
            return outputs_of(piece.way, self._task, part.parameters, part.buffers, list(kept.epoch(0)), loading)
        except (RuntimeError, MemoryError) as error:
            if not ran_out(error):
                raise
            return None

    def _going(self) -> Iterator[tuple[int, Member]]:
        for place, member in enumerate(self.places):
            if member is not None and member.error is None:
                yield place, member

    def _piece(self, first: int, last: int) -> Piece:
        return Piece(self._stack.part(first, last), self._make())

    def _halve(self, piece: Piece) -> list[Piece]:
        _forget_memory(self._device)
        size = -(-len(piece.part.places) // 2)
        self.most = min(self.most, size)
        self._say(f"out of memory with {len(piece.part.places)} trials side by side: they go on by {size}")
        middle = piece.part.first + size
        halves = [self._piece(piece.part.first, middle), self._piece(middle, piece.part.last)]
        where = self._pieces.index(piece)
        self._pieces[where : where + 1] = halves
        return halves

    def _fail(self, piece: Piece, error: BaseException) -> None:
        member = self.places[piece.part.first]
        if member is not None:
            rule = f"out of memory with batch_size {member.run.config.batch_size}"
            member.error = TrainingError(Fault(f"epoch {member.epoch}", rule, way_out=WAY_OUT))
            member.error.__cause__ = error


class _Together:
    """The minibatches of runs that may be in different epochs: (batch, whether all share it) of each step."""

    def __init__(self, places: Sequence[Member | None], any_of: Member) -> None:
        each = [any_of if member is None else member for member in places]
        self._keys = [(id(member.run.train_feed), member.epoch) for member in each]
        self._feeds: dict[tuple[int, int], Feed] = {
            key: member.run.train_feed for key, member in zip(self._keys, each, strict=True)
        }

    def __iter__(self) -> Iterator[tuple[Batch, bool]]:
        epochs = {key: feed.epoch(key[1]) for key, feed in self._feeds.items()}
        for batches in zip(*epochs.values(), strict=True):
            if len(batches) == 1:
                yield batches[0], True
                continue
            by_key = dict(zip(epochs, batches, strict=True))
            yield pytree.tree_map(_stack, *(by_key[key] for key in self._keys)), False


def _stack(*leaves: Any) -> object:
    return torch.stack(leaves) if isinstance(leaves[0], Tensor) else leaves[0]


def _bounds(count: int, most: int) -> list[tuple[int, int]]:
    """(first, last) of as few parts of about one size as hold at most `most` each."""
    parts = -(-count // most)
    return [(count * i // parts, count * (i + 1) // parts) for i in range(parts)]


@torch.no_grad()
def _keep(piece: Piece) -> None:
    now = list(piece.part.buffers.values())
    if not piece.before:
        piece.before = [buffer.clone() for buffer in now]
    elif now:
        torch._foreach_copy_(piece.before, now)


@torch.no_grad()
def _restore(piece: Piece) -> None:
    if piece.before:
        torch._foreach_copy_(list(piece.part.buffers.values()), piece.before)


def _forget_memory(device: torch.device) -> None:
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
