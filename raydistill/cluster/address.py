"""Which Ray a command runs on, and who said so. Needs no Ray."""

from __future__ import annotations

from dataclasses import dataclass

OPTION = "--address"
VARIABLE = "RAY_ADDRESS"
LOCAL = "local"


@dataclass(frozen=True)
class Address:
    """value: ``host:port``, or ``auto`` for the Ray that runs on this machine. source: the option or the variable."""

    value: str
    source: str = OPTION

    @property
    def where(self) -> str:
        """For an error."""
        return f"{self.source} {self.value}" if self.source == OPTION else f"{self.source}={self.value}"

    def __str__(self) -> str:
        return self.value if self.source == OPTION else f"{self.value} ({self.source})"


def choose(option: str | None, variable: str | None) -> Address | None:
    """The option, else the environment variable (Ray sets it in a job that was submitted), else None: a Ray of our own.

    ``local`` in either is None too: it keeps a command on this machine where the variable names a cluster.
    """
    for value, source in ((option, OPTION), (variable, VARIABLE)):
        if value is not None and (value.strip() or source == OPTION):
            return None if value.strip() == LOCAL else Address(value.strip(), source)
    return None
