"""What a user can mend, as one line each: where, rule, value, way out.

Every error that a user can cause is a `RaydistillError`; the command line prints its text and exits with code 2.
Anything else is a defect of raydistill and keeps its traceback.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum

from raydistill.masking import masked


class _Absent(Enum):
    # An enum, because its member is the same object again after the way from a worker process.
    ABSENT = "absent"


ABSENT = _Absent.ABSENT
"""Stands for "no value to show" in a `Fault`, because None can be the wrong value itself."""


@dataclass(frozen=True)
class Fault:
    """One thing a user can mend.

    where: file and key path, or option name (``space.yaml: search.training.lr``).
    rule: what has to hold (``low must be below high``).
    value: what was found; `ABSENT` where there is none.
    way_out: what to do (``did you mean 'final_sparsity'?``).
    """

    where: str
    rule: str
    value: object = ABSENT
    way_out: str = ""

    def __str__(self) -> str:
        text = f"{self.where}: {self.rule}"
        if self.value is not ABSENT:
            text += f", got {short(self.value)}"
        if self.way_out:
            text += f"; {self.way_out}"
        text = " ".join(text.split()).encode(errors="backslashreplace").decode()  # half a surrogate cannot be printed
        return masked(text)


def short(value: object, limit: int = 160) -> str:
    """`value` as a message shows it."""
    text = masked(repr(value))  # before it is cut: half a password is not known for one
    return text if len(text) <= limit else text[: limit - 3] + "..."


class RaydistillError(Exception):
    """Base of all errors that a user can mend; `faults` holds one entry a line of the message."""

    def __init__(self, *faults: Fault | str) -> None:
        if not faults:
            raise ValueError("an error needs at least one fault")
        self.faults = tuple(masked(fault) if isinstance(fault, str) else fault for fault in faults)
        super().__init__("\n".join(str(fault) for fault in self.faults))

    def __reduce__(self) -> tuple[type, tuple[Fault | str, ...]]:
        return type(self), self.faults


@contextmanager
def users_code(
    where: str, what: str = "", way_out: str = "", kind: type[RaydistillError] | None = None
) -> Iterator[None]:
    """Whatever code of the user's raises in the block, or its call of `sys.exit`, becomes one line.

    what: that fails, by its name, where `where` does not say it. kind: of error that it becomes; None: `ConfigError`.

    Raises:
        RaydistillError: of `kind`; one that the code itself raises passes as it is.
    """
    try:
        yield
    except RaydistillError:
        raise
    except (Exception, SystemExit) as error:
        fault = Fault(where, f"{what} fails ({type(error).__name__}: {error})".lstrip(), ABSENT, way_out)
        raise (kind or ConfigError)(fault) from error


class ConfigError(RaydistillError):
    """A file, an option or an argument says something that cannot be done."""


class DataError(RaydistillError):
    """A dataset is missing, incomplete or cannot be decoded."""


class CheckpointError(RaydistillError):
    """A checkpoint is missing, damaged, or belongs to another model or schedule."""


class StorageError(RaydistillError):
    """Something could not be written: disk full, no permission, another process holds it."""


class TrainingError(RaydistillError):
    """Training cannot go on: the loss is NaN or infinite, or memory ran out."""


class ResourceError(RaydistillError):
    """The machine or the cluster lacks what a trial asks for."""


class RayLostError(ResourceError):
    """Ray has gone in mid-work; the process cannot end in the usual way, as Ray would wait for itself."""


class TrackingError(RaydistillError):
    """The MLflow tracking server refused or could not be reached."""


def close_match(name: object, candidates: Iterable[str]) -> str:
    """A way out for a name that is not among `candidates`: the nearest one, or all of them."""
    known = sorted(str(candidate) for candidate in candidates)
    same = [candidate for candidate in known if candidate.lower() == str(name).lower()]
    nearest = same or difflib.get_close_matches(str(name), known, n=1, cutoff=0.6)
    if nearest:
        return f"did you mean '{nearest[0]}'?"
    if not known:
        return "nothing is allowed here"
    shown = ", ".join(known[:12])
    return f"use one of: {shown}" + (f", ... ({len(known)} in all)" if len(known) > 12 else "")
