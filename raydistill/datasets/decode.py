"""Image files to uint8 pixels.

A decoder written in Python holds the interpreter's lock for most of a small image, so many files go to processes. They
are started as plain commands: a fork could inherit a lock that another thread holds, and multiprocessing's other
start methods run the caller's main script again.
"""

from __future__ import annotations

import contextlib
import io
import json
import math
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import BinaryIO, TextIO

import numpy as np
from PIL import Image, UnidentifiedImageError

from raydistill.errors import DataError, Fault
from raydistill.image_file import FORMATS, RESAMPLING, Unclear, in_rgb, middle, opened

FEW = 1000
"""Up to here a process takes longer to start than the decoding takes."""

ENDINGS = (".jpg", ".jpeg", ".png", ".gif", ".bmp", ".tif", ".tiff", ".webp", ".ppm", ".pgm", ".pbm")
"""How names of images end, whatever the case."""

_WORKER = """
import os, sys
sys.path[:] = [place for place in sys.path if place]
import json
request = json.load(sys.stdin)
sys.path[:] = request.pop("sys_path")
pixels = os.fdopen(os.dup(1), "wb")
os.dup2(2, 1)
from raydistill.datasets.decode import _serve
sys.exit(_serve(pixels, sys.stderr, **request))
"""
"""What a library prints goes to the errors: between the pixels it would shift all images behind it."""

_FAULT = 3
_AREA, _RATIO, _ATTEMPTS = (0.08, 1.0), (3 / 4, 4 / 3), 10


def decode_image(path: str, size: tuple[int, int] | None, resize: bool) -> np.ndarray:
    """One file as uint8 (H, W, 3), the first picture of several; grey, palette and transparent images become RGB, 16
    bits become 8.

    size: (height, width) wanted, None takes the file's own. resize: bilinear and antialiased to `size`, the aspect
    ratio is not kept.

    Raises:
        DataError: the file cannot be decoded, or has another size and `resize` is False.
    """
    rgb = _read(path)
    if size is not None and (rgb.height, rgb.width) != size:
        if not resize:
            raise DataError(
                Fault(
                    path,
                    f"images of one dataset must be of one size, {size[0]}x{size[1]} (height x width) before this one",
                    f"{rgb.height}x{rgb.width}",
                    f"set dataset.image_size (--image-size {size[0]}x{size[1]}) to resize all",
                )
            )
        rgb = rgb.resize((size[1], size[0]), Image.Resampling.BILINEAR)
    return np.asarray(rgb)


def decode_middle(path: str, size: tuple[int, int], shorter: int, interpolation: str) -> np.ndarray:
    """One file as uint8 (H, W, 3): its shorter side resized to `shorter`, then the middle of `size`; what a smaller
    image lacks is black.

    Raises:
        DataError: the file cannot be decoded.
    """
    return np.asarray(middle(_read(path), size, shorter, interpolation))


def decode_part(path: str, size: tuple[int, int], seed: int, interpolation: str) -> np.ndarray:
    """One file as uint8 (H, W, 3): a random part of it, resized to `size`.

    As is usual for ImageNet (Szegedy et al. 2014, arXiv 1409.4842, section 6): 8 to 100 % of the area, an aspect ratio
    of 3/4 to 4/3; the middle where ten attempts do not fit. seed: decides all of it.

    Raises:
        DataError: the file cannot be decoded.
    """
    rgb = _read(path)
    draws = np.random.PCG64(seed).random_raw(4 * _ATTEMPTS) / 2.0**64
    box = next(filter(None, (_part(rgb.width, rgb.height, *draws[i : i + 4]) for i in range(0, len(draws), 4))), None)
    if box is None:
        side = min(rgb.size)
        width, height = min(rgb.width, round(side * _RATIO[1])), min(rgb.height, round(side * _RATIO[1]))
        left, top = (rgb.width - width) // 2, (rgb.height - height) // 2
        box = (left, top, left + width, top + height)
    return np.asarray(rgb.crop(box).resize((size[1], size[0]), RESAMPLING[interpolation]))


def _part(width: int, height: int, area: float, ratio: float, x: float, y: float) -> tuple[int, int, int, int] | None:
    """(left, top, right, bottom) from four draws in [0, 1); None where that part is not in the image."""
    pixels = width * height * (_AREA[0] + (_AREA[1] - _AREA[0]) * area)
    aspect = math.exp(math.log(_RATIO[0]) + (math.log(_RATIO[1]) - math.log(_RATIO[0])) * ratio)
    w, h = round(math.sqrt(pixels * aspect)), round(math.sqrt(pixels / aspect))
    if not (0 < w <= width and 0 < h <= height):
        return None
    left, top = int(x * (width - w + 1)), int(y * (height - h + 1))
    return left, top, left + w, top + h


def size_of(path: str) -> tuple[int, int]:
    """(height, width) by the file's header.

    Raises:
        DataError: it has none.
    """
    try:
        with opened(path) as image:
            return image.height, image.width
    except Exception:
        return decode_image(path, None, resize=False).shape[:2]  # which says what is wrong


def decode_content(content: bytes, where: str) -> Image.Image:
    """A file's content in RGB, as `decode_image` has it. where: what to call it in errors.

    Raises:
        DataError: it cannot be decoded.
    """
    return _read(where, io.BytesIO(content))


def _read(path: str, content: io.BytesIO | None = None) -> Image.Image:
    try:
        with opened(path if content is None else content) as image:
            return in_rgb(image)
    except Unclear as error:
        raise DataError(Fault(path, str(error), way_out="save it with 8 or 16 bits a channel")) from error
    except UnidentifiedImageError as error:
        rule = f"cannot be decoded as an image (it is none of {', '.join(FORMATS)})"
        raise DataError(Fault(path, rule, way_out="replace or remove it")) from error
    except Exception as error:  # a damaged file can raise nearly anything from a decoder
        reason = " ".join(str(error).replace(repr(path), "it").split()) or type(error).__name__
        raise DataError(
            Fault(path, f"cannot be decoded as an image ({reason})", way_out="replace or remove it")
        ) from error


def decode_files(
    paths: Sequence[str],
    size: tuple[int, int],
    resize: bool,
    shorter: int | None = None,
    interpolation: str = "bilinear",
) -> np.ndarray:
    """All files as one uint8 (N, H, W, 3), decoded by one process a core where there are many. With `shorter` by
    `decode_middle`, else by `decode_image`.

    Raises:
        DataError: naming a file that cannot be used.
    """
    images: np.ndarray = np.empty((len(paths), *size, 3), dtype=np.uint8)
    workers = min(_cores(), len(paths) // FEW)
    if workers < 2 or not sys.executable:
        for position, path in enumerate(paths):
            images[position] = _decode(path, size, resize, shorter, interpolation)
        return images
    edges = [len(paths) * worker // workers for worker in range(workers + 1)]
    running = [
        _Worker(
            {
                "paths": list(paths[start:stop]),
                "size": size,
                "resize": resize,
                "shorter": shorter,
                "interpolation": interpolation,
            },
            images[start:stop],
        )
        for start, stop in pairwise(edges)
    ]
    try:
        for worker in running:
            worker.finish()
    finally:
        for worker in running:
            worker.stop()
    return images


class _Worker:
    """A process that decodes what `_serve` is to; a thread moves its pixels into `target`."""

    def __init__(self, request: Mapping[str, object], target: np.ndarray) -> None:
        self._request = {**request, "sys_path": sys.path}
        self._target = target
        # a pipe that nobody reads meanwhile would stop a decoder that warns
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115
        self._lacking = 0
        self._process = subprocess.Popen(  # nosec B603 - this interpreter, our own code
            [sys.executable, "-c", _WORKER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors
        )
        self._thread = threading.Thread(target=self._transfer, daemon=True)
        self._thread.start()

    def _transfer(self) -> None:
        process = self._process
        assert process.stdin is not None  # both are pipes
        assert process.stdout is not None
        with contextlib.suppress(OSError, ValueError):  # a worker that died tells why by its exit code
            process.stdin.write(json.dumps(self._request).encode())
            process.stdin.close()
            view = self._target.reshape(-1).data.cast("B")
            while len(view) and (count := process.stdout.readinto(view)):  # type: ignore[attr-defined]
                view = view[count:]
            self._lacking = len(view)

    def finish(self) -> None:
        self._thread.join()
        code = self._process.wait()
        self._errors.seek(0)
        said = self._errors.read().decode(errors="replace")
        if code == _FAULT:
            raise DataError(Fault(**json.loads(said.splitlines()[-1])))
        if code != 0 or self._lacking:
            raise RuntimeError(f"a decoding process ended with {code}, {self._lacking} bytes short: {said[-2000:]}")

    def stop(self) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._thread.join()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout, self._errors):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()


def _decode(path: str, size: tuple[int, int], resize: bool, shorter: int | None, interpolation: str) -> np.ndarray:
    if shorter is None:
        return decode_image(path, size, resize)
    return decode_middle(path, size, shorter, interpolation)


def _serve(
    pixels: BinaryIO,
    errors: TextIO,
    paths: list[str],
    size: list[int],
    resize: bool,
    shorter: int | None,
    interpolation: str,
) -> int:
    """What a worker does: pixels one after the other, or the fault as a last line of JSON and exit code `_FAULT`."""
    try:
        for path in paths:
            pixels.write(np.ascontiguousarray(_decode(path, (size[0], size[1]), resize, shorter, interpolation)).data)
        pixels.flush()
    except DataError as error:
        fault = error.faults[0]
        if not isinstance(fault, Fault):
            raise
        shown = {"where": fault.where, "rule": fault.rule, "way_out": fault.way_out}
        errors.write("\n" + json.dumps(shown | ({"value": fault.value} if isinstance(fault.value, str) else {})))
        return _FAULT
    return 0


def _cores() -> int:
    """Cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
