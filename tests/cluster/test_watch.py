"""Whose code the main thread is in, and what is watched."""

from __future__ import annotations

import os
import select
import subprocess
import sys
import threading
import types

import pytest
import ray

from raydistill.cluster.watch import _handle_of_raylet, _inside_ray, _standing, watched


def frame_in(*modules: str) -> types.FrameType:
    """The frame of a call through functions of modules of these names, the innermost last."""
    call = sys._getframe
    for module in reversed(modules):
        namespace = {"__name__": module, "inner": call}
        exec("def outer(): return inner()", namespace)  # frames of modules that are not there
        call = namespace["outer"]  # type: ignore[assignment]
    return call()


def test_the_innermost_of_ray_and_ours_counts() -> None:
    assert _inside_ray(frame_in("raydistill.sweep", "ray.tune", "threading"))
    assert not _inside_ray(frame_in("ray.tune", "raydistill.cli", "rich.live"))
    assert not _inside_ray(frame_in("rayfish"))
    assert not _inside_ray(None)


def test_a_thread_that_stands_still_is_known() -> None:
    def stand_still() -> types.FrameType:
        return sys._getframe()

    assert _standing(stand_still())
    assert not _standing(sys._getframe())


def test_a_handle_is_readable_once_its_process_has_ended() -> None:
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    info = types.SimpleNamespace(process=process)
    handle = _handle_of_raylet(types.SimpleNamespace(all_processes={"raylet": [info]}))
    try:
        assert handle >= 0
        assert select.select([handle], [], [], 0)[0] == []
        process.communicate(b"\n")
        assert select.select([handle], [], [], 5)[0] == [handle]
    finally:
        os.close(handle)
    assert _handle_of_raylet(types.SimpleNamespace(all_processes={})) == -1


def test_off_the_main_thread_nothing_is_watched_and_without_a_ray_there_is_nothing_to_watch() -> None:
    ran: list[int] = []

    def run() -> None:
        with watched("x", pytest.fail):
            ran.append(threading.active_count())

    before = threading.active_count()
    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert ran == [before + 1]
    if not ray.is_initialized():
        with pytest.raises(AttributeError):
            watched("x", pytest.fail).__enter__()
