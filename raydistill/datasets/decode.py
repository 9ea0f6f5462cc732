"""Image files to uint8 pixels.

A decoder written in Python holds the interpreter's lock for most of a small image, so many files go to processes. They
are started as plain commands: a fork could inherit a lock that another thread holds, and multiprocessing's other
start methods run the caller's main script again.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from PIL import Image

from raydistill.errors import DataError, Fault

FEW = 1000
"""Up to here a process takes longer to start than the decoding takes."""

_WORKER = """
import json, sys
request = json.load(sys.stdin)
sys.path[:] = request.pop("sys_path")
from raydistill.datasets.decode import _serve
sys.exit(_serve(sys.stdout.buffer, sys.stderr, **request))
"""
_FAULT = 3


def decode_image(path: str, size: tuple[int, int] | None, resize: bool) -> np.ndarray:
    """One file as uint8 (H, W, 3); grey, palette and transparent images become RGB.

    size: (height, width) wanted, None takes the file's own. resize: bilinear and antialiased to `size`, the aspect
    ratio is not kept.

    Raises:
        DataError: the file cannot be decoded, or has another size and `resize` is False.
    """
    try:
        with Image.open(path) as image:
            rgb = image.convert("RGB")
    except Exception as error:  # a damaged file can raise nearly anything from a decoder
        reason = str(error).replace(repr(path), "it") or type(error).__name__
        raise DataError(
            Fault(path, f"cannot be decoded as an image ({reason})", way_out="replace or remove it")
        ) from error
    if size is not None and (rgb.height, rgb.width) != size:
        if not resize:
            raise DataError(
                Fault(
                    path,
                    f"images of one dataset must be of one size, {size[0]}x{size[1]} (height x width) before this one",
                    f"{rgb.height}x{rgb.width}",
                    f"set dataset.image_size, for example [{size[0]}, {size[1]}], to resize all",
                )
            )
        rgb = rgb.resize((size[1], size[0]), Image.Resampling.BILINEAR)
    return np.asarray(rgb)


def decode_files(paths: Sequence[str], size: tuple[int, int], resize: bool) -> np.ndarray:
    """All files as one uint8 (N, H, W, 3), decoded by one process a core where there are many.

    Raises:
        DataError: naming a file that cannot be used.
    """
    images: np.ndarray = np.empty((len(paths), *size, 3), dtype=np.uint8)
    workers = min(_cores(), len(paths) // FEW)
    if workers < 2 or not sys.executable:
        for position, path in enumerate(paths):
            images[position] = decode_image(path, size, resize)
        return images
    edges = [len(paths) * worker // workers for worker in range(workers + 1)]
    running = [_Worker(paths[start:stop], size, resize, images[start:stop]) for start, stop in pairwise(edges)]
    try:
        for worker in running:
            worker.finish()
    finally:
        for worker in running:
            worker.stop()
    return images


class _Worker:
    """A process that decodes `paths`; a thread moves its pixels into `target`."""

    def __init__(self, paths: Sequence[str], size: tuple[int, int], resize: bool, target: np.ndarray) -> None:
        self._request = {"paths": list(paths), "size": list(size), "resize": resize, "sys_path": sys.path}
        self._target = target
        self._errors = b""
        self._process = subprocess.Popen(
            [sys.executable, "-c", _WORKER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        self._thread = threading.Thread(target=self._transfer, daemon=True)
        self._thread.start()

    def _transfer(self) -> None:
        process = self._process
        assert process.stdin is not None  # all three are pipes
        assert process.stdout is not None
        assert process.stderr is not None
        with contextlib.suppress(OSError, ValueError):  # a worker that died tells why by its exit code
            process.stdin.write(json.dumps(self._request).encode())
            process.stdin.close()
            view = self._target.reshape(-1).data.cast("B")
            while len(view) and (count := process.stdout.readinto(view)):  # type: ignore[attr-defined]
                view = view[count:]
            self._errors = process.stderr.read()

    def finish(self) -> None:
        self._thread.join()
        code = self._process.wait()
        if code == _FAULT:
            raise DataError(Fault(**json.loads(self._errors)))
        if code != 0:
            raise RuntimeError(f"a decoding process ended with {code}: {self._errors.decode(errors='replace')[-2000:]}")

    def stop(self) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._thread.join()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout, self._process.stderr):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()


def _serve(pixels: Any, errors: Any, paths: list[str], size: list[int], resize: bool) -> int:
    """What a worker does: pixels one after the other, or the fault as JSON and exit code `_FAULT`."""
    try:
        for path in paths:
            pixels.write(decode_image(path, (size[0], size[1]), resize))
        pixels.flush()
    except DataError as error:
        fault = error.faults[0]
        if not isinstance(fault, Fault):
            raise
        shown = {"where": fault.where, "rule": fault.rule, "way_out": fault.way_out}
        errors.write(json.dumps(shown | ({"value": fault.value} if isinstance(fault.value, str) else {})))
        return _FAULT
    return 0


def _cores() -> int:
    """Cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
