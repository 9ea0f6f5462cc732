"""What an object store's error is to the user: one line of pyarrow's several, and whether trying again may help."""

from __future__ import annotations

import re

from raydistill.errors import ABSENT, Fault

_CODE = re.compile(r"AWS Error ([A-Z0-9_]+)(?: \(HTTP status (\d+)\))?")
_UNRESOLVED = re.compile(r"Bucket '.*' not found")
_NOISE = re.compile(r"\s*\(Request ID: [^)]*\)|curlCode: \d+, ")
_CREDENTIALS = "check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, ~/.aws/credentials or the machine's role"
_ENDPOINT = "check its name, AWS_ENDPOINT_URL and the region"
_PERMANENT = {
    "NO_SUCH_BUCKET": ("there is no such bucket", f"make it, or {_ENDPOINT}"),
    "ACCESS_DENIED": (
        "access denied, or no credentials were found",
        f"{_CREDENTIALS}; it has to list, read, write and delete there",
    ),
    "INVALID_ACCESS_KEY_ID": ("the access key is not known there", _CREDENTIALS),
    "INVALID_CLIENT_TOKEN_ID": ("the access key is not known there", _CREDENTIALS),
    "UNRECOGNIZED_CLIENT": ("the access key is not known there", _CREDENTIALS),
    "MISSING_AUTHENTICATION_TOKEN": ("no credentials were found", _CREDENTIALS),
    "SIGNATURE_DOES_NOT_MATCH": ("the secret key does not fit the access key", _CREDENTIALS),
    "INVALID_SIGNATURE": ("the secret key does not fit the access key", _CREDENTIALS),
    "EXPIRED_TOKEN": ("the credentials have expired", "renew them, then run the command again with --resume"),
    "REQUEST_EXPIRED": ("this machine's clock is wrong", "set it"),
    "REQUEST_TIME_TOO_SKEWED": ("this machine's clock is wrong", "set it"),
}
_TRY_AGAIN = frozenset({408, 425, 429})


def explain(where: str, error: OSError, seconds: float = 0.0) -> tuple[Fault, bool]:
    """(the fault, whether trying again may help). where: the storage. seconds: how long it has been tried already."""
    text = " ".join(str(error).split())
    found = _CODE.search(text)
    code, status = (found.group(1), int(found.group(2) or 0)) if found else ("", 0)
    if _UNRESOLVED.search(text):
        code = "NO_SUCH_BUCKET"
    if code in _PERMANENT:
        rule, way_out = _PERMANENT[code]
        return Fault(where, rule, ABSENT, way_out), False
    if 300 <= status < 400:
        return Fault(
            where, "the bucket is in another region", ABSENT, "name it: --storage 's3://...?region=...'"
        ), False
    if 400 <= status < 500 and status not in _TRY_AGAIN:
        return Fault(where, f"refused ({_short(text)})", ABSENT, _ENDPOINT), False
    since = f" for {seconds:.0f} s" if seconds >= 1 else ""
    way_out = "check network and endpoint; --resume goes on when it answers"
    return Fault(where, f"does not answer{since} ({_short(text)})", ABSENT, way_out), True


def _short(text: str, limit: int = 120) -> str:
    """What is said last, without request ids: ``Could not connect to server``."""
    text = _NOISE.sub("", text)
    for mark in ("Details: ", "operation: "):
        before, _, after = text.rpartition(mark)
        text = after if before else text
    return text if len(text) <= limit else f"{text[: limit - 3]}..."
