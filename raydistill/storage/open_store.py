"""From what the user says to the store."""

from __future__ import annotations

import re
from pathlib import Path

from raydistill.errors import ConfigError, Fault
from raydistill.storage.bucket import Bucket
from raydistill.storage.objects import OPTION, SCHEMES, parse_bucket_uri
from raydistill.storage.store import Folder, Store


def open_store(where: str | Path) -> Store:
    """A folder, or a URI such as ``s3://bucket/prefix``, optionally with ``?endpoint_override=host:port&region=...``.

    Nothing is connected to, nothing is written; `Store.check` does that.

    Raises:
        ConfigError: it is neither.
    """
    text = str(where)
    if "://" in text:
        return Bucket(parse_bucket_uri(text))
    found = re.match(r"([a-z0-9]+):/", text)
    if found and found.group(1) in SCHEMES:
        raise ConfigError(Fault(OPTION, "needs two slashes", text, f"did you mean '{text.replace(':/', '://', 1)}'?"))
    return Folder(Path(where).resolve())
