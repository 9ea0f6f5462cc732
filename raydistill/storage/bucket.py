"""A sweep kept in a bucket: each machine works in a folder of its own, and pushes what has to outlive it.

    URI/NAME/journal/...        the driver's journal, see `mirror`; NAME/driver is its lease
    URI/NAME/trials/tNNNN/      checkpoint.pt and its kind; `claim` says which process trains it
    URI/baselines/HASH/         the same for a baseline
    URI/given/HASH/             a user's own files: a baseline's checkpoint, a teacher's

The bucket is right, the folder is a copy: whatever differs is taken from the bucket, so the folder may go at any time.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import secrets
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from raydistill.errors import ABSENT, Fault, StorageError
from raydistill.files import unwritable, write_atomically
from raydistill.locks import LOCK, Held, hold
from raydistill.storage.lease import Lease
from raydistill.storage.mirror import Mirror, mirrored
from raydistill.storage.objects import CHECK_S, OPTION, OUTAGE_S, BucketUri, Objects
from raydistill.storage.store import JournalListener, Store, Workplace, read_or_nothing

WORK_DIR = "RAYDISTILL_WORK_DIR"
"""Environment variable: the folder for working copies, on each node its own."""

CHECKPOINT = "checkpoint.pt"
_EACH_TIME = ("schedule.yaml", "sparsity.csv", CHECKPOINT)
"""In this order: whoever sees a checkpoint finds what belongs to it."""

_OTHERS_EVERY_S = 60.0
"""TensorBoard's events grow by a few bytes an epoch; an object can only be replaced whole."""

_EVENTS = "*/events.out.*"
"""Those of minibatches lie in a folder of the folder."""

_RESULTS = "pareto.*"


class Bucket(Store):
    def __init__(self, address: BucketUri, outage_s: float = OUTAGE_S) -> None:
        self.address, self.outage_s = address, outage_s
        self.root = _work_dir() / _folder_name(address)
        self.objects = Objects(address, outage_s)

    def __reduce__(self) -> tuple[type, tuple[object, ...]]:
        return type(self), (self.address, self.outage_s)  # another node has another folder, and credentials of its own

    @property
    def shown(self) -> str:
        return self.address.uri

    @property
    def outlives_this_machine(self) -> bool:
        return True

    def check(self) -> None:
        key = f".probe-{secrets.token_hex(4)}"
        probe = Objects(self.address, CHECK_S)
        try:
            probe.put(key, b"raydistill")
            try:
                probe.names(key)
                probe.get(key)
            finally:
                probe.delete(key)
        except StorageError as error:
            named = [Fault(f"{OPTION} {f.where}", f.rule, f.value, f.way_out) for f in error.faults if type(f) is Fault]
            raise StorageError(*named) from error

    def reference(self, path: Path) -> str:
        return f"{self.address.uri}/{path.relative_to(self.root).as_posix()}"

    def local(self, reference: str) -> Path:
        return self.root / self._key(reference)

    def exists(self, reference: str) -> bool:
        return self.objects.version(self._key(reference)) is not None

    def content(self, journal: Path) -> bytes:
        return mirrored(self.objects, self._journal(journal))

    def sweeps(self, journal: str) -> list[str]:
        stem = Path(journal).stem
        written = {name: self.objects.last_written(f"{name}/{stem}") for name in self.objects.folders()}
        found = {name: when for name, when in written.items() if when is not None}
        return sorted(found, key=lambda name: (found[name], name), reverse=True)

    @contextlib.contextmanager
    def lent(self, reference: str) -> Iterator[Path]:
        found = self.objects.get(self._key(reference))
        with self._temporary() as folder:
            path = folder / reference.rpartition("/")[2]
            if found is not None:
                _write(path, found[0])
            yield path

    def fetched(self, reference: str) -> Path:
        key = self._key(reference)
        version = self.objects.version(key)
        named = hashlib.sha256(f"{key} {version}".encode()).hexdigest()[:16]
        path = self.root / ".fetched" / named / key.rpartition("/")[2]
        if not path.exists():
            found = self.objects.get(key)
            if found is None:
                raise StorageError(Fault(reference, "is not there any more", ABSENT, "start another sweep with --name"))
            write_atomically(path, found[0])
        return path

    def given(self, path: str) -> str:
        content = read_or_nothing(Path(path))
        key = f"given/{hashlib.sha256(content).hexdigest()[:16]}/{Path(path).name}"
        if self.objects.version(key) is None:
            self.objects.put(key, content)
        return f"{self.address.uri}/{key}"

    @contextlib.contextmanager
    def held(self, journal: Path, what: str, tell: Callable[[str], None]) -> Iterator[JournalListener]:
        self.objects.tell = tell
        folder, key = journal.parent, self._key(self.reference(journal.parent))
        with hold(journal.with_name(LOCK), what):
            lease = Lease(self.objects, f"{key}/driver", what, self._place())
            lease.take(0.0, tell)
            with lease.renewed():
                self._restore(journal)
                yield Mirror(self.objects, self._journal(journal), lease.check_renewed)
                with contextlib.suppress(StorageError, OSError):  # drawn again whenever the sweep is resumed
                    for path in sorted(folder.glob(_RESULTS)):
                        self.objects.put(f"{key}/{path.name}", path.read_bytes(), outage_s=0.0)

    @contextlib.contextmanager
    def workplace(self, reference: str, what: str, wait_s: float, rivals: bool = False) -> Iterator[Workplace]:
        folder, key = self.local(reference), self._key(reference)
        with hold(folder / LOCK, what, wait_s) as held, contextlib.ExitStack() as stack:
            lease = Lease(self.objects, f"{key}/claim", what, self._place())
            if rivals:
                lease.take(wait_s, lambda line: None)
                stack.enter_context(lease.renewed())
            else:
                lease.seize()
            _empty(folder)
            found = self.objects.get(f"{key}/{CHECKPOINT}")
            if found is not None:
                write_atomically(folder / CHECKPOINT, found[0])
            place = _Pushed(folder, held, self.objects, key, lease)
            try:
                yield place
            finally:
                with contextlib.suppress(StorageError):  # not worth waiting for: the checkpoint is there
                    place.push_others(outage_s=0.0)
                _empty(folder)

    def _restore(self, journal: Path) -> None:
        """Make the local journal the bucket's, unless it only goes on where the bucket's ends."""
        kept = mirrored(self.objects, self._journal(journal))
        local = read_or_nothing(journal)
        if kept and local.startswith(kept):
            return  # its driver was killed here: the last lines did not get out
        if kept:
            write_atomically(journal, kept)
        else:
            journal.unlink(missing_ok=True)

    def _journal(self, journal: Path) -> str:
        return self._key(self.reference(journal.with_suffix("")))

    def _key(self, reference: str) -> str:
        key = reference.removeprefix(f"{self.address.uri}/")
        if key == reference:
            way_out = f"start the sweep from {self.address.uri} anew, under another --name"
            raise StorageError(Fault(reference, "does not lie in this storage", ABSENT, way_out))
        return key

    def _place(self) -> str:
        """Names this working copy: whoever has its locks knows that an earlier holder of them is dead."""
        path = self.root / ".place"
        if not read_or_nothing(path):
            write_atomically(path, secrets.token_hex(8))
        return read_or_nothing(path).decode()

    @contextlib.contextmanager
    def _temporary(self) -> Iterator[Path]:
        folder = self.root / ".lent"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            made = tempfile.TemporaryDirectory(dir=folder, ignore_cleanup_errors=True)
        except OSError as error:
            raise unwritable(folder, error) from error
        with made as name:
            yield Path(name)


class _Pushed(Workplace):
    def __init__(self, folder: Path, held: Held, objects: Objects, key: str, lease: Lease) -> None:
        super().__init__(folder, held)
        self._objects, self._key, self._lease = objects, key, lease
        self._pushed: dict[str, tuple[int, int]] = {}
        self._others_due = time.monotonic() + _OTHERS_EVERY_S
        self._changed(folder / CHECKPOINT)  # it has just come from there

    def push(self) -> None:
        changed = [path for name in _EACH_TIME if self._changed(path := self.folder / name)]
        if changed:
            self._lease.check()
        for path in changed:
            self._put(path)
        if time.monotonic() >= self._others_due:
            self.push_others()

    def push_others(self, outage_s: float | None = None) -> None:
        """What is not worth a push each time."""
        self._others_due = time.monotonic() + _OTHERS_EVERY_S
        for path in sorted([*self.folder.iterdir(), *self.folder.glob(_EVENTS)]):
            left_out = path.name in (LOCK, *_EACH_TIME) or path.name.startswith(".") or not path.is_file()
            if not left_out and self._changed(path):
                self._put(path, outage_s)

    def _put(self, path: Path, outage_s: float | None = None) -> None:
        content = read_or_nothing(path)
        if content:  # it may have gone with its disk since it was looked at: what the bucket has of it stays
            self._objects.put(f"{self._key}/{path.relative_to(self.folder).as_posix()}", content, outage_s)

    def _changed(self, path: Path) -> bool:
        try:
            found = path.stat()
        except OSError:
            return False
        stamp = (found.st_mtime_ns, found.st_size)
        name = path.relative_to(self.folder).as_posix()
        before, self._pushed[name] = self._pushed.get(name), stamp
        return before != stamp


def _write(path: Path, content: bytes) -> None:
    try:
        path.write_bytes(content)
    except OSError as error:
        raise unwritable(path, error) from error


def _empty(folder: Path) -> None:
    """All but the lock, on which somebody may be waiting."""
    for path in folder.iterdir():
        if path.name == LOCK:
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            with contextlib.suppress(OSError):
                path.unlink()


def _work_dir() -> Path:
    return Path(os.environ.get(WORK_DIR) or "~/.cache/raydistill/storage").expanduser().absolute()


def _folder_name(address: BucketUri) -> str:
    """Readable, and another one for each storage."""
    words = re.sub(r"[^A-Za-z0-9.]+", "-", address.uri).strip("-")[-40:].strip("-")
    endpoint = address.options.get("endpoint_override", "")
    return f"{words}-{hashlib.sha256(f'{endpoint} {address.uri}'.encode()).hexdigest()[:8]}"
