"""What ``raydistill compress`` makes of ``--kd-hidden``."""

from __future__ import annotations

from raydistill.errors import ConfigError, Fault


def hidden_pairs(text: str | None) -> dict[str, str]:
    """The student's modules to the teacher's; a name alone is that of both.

    Raises:
        ConfigError: an entry names none, or more than two, or one of the student's twice.
    """
    pairs: dict[str, str] = {}
    for entry in text.split(",") if text else ():
        mine, equals, theirs = (part.strip() for part in entry.partition("="))
        if not mine or (equals and not theirs) or "=" in theirs:
            raise ConfigError(Fault("--kd-hidden", "must be pairs of modules", entry, "as in blocks.1=blocks.3,norm"))
        if mine in pairs:
            raise ConfigError(Fault("--kd-hidden", "names a module of the student's twice", mine, "keep one"))
        pairs[mine] = theirs or mine
    return pairs
