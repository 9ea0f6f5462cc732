"""Processes that stay up between tests and are one group of `torch.distributed` over gloo, as Ray Train starts them."""

from __future__ import annotations

import contextlib
import multiprocessing
import socket
import traceback
from collections.abc import Callable, Iterator
from typing import Any

from torch import distributed

from raydistill.compression.ranks import Ranks


class Crew:
    """`size` ranks; `run` has the first `world` of them call a function of a module, and gives what they returned."""

    def __init__(self, size: int, smaller: tuple[int, ...] = ()) -> None:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["raydistill.training", "raydistill.compression.thinning"])
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self._ends, self._processes = [], []
        for rank in range(size):
            ours, theirs = context.Pipe()
            process = context.Process(target=_serve, args=(theirs, rank, size, smaller, port), daemon=True)
            process.start()
            theirs.close()
            self._ends.append(ours)
            self._processes.append(process)

    def run(self, function: Callable[..., Any], *arguments: Any, world: int) -> list[Any]:
        """What each rank returned; an exception, with its traceback as a note, where it raised; None where it died."""
        for end in self._ends[:world]:
            end.send((function, arguments, world))
        return [_received(end) for end in self._ends[:world]]

    def close(self) -> None:
        for end in self._ends:
            end.close()
        for process in self._processes:
            process.join(timeout=30)
            process.kill()


@contextlib.contextmanager
def crew(size: int, smaller: tuple[int, ...] = ()) -> Iterator[Crew]:
    """smaller: sizes of other groups, of the first ranks."""
    ranks = Crew(size, smaller)
    try:
        yield ranks
    finally:
        ranks.close()


def _received(end: Any) -> Any:
    try:
        return end.recv()
    except EOFError:
        return None


def _serve(end: Any, rank: int, size: int, smaller: tuple[int, ...], port: int) -> None:
    distributed.init_process_group("gloo", f"tcp://127.0.0.1:{port}", rank=rank, world_size=size)
    groups = {size: None, **{world: distributed.new_group(range(world)) for world in smaller}}
    with contextlib.suppress(EOFError):
        while True:
            function, arguments, world = end.recv()
            try:
                answer = function(Ranks.of_process_group(groups[world]), *arguments)
            except Exception as error:
                error.add_note(traceback.format_exc())
                answer = error
            end.send(answer)
            if isinstance(answer, Exception):
                return  # as a real one would, and its connections with it
