"""Downloading a file that may not be there: gives up early, leaves nothing half-done."""

from __future__ import annotations

import contextlib
import hashlib
import os
import threading
import time
import urllib.request
from pathlib import Path

from raydistill.errors import DataError, Fault, StorageError

PATIENCE_S = 10.0
LEAST_BYTES = 1 << 20
"""Less than this within PATIENCE_S is no download but a hanging one."""


class DatasetUnavailable(DataError):
    """The dataset is neither on disk nor downloadable; the one reason to go on with a fallback."""


class _Transfer:
    """One download in a thread of its own, because name look-up knows no time limit."""

    def __init__(self, url: str, file: Path) -> None:
        self.received = 0
        self.error: BaseException | None = None
        self.given_up = threading.Event()
        self.done = threading.Event()
        self._url, self._file = url, file
        # a daemon: a look-up that hangs for ever must not keep the program from ending
        threading.Thread(target=self._run, name="download", daemon=True).start()

    def _run(self) -> None:
        try:
            with (
                urllib.request.urlopen(self._url, timeout=PATIENCE_S) as response,  # nosec B310 - torchvision's address
                open(self._file, "wb") as file,
            ):
                while not self.given_up.is_set() and (chunk := response.read1(1 << 16)):
                    try:
                        file.write(chunk)
                    except OSError as error:
                        reason = error.strerror or str(error)
                        raise StorageError(Fault(str(self._file), f"cannot write the download ({reason})")) from error
                    self.received += len(chunk)
        except BaseException as error:  # handed to the waiting thread
            self.error = error
        finally:
            if self.given_up.is_set():  # an answer that came too late
                self._file.unlink(missing_ok=True)
            self.done.set()


def fetch(url: str, target: Path, md5: str, patience_s: float | None = None, least_bytes: int | None = None) -> None:
    """Download `url` to `target`, checked against `md5`; `target` appears whole or not at all.

    The attempt ends when fewer than `least_bytes` arrive within any `patience_s` seconds: a connection or a name
    look-up that hangs, a server that never answers, a trickle.

    Raises:
        DatasetUnavailable: it cannot be downloaded. StorageError: it cannot be written.
    """
    patience_s = PATIENCE_S if patience_s is None else patience_s
    least_bytes = LEAST_BYTES if least_bytes is None else least_bytes
    part = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        transfer = _Transfer(url, part)
        try:
            _wait(transfer, patience_s, least_bytes)
        finally:
            transfer.given_up.set()
        if isinstance(transfer.error, StorageError):
            raise transfer.error
        if transfer.error is not None:
            raise DatasetUnavailable(
                Fault(url, f"cannot be downloaded ({_reason(transfer.error)})")
            ) from transfer.error
        if _md5(part) != md5:
            raise DatasetUnavailable(
                Fault(url, f"what was downloaded ({transfer.received} bytes) has a wrong checksum")
            )
        os.replace(part, target)
    except OSError as error:
        raise StorageError(Fault(str(target), f"cannot write the download ({error.strerror or error})")) from error
    finally:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)


def _wait(transfer: _Transfer, patience_s: float, least_bytes: int) -> None:
    """Until the transfer is done; tells it to stop where it has stalled."""
    while True:
        before, started = transfer.received, time.monotonic()
        while not transfer.done.wait(0.05):
            if transfer.received - before >= least_bytes:
                break
            if time.monotonic() - started >= patience_s:
                transfer.error = TimeoutError(f"{transfer.received} bytes arrived in {patience_s:g} s")
                return
        else:
            return


def _reason(error: BaseException) -> str:
    return " ".join(str(getattr(error, "reason", error)).split()) or type(error).__name__


def _md5(file: Path) -> str:
    # md5 is what the publisher gives; it names the exact bytes, it is no signature
    with open(file, "rb") as opened:
        digest = hashlib.md5(usedforsecurity=False)
        while chunk := opened.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()
