"""What a sweep asks of the place it is kept in, and the plain answer: a folder that all nodes share.

A *reference* is how the journal names a file: its path in a shared folder, its URI in a bucket. It means the same on
every node; the path behind it need not.
"""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from pathlib import Path

from raydistill.files import unreadable
from raydistill.locks import LOCK, Held, hold


class JournalListener:
    """Told how the journal grows. This one has nothing to do: the journal's file is all there is."""

    def begin(self, path: Path) -> None:
        """The journal is open; what it holds already is whole lines."""

    def grown(self, wait: bool) -> None:
        """A line was added. wait: return when it is as safe as the store can make it.

        Raises:
            StorageError: it cannot be made safe.
        """

    def close(self, timeout_s: float | None = None) -> None:
        """No more lines come. timeout_s: how long to wait for the last ones; None: as long as it takes.

        Raises:
            StorageError: some of them are in the file only.
        """


class Workplace:
    """The folder, on this machine, in which a network is trained.

    held: its lock.
    """

    def __init__(self, folder: Path, held: Held) -> None:
        self.folder = folder
        self._held = held

    @property
    def ours(self) -> bool:
        """False: another process has taken the folder over, and believes us dead."""
        return self._held.ours

    def push(self) -> None:
        """Keep what was written since the last time.

        Raises:
            StorageError: it cannot be kept.
        """


class Store(ABC):
    """root: the folder on this machine in which the sweeps' own folders lie. A store travels to Ray's workers."""

    root: Path

    @property
    @abstractmethod
    def shown(self) -> str:
        """For a line to the user."""

    @property
    @abstractmethod
    def outlives_this_machine(self) -> bool:
        """Whether what is kept here is still there when the machine is gone."""

    @abstractmethod
    def check(self) -> None:
        """Write something and remove it again.

        Raises:
            StorageError: that cannot be done.
        """

    @abstractmethod
    def reference(self, path: Path) -> str:
        """How a file below `root` is named in the journal."""

    @abstractmethod
    def local(self, reference: str) -> Path:
        """Where `reference` lies, or would lie, on this machine."""

    @abstractmethod
    def exists(self, reference: str) -> bool: ...

    @abstractmethod
    def content(self, journal: Path) -> bytes:
        """What is kept of a journal; b"" where there is none. Changes nothing, whoever may be writing it."""

    @abstractmethod
    def sweeps(self, journal: str) -> list[str]:
        """The folders below `root` that have a journal of this name; the one that was written to last comes first."""

    @abstractmethod
    def lent(self, reference: str) -> contextlib.AbstractContextManager[Path]:
        """A file to read while the block runs; the path of no file where there is none."""

    @abstractmethod
    def fetched(self, reference: str) -> Path:
        """A file to read that stays on this machine: for what many read and nobody changes any more."""

    @abstractmethod
    def given(self, path: str) -> str:
        """A reference to a user's own file, good on every node."""

    @abstractmethod
    def held(
        self, journal: Path, what: str, tell: Callable[[str], None]
    ) -> contextlib.AbstractContextManager[JournalListener]:
        """Be the only driver of a sweep, whose journal is brought to this machine; gives who follows it from here.

        what: the sweep, for errors. tell: called with a line when the store keeps one waiting.

        Raises:
            StorageError: another driver is at work.
        """

    @abstractmethod
    def workplace(
        self, reference: str, what: str, wait_s: float, rivals: bool = False
    ) -> contextlib.AbstractContextManager[Workplace]:
        """Train in a folder: alone, from the checkpoint that is kept there.

        wait_s: how long a process that is still at it on this machine is waited for. rivals: others have the same right
        to this folder and are waited for too; else whoever comes last takes it over.

        Raises:
            StorageError: someone else is at it, or the folder cannot be used.
        """


class Folder(Store):
    """A folder; all nodes see it under the same path."""

    def __init__(self, root: Path) -> None:
        self.root = root

    @property
    def shown(self) -> str:
        return str(self.root)

    @property
    def outlives_this_machine(self) -> bool:
        return False

    def check(self) -> None:
        return  # its sweep's lock is the first file to be written, before anything starts

    def reference(self, path: Path) -> str:
        return str(path)

    def local(self, reference: str) -> Path:
        return Path(reference)

    def exists(self, reference: str) -> bool:
        return Path(reference).exists()

    def content(self, journal: Path) -> bytes:
        return read_or_nothing(journal)

    def sweeps(self, journal: str) -> list[str]:
        found = [path for path in self.root.glob(f"*/{journal}") if path.is_file()]
        return [path.parent.name for path in sorted(found, key=lambda path: path.stat().st_mtime, reverse=True)]

    def lent(self, reference: str) -> contextlib.AbstractContextManager[Path]:
        return contextlib.nullcontext(Path(reference))

    def fetched(self, reference: str) -> Path:
        return Path(reference)

    def given(self, path: str) -> str:
        return path

    @contextlib.contextmanager
    def held(self, journal: Path, what: str, tell: Callable[[str], None]) -> Iterator[JournalListener]:
        with hold(journal.with_name(LOCK), what):
            yield JournalListener()

    @contextlib.contextmanager
    def workplace(self, reference: str, what: str, wait_s: float, rivals: bool = False) -> Iterator[Workplace]:
        folder = Path(reference)
        with hold(folder / LOCK, what, wait_s, seize=not rivals) as held:
            yield Workplace(folder, held)


def read_or_nothing(path: Path) -> bytes:
    """Raises StorageError where there is a file that cannot be read."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return b""
    except OSError as error:
        raise unreadable(path, error) from error
