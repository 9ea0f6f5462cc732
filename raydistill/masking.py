"""Passwords and tokens in URIs: whatever is shown or kept goes through here first."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import overload
from urllib.parse import unquote

MASK = "***"
_URI = re.compile(r"\b([A-Za-z][A-Za-z0-9+.-]*)://(\S*)")
_FILES = frozenset({"file", "sqlite"})
"""Schemes of paths, in which an @ is one."""

_WEB = frozenset({"http", "https", "s3", "gs", "gcs", "abfs", "abfss", "mlflow-artifacts", "ray"})
"""Schemes whose user info ends at the first slash. SQLAlchemy takes a password with slashes in it."""

_INFO = {True: re.compile(r"[^/?#]*@"), False: re.compile(r".*@")}
_PAIR = re.compile(r"([?&;#])([^=&;#\s]+)=([^&;#\s'\")>,]*)")
_SECRET = re.compile(r"pass|pwd|token|secret|key|sig|auth|cred|session|jwt|code|sas", re.IGNORECASE)
_SHORTEST = 4
"""Of a secret that is looked for in a text: a shorter one would mask half of every word."""


def masked(text: str, *uris: str | None) -> str:
    """`text` without the passwords and tokens of the URIs in it; a user's name stays.

    uris: known ones, whose secrets may stand in `text` by themselves.
    """
    shown = _URI.sub(_shown, text)
    for secret in sorted({secret for uri in uris if uri for secret in secrets_of(uri)}, key=len, reverse=True):
        shown = shown.replace(secret, MASK)
    return shown


@overload
def masked_all(value: Mapping[str, object]) -> dict[str, object]: ...


@overload
def masked_all(value: object) -> object: ...


def masked_all(value: object) -> object:
    """`masked` of every text in nested mappings and lists."""
    if isinstance(value, str):
        return masked(value)
    if isinstance(value, Mapping):
        return {key: masked_all(below) for key, below in value.items()}
    return [masked_all(below) for below in value] if isinstance(value, list | tuple) else value


def is_masked(uri: str) -> bool:
    """Whether something in `uri` was masked: it is what was shown, not what was given."""
    return MASK in uri


def secrets_of(uri: str) -> set[str]:
    """What `masked` leaves out of `uri`, as it stands there and decoded; too short ones are left out here."""
    found: set[str] = set()
    for scheme, rest in _URI.findall(uri):
        info = _info(scheme, rest)
        found.add(info[:-1].partition(":")[2] or info[:-1].partition(":")[0])
        found |= {value for _, name, value in _PAIR.findall(rest) if _SECRET.search(name)}
    found |= {unquote(secret) for secret in found}
    return {secret for secret in found if len(secret) >= _SHORTEST}


def _info(scheme: str, rest: str) -> str:
    """What stands before the host, with its @."""
    kind = scheme.partition("+")[0].lower()
    found = None if kind in _FILES else _INFO[kind in _WEB].match(rest)
    return found.group() if found else ""


def _shown(found: re.Match[str]) -> str:
    scheme, rest = found.groups()
    info = _info(scheme, rest)
    user, colon, _ = info[:-1].partition(":")  # alone it is a token
    name = f"{user}:{MASK}@" if colon else f"{MASK}@" if info else ""
    pairs = _PAIR.sub(lambda p: f"{p[1]}{p[2]}={MASK if _SECRET.search(p[2]) else p[3]}", rest[len(info) :])
    return f"{scheme}://{name}{pairs}"
